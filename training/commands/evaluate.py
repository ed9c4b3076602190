"""`evaluate`: a fitted run against the baselines."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import UserError
from contract.figures import Figures
from training.commands import EVALUATION, common_options

if TYPE_CHECKING:
    from training.commands import Subparsers
    from training.data.source import Source
    from training.run_folder import Run

PROTOCOLS = ("basket-completion", "next-basket")
NEXT_ITEM_PROTOCOLS = ("leave-one-out", "session")


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `evaluate`."""
    parser = subparsers.add_parser(
        "evaluate", parents=[common_options()], help="measure a run against the baselines"
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--protocol", choices=(*PROTOCOLS, *NEXT_ITEM_PROTOCOLS), required=True)
    parser.add_argument(
        "--skip", choices=("lightgbm",), help="leave out the baseline that takes longest"
    )
    parser.add_argument(
        "--lists",
        action="store_true",
        help="instead: what varied lists, category caps and margin cost in relevance, on the "
        "validation days of basket-completion",
    )
    parser.add_argument(
        "--cases", type=int, default=2_000, metavar="N", help="with --lists: at most N baskets"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """The table of the run; the figures are also kept in the run's folder."""
    if args.lists:
        return _lists(args)
    next_item = args.protocol in NEXT_ITEM_PROTOCOLS
    figures = _next_item(args) if next_item else _checkout(args)
    kept = args.run_folder / EVALUATION.format(protocol=args.protocol)
    kept.write_text(json.dumps(figures.as_json(), indent=1) + "\n", encoding="utf-8")
    return figures


def _checkout(args: argparse.Namespace) -> Figures:
    from training.distributed import device_named
    from training.evaluation.comparison import Comparison
    from training.fit import Fit
    from training.recommender import Recommender
    from training.run_folder import read_run

    fitted = read_run(args.run_folder)
    source = _source_of(fitted, args.data)
    comparison = Comparison(args.protocol, source, fitted.vocabulary)
    comparison.add_counting()
    if args.skip != "lightgbm":
        comparison.add_lightgbm(Fit(source, fitted.recipe, device=device_named("cpu")))
    recommender = Recommender(fitted.vocabulary, comparison.tables, fitted.towers, fitted.ranker)
    comparison.add_recommender(recommender, 0.0)
    comparison.add_gap(fitted.gap)
    return comparison.figures("evaluate")


def _lists(args: argparse.Namespace) -> Figures:
    from training.evaluation.list_table import list_table
    from training.run_folder import read_run

    if args.protocol != "basket-completion" or args.cases < 1:
        raise UserError("--lists needs --protocol basket-completion and one case or more")
    fitted = read_run(args.run_folder)
    return list_table(fitted, _source_of(fitted, args.data), args.cases)


def _source_of(fitted: "Run", data: Path) -> "Source":
    """What lies in `data`, over the days and under the segments that the run was fitted with."""
    from training.data.source import read_source

    window = fitted.window
    days: dict[str, str | None] = {
        "validate_from": f"{window.validate_from:%Y-%m-%d}",
        "train_until": f"{window.train_until:%Y-%m-%d}",
        "test_until": f"{window.test_until:%Y-%m-%d}",
    }
    source = read_source(data, days)
    return replace(source, timelines=source.timelines.under(fitted.rules))


def _next_item(args: argparse.Namespace) -> Figures:
    from training.distributed import device_named
    from training.evaluation.next_item_table import run_table
    from training.next_item.imported import read_split
    from training.next_item.run_folder import read_run

    fitted = read_run(args.run_folder, device_named("cpu"))
    if fitted.protocol != args.protocol:
        raise UserError(f"{args.run_folder}: fitted for {fitted.protocol}, not {args.protocol}")
    split = read_split(args.data, fitted.protocol)
    if split.vocabulary.hash != fitted.vocabulary.hash:
        raise UserError(f"{args.data}: holds other items than {args.run_folder} was fitted on")
    return run_table("evaluate", split, fitted)
