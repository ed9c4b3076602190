"""`uplift`: fit the network that says what offers change, on randomised decisions."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import UserError
from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from training.commands import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `uplift`."""
    parser = subparsers.add_parser(
        "uplift",
        parents=[common_options()],
        help="fit the network that says what offers change, on decisions made at random",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Fit into `args.output`; what is told of it is of people that a member has not learned from.
    Raises UserError on bad input."""
    import numpy as np

    from training.data.checkouts import read_offer_arms, read_offer_log
    from training.evaluation.uplift_metrics import areas
    from training.uplift.evidence import Evidence
    from training.uplift.fit import UpliftRecipe, fit_uplift
    from training.uplift.run_folder import write_uplift

    began = time.perf_counter()
    log, arms, recipe = read_offer_log(args.data), read_offer_arms(args.data), UpliftRecipe()
    if log.arms[1:] != tuple(arm.name for arm in arms.arms):
        raise UserError(f"{args.data}: the arms of the log are not those of its arms' file")
    fitted = fit_uplift(log, recipe, args.seed)
    evidence = Evidence.of(log, fitted.out_of_fold)
    write_uplift(args.output, fitted.model, arms, recipe, evidence)
    chances, ones = fitted.out_of_fold, np.ones((1, len(log)))
    figures = Figures("uplift")
    for place, name in enumerate(log.arms[1:], start=1):
        auuc, qini = areas(log, place, chances[:, place] - chances[:, 0], ones)
        figures.add(name, {"AUUC": [float(auuc[0])], "Qini": [float(qini[0])]})
    figures.add("policy", {name: [getattr(evidence, name)] for name in ("gain", "low", "high")})
    seconds = time.perf_counter() - began
    figures.add("uplift", {}, seconds=seconds, peak_mib=peak_mib())
    figures.notes.append(
        f"of each person by the one of {recipe.members} members that did not learn from them, but "
        "stopped by them, so a little too good; `benchmark uplift` measures apart"
    )
    refused = evidence.refused
    verdict = "may go out" if refused is None else "`export` and `retrain` will refuse it"
    figures.notes.append(f"policy: {refused or evidence.said}; {verdict}")
    return figures
