"""`simulate`: labelled synthetic shoppers over a real catalogue."""

import argparse
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from training.commands import Subparsers

_DEFAULT_START = date(2026, 1, 5)  # fixed: the wall clock must not change what a seed gives
_DEFAULT_WORLD = Path(__file__).parent.parent / "worlds" / "default.json"


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `simulate`."""
    parser = subparsers.add_parser(
        "simulate",
        parents=[common_options()],
        help="make labelled synthetic shoppers over a catalogue",
    )
    parser.add_argument("--catalogue", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--world",
        type=Path,
        default=_DEFAULT_WORLD,
        metavar="FILE",
        help="how shoppers behave, in JSON (default: the packaged world)",
    )
    parser.add_argument(
        "--vary",
        type=int,
        metavar="S",
        help="not this world but one like it, with parameters drawn around its own",
    )
    parser.add_argument("--shoppers", type=int, required=True, metavar="N")
    parser.add_argument("--days", type=int, required=True, metavar="D")
    parser.add_argument("--seed", type=int, required=True, metavar="S")
    parser.add_argument(
        "--start", type=_date, default=_DEFAULT_START, metavar="DATE", help="first day, YYYY-MM-DD"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Simulate into `args.output`. Raises UserError on bad input."""
    from training.data.simulate.run import NOTES, simulate

    began = time.perf_counter()
    counts = simulate(
        args.catalogue,
        args.world,
        args.output,
        num_shoppers=args.shoppers,
        num_days=args.days,
        seed=args.seed,
        start=args.start,
        vary=args.vary,
    )
    seconds = time.perf_counter() - began
    figures = Figures(command="simulate", notes=list(NOTES))
    for name, metrics in counts.items():
        figures.add(name, {metric: [count] for metric, count in metrics.items()})
    rate = counts["events"]["count"] / seconds
    figures.add("simulate", {"per_second": [rate]}, seconds=seconds, peak_mib=peak_mib())
    return figures


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-01-05") from error
