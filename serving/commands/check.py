"""`tillwise-serve check`: whether a release could be served, with every problem named."""

import argparse
import sys
import time
from pathlib import Path

from contract.errors import UserError
from contract.figures import Figures
from contract.rollout_file import live_release_id
from serving.commands.arguments import add_folders, add_json, add_release, settings_of


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("check", help="verify the live release, file by file")
    add_release(parser)
    add_folders(parser, "releases", "models")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Print every problem and raise UserError, or say in one line that there is none."""
    settings = settings_of(args)
    release_id = args.release or live_release_id(settings.releases)
    return checked("check", settings.releases, settings.models, release_id)


def checked(command: str, releases: Path, models: Path, release_id: str) -> Figures:
    """The figures of a release without problems; UserError after printing those of another."""
    from serving.inference.releases import check_release

    began = time.perf_counter()
    problems = check_release(releases, models, release_id)
    if problems:
        for problem in problems:
            print(problem, file=sys.stderr)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UserError(f"release {release_id} can not be served: {count}, named above")
    seconds = time.perf_counter() - began
    print(f"release {release_id}: everything as its manifest says ({seconds:.1f} s)")
    figures = Figures(command)
    figures.add(release_id, {"problems": [0.0]}, seconds=seconds)
    return figures
