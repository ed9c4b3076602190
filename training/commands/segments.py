"""`segments`: learn segments from behaviour, with the figures that chose them and pictures."""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from training.commands import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `segments`."""
    parser = subparsers.add_parser(
        "segments", parents=[common_options()], help="learn segments of shoppers from behaviour"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument(
        "--clusters", type=_number, metavar="K", help="so many (default: as the figures choose)"
    )
    parser.add_argument(
        "--until",
        type=_day,
        metavar="DATE",
        help="behaviour before this day (default: the training time of the import)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Learn into `args.output`. Raises UserError where there is too little to learn from."""
    from training.segments.learn import learn, read_behaviours, write

    began = time.perf_counter()
    behaviours = read_behaviours(args.data, args.until)
    learned = learn(behaviours.vectors, args.seed, args.clusters)
    write(args.output, behaviours, learned, args.seed)
    figures = Figures("segments")
    for one in learned.tried:
        figures.add(
            f"k-means, {one.k} segments",
            {
                "silhouette": [one.silhouette],
                "stability": list(one.stability),
                "smallest": [one.smallest],
                "agreement": [one.hierarchical],
            },
        )
        figures.add(
            f"hierarchical, {one.k} segments", {"silhouette": [one.hierarchical_silhouette]}
        )
    sizes = [int((learned.labels == place).sum()) for place in range(learned.chosen.k)]
    for name, size in zip(learned.segments.names, sizes, strict=True):
        share = [size / len(learned.labels)]
        figures.add(f"segment: {name}", {"shoppers": [float(size)], "share": share})
    figures.add("segments", {}, seconds=time.perf_counter() - began, peak_mib=peak_mib())
    figures.notes += [
        f"{len(learned.labels)} shoppers, behaviour before {behaviours.until:%Y-%m-%d}; "
        f"{learned.chosen.k} segments",
        "stability: adjusted Rand index over bootstrap resamples; agreement: adjusted Rand index "
        "with the hierarchical clustering cut into as many",
        f"written to {args.output}; `export --segments {args.output}` puts them into a release",
    ]
    if behaviours.synthetic:
        figures.notes.append("the data is synthetic")
    return figures


def _number(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 50:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 to 50")
    return int(text)


def _day(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2017-11-20") from error
