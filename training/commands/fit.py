"""`fit`: train a recipe on an imported folder."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from contract.clock import SystemClock
from contract.figures import Figures
from training.commands import common_options, window_days, window_options

if TYPE_CHECKING:
    from training.commands import Subparsers
    from training.fit import Report


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `fit`."""
    parser = subparsers.add_parser(
        "fit", parents=[common_options(), window_options()], help="train a recipe on imported data"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--recipe", required=True, metavar="NAME")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--compile",
        choices=("auto", "on", "off"),
        default="auto",
        help="compile the dense parts of the models (auto: on CUDA)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="first cross-validate by shopper, inside the training time",
    )
    parser.add_argument("--set", action="append", metavar="key=value", help="change a setting")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Fit into `args.output`; an interrupted fit goes on from its last checkpoint.

    Under torchrun every process runs this; the first one writes and prints.
    """
    from training.recipes import recipe

    chosen = recipe(args.recipe, args.set)  # before the slow imports: a typo costs no time
    from training import distributed
    from training.acceleration import out_of_memory
    from training.data.source import read_source
    from training.evaluation.cross_validation import Fold, add_rows, cross_validate
    from training.fit import Fit
    from training.run_folder import write_run

    device = distributed.device_named(args.device)
    source = read_source(args.data, window_days(args))
    with (
        out_of_memory("fit", "`--set batch_size=` or `--set dimension=`", device),
        distributed.process_group(device),
    ):
        folds: list[Fold] = []
        if args.folds:
            folds = list(cross_validate(source, chosen, args.folds, device=device))
        fit = Fit(
            source,
            chosen,
            device=device,
            checkpoints=args.output / "checkpoints",
            compiled=args.compile == "on" or (args.compile == "auto" and device.type == "cuda"),
        )
        recommender = fit.run()
        distributed.from_first(
            lambda: write_run(args.output, recommender, chosen, source, fit.report, SystemClock())
        )
        processes = distributed.world_size()
    figures = _figures(fit.report, {"device": args.device, "processes": processes})
    if folds:
        add_rows(figures, folds)
    return figures


def _figures(report: "Report", machine: dict[str, str | int]) -> Figures:
    figures = Figures("fit", machine=machine)
    for stage, history in report.histories.items():
        best = history.best_epoch - 1
        metrics = {"epochs": [float(history.best_epoch)], "loss": [history.train_loss[best]]}
        if not math.isnan(history.validation[best]):
            metrics["validation"] = [history.validation[best]]
        figures.add(stage, metrics)
    for name, found in report.gap.items():
        figures.add(f"gap/{name}", {metric: [value] for metric, value in found.items()})
    figures.add("fit", {}, seconds=report.seconds, peak_mib=report.peak_mib)
    figures.notes.append(
        "validation: negative log likelihood for the towers, 1 - NDCG@5 for the ranker"
    )
    return figures
