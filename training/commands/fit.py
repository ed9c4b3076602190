"""`fit`: train a recipe on an imported folder."""

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.clock import SystemClock
from contract.errors import UserError
from contract.figures import Figures
from training.commands import CHECKPOINTS, common_options, window_days, window_options
from training.commands.benchmark import NEXT_ITEM

if TYPE_CHECKING:
    import torch

    from training.commands import Subparsers
    from training.fit import Fit
    from training.next_item.fit import NextItemFit
    from training.trainer import History


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
    return _next_item(args) if args.recipe in NEXT_ITEM.values() else _checkout(args)


def _checkout(args: argparse.Namespace) -> Figures:
    """The towers and the ranker of a release."""
    from training.recipes import recipe

    chosen = recipe(args.recipe, args.set)  # before the slow imports: a typo costs no time
    from training import distributed
    from training.data.source import read_source
    from training.evaluation.cross_validation import Fold, add_rows, cross_validate
    from training.fit import Fit
    from training.run_folder import write_run

    device = distributed.device_named(args.device)
    source = read_source(args.data, window_days(args), drawn=chosen.explored_weight > 0)
    with _processes(device):
        folds: list[Fold] = []
        if args.folds:
            folds = list(cross_validate(source, chosen, args.folds, device=device))
        fit = Fit(
            source,
            chosen,
            device=device,
            checkpoints=args.output / CHECKPOINTS,
            compiled=_compiled(args),
        )
        figures = _run(
            args,
            fit,
            lambda fitted: write_run(
                args.output, fitted, chosen, source, fit.report, SystemClock()
            ),
        )
    report = fit.report
    for name, found in report.gap.items():
        figures.add(f"gap/{name}", {metric: [value] for metric, value in found.items()})
    figures.add("fit", {}, seconds=report.seconds, peak_mib=report.peak_mib)
    figures.notes.append(
        "validation: negative log likelihood for the towers, 1 - NDCG@5 for the ranker"
    )
    if folds:
        add_rows(figures, folds)
    return figures


def _next_item(args: argparse.Namespace) -> Figures:
    """The members of a next-item recommender and their mixture with session-knn."""
    from training.next_item.recipe import sequence_recipe

    chosen = sequence_recipe(args.recipe, args.set)
    if args.folds or any(window_days(args).values()):
        raise UserError(
            f"recipe {chosen.name} holds out the latest interactions itself: "
            "neither --folds nor a window applies"
        )
    from training import distributed
    from training.next_item.fit import NextItemFit
    from training.next_item.imported import PROTOCOL_OF, read_split
    from training.next_item.run_folder import write_run

    device = distributed.device_named(args.device)
    split = read_split(args.data, PROTOCOL_OF[chosen.name])
    with _processes(device):
        fit = NextItemFit(
            split,
            chosen,
            device=device,
            checkpoints=args.output / CHECKPOINTS,
            compiled=_compiled(args),
        )
        figures = _run(
            args,
            fit,
            lambda fitted: write_run(args.output, fitted, chosen, split, fit.report, SystemClock()),
        )
    report = fit.report
    figures.add(
        "validation",
        {f"NDCG@{split.cutoffs[-1]}": [report.validation[f"{report.mixture:g}"]]},
        seconds=report.seconds,
        peak_mib=report.peak_mib,
    )
    figures.notes.append(
        f"validation of members: 1 - NDCG@20; share of session-knn: {report.mixture:g}; "
        f"measure with `evaluate {args.output} --protocol {split.protocol}`"
    )
    return figures


def _run(
    args: argparse.Namespace, fit: "Fit | NextItemFit", write: Callable[[Any], None]
) -> Figures:
    """Fit, let the first process write what came of it, and tell of the trainings."""
    from training import distributed

    fitted = fit.run()
    distributed.from_first(lambda: write(fitted))
    processes = distributed.world_size()
    figures = Figures("fit", machine={"device": args.device, "processes": processes})
    _add_histories(figures, fit.report.histories)
    return figures


@contextmanager
def _processes(device: "torch.device") -> Iterator[None]:
    from training import distributed
    from training.acceleration import out_of_memory

    with (
        out_of_memory("fit", "`--set batch_size=` or `--set dimension=`", device),
        distributed.process_group(device),
    ):
        yield


def _compiled(args: argparse.Namespace) -> bool:
    return bool(args.compile == "on" or (args.compile == "auto" and args.device == "cuda"))


def _add_histories(figures: Figures, histories: "dict[str, History]") -> None:
    for stage, history in histories.items():
        best = history.best_epoch - 1
        metrics = {"epochs": [float(history.best_epoch)], "loss": [history.train_loss[best]]}
        if not math.isnan(history.validation[best]):
            metrics["validation"] = [history.validation[best]]
        figures.add(stage, metrics)
