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
_EVERY = (*PROTOCOLS, COLD_ITEMS, SESSION_KNN)


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `benchmark`."""
    parser = subparsers.add_parser(
        "benchmark",
        parents=[common_options(), window_options()],
        help="fit with several seeds and print one table with the baselines",
    )
    parser.add_argument("protocol", choices=_EVERY, metavar="PROTOCOL", help=", ".join(_EVERY))
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="an imported folder (default: Complete Journey)"
    )
    parser.add_argument("--recipe", default="demo", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--set", action="append", metavar="key=value", help="change a setting")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """The table of `args.protocol`, mean and spread over the seeds."""
    if args.protocol == SESSION_KNN:
        return _session_knn(args.data)
    from training.recipes import recipe

    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: at least one is needed")
    chosen = recipe(args.recipe, args.set)
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
        fit = Fit(source, replace(chosen, seed=seed), device=device_named("cpu"))
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


def _session_knn(folder: Path | None) -> Figures:
    from training.evaluation.session_knn_benchmark import session_knn_table

    if folder is None:
        raise UserError("session-knn needs --data, a folder with train, valid and test.parquet")
    return session_knn_table(folder)
