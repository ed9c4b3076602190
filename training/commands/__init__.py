"""One module a command: `add_parser(subparsers)` declares it, `run(args)` does it.

Importing a command's module stays cheap; the libraries it needs are imported inside `run`.
"""

import argparse
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# What stands in a run's folder beside the run: what a fit can go on from, what was measured.
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation-{protocol}.json"


def common_options() -> argparse.ArgumentParser:
    """The options of every command, for `parents=`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        nargs="?",
        const=Path("-"),
        help="write the figures as JSON to PATH, or to standard output without one",
    )
    return parser


def window_options() -> argparse.ArgumentParser:
    """The options that move the window of a protocol, for `parents=`."""
    parser = argparse.ArgumentParser(add_help=False)
    for name, meaning in (
        ("--validate-from", "first day on which models are chosen"),
        ("--train-until", "first day of the test"),
        ("--test-until", "first day after the test"),
    ):
        parser.add_argument(name, metavar="DATE", help=meaning)
    return parser


def window_days(args: argparse.Namespace) -> dict[str, str | None]:
    """What `window_options` were given, by field name of `Window`."""
    return {name: getattr(args, name) for name in ("validate_from", "train_until", "test_until")}


def peak_mib() -> float:
    """The most memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def is_first_process() -> bool:
    """Whether this process speaks and writes: of those that torchrun started, only the first."""
    return os.environ.get("RANK", "0") == "0"
