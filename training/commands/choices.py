"""`choices`: learn how people pay and have things delivered, for an export to take along."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from training.commands import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `choices`."""
    parser = subparsers.add_parser(
        "choices",
        parents=[common_options()],
        help="learn the order of payment and delivery from a log of checkouts",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Fit on all choices of `args.data`, with the settings that the last of them chose. Raises
    UserError where there are too few."""
    from training.choices.learn import learn, write

    began = time.perf_counter()
    learned = learn(args.data)
    write(args.output, learned)
    figures = Figures("choices")
    for kind in ("payment", "shipping"):
        weights = getattr(learned, kind)
        figures.add(
            kind,
            {"options": [len(weights.names)], "pseudo-counts": [weights.pseudo_counts]},
        )
    figures.notes.append(f"in {args.output}; `export --choices {args.output}` takes it along")
    figures.add("choices", {}, seconds=time.perf_counter() - began, peak_mib=peak_mib())
    return figures
