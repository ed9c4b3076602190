"""`benchmark`: import, fit, evaluate and the baselines in one table, with several seeds."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import UserError
from contract.figures import Figures
from training.commands import common_options, window_days, window_options
from training.commands.evaluate import PROTOCOLS

if TYPE_CHECKING:
    from training.commands import Subparsers
    from training.recipes import Recipe

SESSION_KNN = "session-knn"
COLD_ITEMS = "cold-items"
UPLIFT, PACING, CHOICES, REDEEM = "uplift", "pacing", "choices", "redeem"
OFF_POLICY = "off-policy"
# Protocols of sequence models, and the recipe that fits the shape of their data.
NEXT_ITEM = {"leave-one-out": "sequences", "session": "sessions"}
_SEEDS = {UPLIFT: 20, OFF_POLICY: 1_000}
_EVERY = (
    *(*PROTOCOLS, *NEXT_ITEM, COLD_ITEMS, SESSION_KNN),
    *(UPLIFT, PACING, OFF_POLICY, CHOICES, REDEEM),
)


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `benchmark`."""
    parser = subparsers.add_parser(
        "benchmark",
        parents=[common_options(), window_options()],
        help="fit with several seeds and print one table with the baselines",
    )
    parser.add_argument("protocol", choices=_EVERY, metavar="PROTOCOL", help=", ".join(_EVERY))
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="what the protocol reads: an imported folder (default: Complete Journey), a file of "
        "sequences, or a folder of sessions or clicks",
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="default: demo; sequences or sessions by protocol"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="default: 3; uplift 20; off-policy 1000"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where uplift and pacing draw, options writes"
    )
    parser.add_argument(
        "--decisions", type=int, metavar="N", help="how many uplift and pacing learn from at most"
    )
    parser.add_argument("--set", action="append", metavar="key=value", help="change a setting")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """The table of `args.protocol`, mean and spread over the seeds."""
    if args.protocol == SESSION_KNN:
        return _session_knn(args.data)
    if args.seeds is None:
        args.seeds = _SEEDS.get(args.protocol, 3)
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: at least one is needed")
    if args.protocol == UPLIFT:
        return _uplift(args)
    if args.protocol == CHOICES:
        return _choices(args.data)
    if args.protocol == PACING:
        return _pacing(args)
    if args.protocol == OFF_POLICY:
        return _off_policy(args)
    if args.protocol == REDEEM:
        from training.evaluation.redeem_table import redeem_table

        return redeem_table(args.seeds)
    if args.protocol in NEXT_ITEM:
        return _next_item(args)
    from training.recipes import recipe

    chosen = recipe(args.recipe or "demo", args.set)
    if args.data is not None:
        return _table(args, chosen, args.data)
    from training.data.completejourney import import_completejourney

    with tempfile.TemporaryDirectory() as folder:
        import_completejourney(Path(folder))
        return _table(args, chosen, Path(folder))


def _table(args: argparse.Namespace, chosen: "Recipe", folder: Path) -> Figures:
    from training.data.source import read_source
    from training.distributed import device_named
    from training.evaluation.comparison import Comparison
    from training.fit import Fit

    source = read_source(folder, window_days(args))
    if args.protocol == COLD_ITEMS:
        from training.evaluation.cold_items import cold_items_table

        return cold_items_table(source, chosen, args.seeds)
    comparison = None
    for seed in range(chosen.seed, chosen.seed + args.seeds):
        fit = Fit(source, replace(chosen, seed=seed), device=device_named(args.device))
        if comparison is None:
            comparison = Comparison(args.protocol, source, fit.vocabulary)
            comparison.add_counting()
        comparison.add_lightgbm(fit)
        recommender = fit.run()
        comparison.add_recommender(recommender, fit.report.seconds)
        comparison.add_gap(fit.report.gap)
    assert comparison is not None
    figures = comparison.figures(f"benchmark {args.protocol}")
    figures.notes.append(f"recipe {chosen.name}, {args.seeds} seeds; seconds are summed over them")
    return figures


def _next_item(args: argparse.Namespace) -> Figures:
    from training.next_item.recipe import sequence_recipe

    chosen = sequence_recipe(args.recipe or NEXT_ITEM[args.protocol], args.set)
    if args.data is None:
        raise UserError(
            f"{args.protocol} needs --data, "
            + (
                "a file of lines `user item item ...`"
                if args.protocol == "leave-one-out"
                else "a folder with train_sessions.parquet and test_instances.parquet"
            )
        )
    from training.acceleration import out_of_memory
    from training.distributed import device_named
    from training.evaluation.next_item_table import next_item_table
    from training.next_item import split

    device = device_named(args.device)
    read = split.leave_one_out if args.protocol == "leave-one-out" else split.sessions
    with out_of_memory("benchmark", "`--set batch_size=` or `--set dimension=`", device):
        return next_item_table(
            f"benchmark {args.protocol}", read(args.data), chosen, args.seeds, device
        )


def _choices(data: Path | None) -> Figures:
    from training.choices.table import choices_table

    if data is None:
        raise UserError(
            "choices needs --data, a folder with checkouts.parquet (simulate) or Olist's payments"
        )
    return choices_table(data)


def _uplift(args: argparse.Namespace) -> Figures:
    from training.evaluation.uplift_table import uplift_table

    if args.data is None:
        raise UserError(
            "uplift needs --data, Hillstrom's file or a folder with checkouts.parquet (simulate)"
        )
    return uplift_table(args.data, args.seeds, args.output, args.decisions)


def _pacing(args: argparse.Namespace) -> Figures:
    from training.evaluation.pacing_table import pacing_table

    if args.data is None:
        raise UserError("pacing needs --data, a simulated folder with checkouts.parquet")
    return pacing_table(args.data, args.seeds, args.output, args.decisions)


def _off_policy(args: argparse.Namespace) -> Figures:
    from training.evaluation.off_policy_table import off_policy_table

    if args.data is None:
        raise UserError("off-policy needs --data, a simulated folder with checkouts.parquet")
    return off_policy_table(args.data, args.seeds)


def _session_knn(folder: Path | None) -> Figures:
    from training.evaluation.session_knn_benchmark import session_knn_table

    if folder is None:
        raise UserError("session-knn needs --data, a folder with train, valid and test.parquet")
    return session_knn_table(folder)
