"""`tillwise-serve release list | verify | promote`: the releases on disk and the live one."""

import argparse
import os
from pathlib import Path

from pydantic import ValidationError

from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import MANIFEST, ReleaseManifest
from serving.commands.arguments import add_folders, add_json, settings_of
from serving.commands.check import checked
from serving.inference.releases import CURRENT, live_release_id, load_release


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its own subcommands."""
    group = subparsers.add_parser("release", help="list, verify or promote releases")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    described = {
        "list": ("every release on disk", list_releases),
        "verify": ("verify one, by default the live one", verify),
        "promote": ("verify one, then make it the live one", promote),
    }
    for name, (text, action) in described.items():
        parser = actions.add_parser(name, help=text)
        if name != "list":
            parser.add_argument("release", metavar="ID", nargs="?" if name == "verify" else None)
        add_folders(parser, "releases", "models")
        add_json(parser)
        parser.set_defaults(run=action)


def list_releases(args: argparse.Namespace) -> Figures:
    """Print the releases, the newest first; the live one is marked."""
    releases = settings_of(args).releases
    try:
        live = live_release_id(releases)
    except UserError:
        live = ""
    figures = Figures("release list")
    manifests = [found for folder in _folders(releases) if (found := _manifest(folder))]
    for manifest in sorted(manifests, key=lambda one: one.created_at, reverse=True):
        mark = "*" if manifest.release_id == live else " "
        until = f"{manifest.trained_until:%Y-%m-%d %H:%M}"
        synthetic = "  synthetic" if manifest.synthetic else ""
        print(
            f"{mark} {manifest.release_id}  {manifest.recipe}  until {until}  "
            f"{manifest.index.count} items{synthetic}"
        )
        metrics = {name: [value] for name, value in manifest.metrics.items()}
        figures.add(manifest.release_id, metrics)
    if not manifests:
        raise UserError(f"there is no release in {releases}; make one with `tillwise-train export`")
    figures.notes.append(f"live: {live or 'none'}")
    return figures


def verify(args: argparse.Namespace) -> Figures:
    """As `check`."""
    settings = settings_of(args)
    release_id = args.release or live_release_id(settings.releases)
    return checked("release verify", settings.releases, settings.models, release_id)


def promote(args: argparse.Namespace) -> Figures:
    """Make a release that verifies the live one; running gateways notice within a second."""
    settings = settings_of(args)
    # Not `check`: that also judges the pointer, which this command is about to put right.
    load_release(settings.releases, settings.models, args.release).models.close()
    point(settings.releases, args.release)
    print(f"release {args.release} is live")
    figures = Figures("release promote")
    figures.add(args.release, {})
    return figures


def point(releases: Path, release_id: str) -> None:
    """Let `current` name `release_id`, at once for every reader."""
    draft = releases / f".{CURRENT}.{os.getpid()}"
    with draft.open("w") as file:
        file.write(f"{release_id}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(releases / CURRENT)


def _folders(releases: Path) -> list[Path]:
    if not releases.is_dir():
        raise UserError(
            f"there is no folder {releases}; make a release with `tillwise-train export`"
        )
    return [path for path in sorted(releases.iterdir()) if path.is_dir()]


def _manifest(folder: Path) -> ReleaseManifest | None:
    try:
        return ReleaseManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        print(f"! {folder.name}  its {MANIFEST} can not be read")
        return None
