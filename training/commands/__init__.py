"""One module a command: `add_parser(subparsers)` declares it, `run(args)` does it.

Importing a command's module stays cheap; the libraries it needs are imported inside `run`.
"""

import argparse
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def common_options() -> argparse.ArgumentParser:
    """The options of every command, for `parents=`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures here as JSON")
    return parser


def peak_mib() -> float:
    """The most memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
