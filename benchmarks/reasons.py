"""`python -m benchmarks.reasons`: what it takes to say why, and whether SHAP says the same.

Some hundred checkouts of an import are decided by a gateway in this process. In each answer stand
the attributions of the shown items by kind of evidence, exact Shapley values of five groups. SHAP
gives values for each of the sixty pair features, estimated by permutations; summed over the same
groups they are compared by rank. Once SHAP looks at the very background that the release carries,
which tests the grouping, and once at items that were logged as shown, which tests everything.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.checkouts import from_baskets
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.in_process import gateway_of
from benchmarks.twin import live_manifest
from contract.attribution import GROUPS
from contract.errors import UserError
from contract.figures import Figures
from contract.items import Floats
from contract.pair_features import PAIR_FEATURES
from serving.decision.messages import DecideRequest
from serving.decision.outcome import SubjectContext
from serving.inference.explainer import Explainer
from serving.inference.release import compute_single_threaded

PROGRAM = "benchmarks.reasons"
LEAST_AGREEMENT = 0.9
MOST_MS = 2.0
_PATIENT_MS = 1_000  # a deadline that a busy machine keeps
_POINTS = 200  # of SHAP's background; forty drawn twice agree in .97 to .99 only
_PASSES = 2  # permutations of all features, each forwards and backwards
_OF_REASONS = ("attributions", "reasons")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Judge reasons.")
    parser.add_argument("--decisions", type=int, default=500)
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and False: there is nothing to be void. Raises UserError."""
    if args.decisions < 2:
        raise UserError("--decisions must be at least 2")
    shap = _shap()
    decided = asyncio.run(_decide(args))
    figures = Figures("reasons")
    figures.add(
        "time",
        {f"p{q}_ms": [float(np.percentile(decided.ms, q))] for q in (50, 90, 99)}
        | {"max_ms": [float(max(decided.ms))]},
    )
    figures.notes.append(
        f"attributions and reasons of {len(decided.ms)} decisions, one at a time, wall clock in "
        f"the path; aimed at: {MOST_MS:g} ms"
    )
    usual = decided.explainer.background
    repeated = np.repeat(usual.rows, np.maximum(1, np.round(usual.weight * _POINTS)).astype(int), 0)
    logged = np.concatenate(decided.shown)
    drawn = logged[np.random.default_rng(0).choice(len(logged), min(_POINTS, len(logged)), False)]
    for name, rows in (("the same background", repeated), ("logged decisions", drawn)):
        theirs = _grouped(shap, decided.explainer, logged, rows)
        figures.add(f"SHAP over {name}", _agreement(np.concatenate(decided.owed), theirs))
    figures.notes.append(
        f"Spearman over all items and groups, aimed at: {LEAST_AGREEMENT:g}; `top`: the group that "
        "adds most is the same"
    )
    return figures, False


class Decided:
    """What the decisions left: pair features [S, F] and attributions [S, G] of each, the time."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.shown: list[Floats] = []
        self.owed: list[Floats] = []
        self.ms: list[float] = []


async def _decide(args: argparse.Namespace) -> Decided:
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    async with gateway_of(args, manifest) as gateway:
        explainer = gateway.live.current.explainer
        if explainer is None:
            raise UserError(
                "the live release carries no background to explain against; fit and export "
                "one with this version"
            )
        found = Decided(explainer)
        for body in bodies:
            asked = DecideRequest.model_validate_json(body)
            asked = asked.model_copy(update={"deadline_ms": _PATIENT_MS})
            who = gateway.subjects.recognise(
                asked.visitor_id, asked.user_id, asked.consent, gpc=asked.gpc
            )
            subject = SubjectContext(who.subject_id, who.purposes)
            _keep(found, await gateway.decider.decide(asked, subject))
            if len(found.ms) == args.decisions:
                break
        return found


def _keep(found: Decided, decision: Any) -> None:
    owed = [one.attributions for one in decision.shown]
    if not owed or None in owed:  # a lower rung has nothing to take apart
        return
    found.owed.append(np.array(owed, np.float32))
    found.shown.append(np.array([one.pair_features for one in decision.shown], np.float32))
    found.ms.append(sum(decision.response.timings_ms[name] for name in _OF_REASONS))


def _grouped(shap: Any, explainer: Explainer, items: Floats, background: Floats) -> Floats:
    """SHAP's values of `items` [S, F], summed over the groups, [S, G]."""
    compute_single_threaded()
    masker = shap.maskers.Independent(background, max_samples=len(background))
    judge = shap.explainers.Permutation(explainer.scores, masker, seed=0)
    evaluations = _PASSES * 2 * len(PAIR_FEATURES) + 1
    values = judge(items, max_evals=evaluations, silent=True).values
    column = {name: place for place, name in enumerate(PAIR_FEATURES)}
    groups = [[column[name] for name in names] for names in GROUPS.values()]
    found: Floats = np.stack([values[:, group].sum(axis=1) for group in groups], axis=1)
    return found


def _agreement(ours: Floats, theirs: Floats) -> dict[str, list[float]]:
    from scipy.stats import spearmanr

    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    rank = float(spearmanr(ours.ravel(), theirs.ravel()).statistic)
    return {"Spearman": [rank], "top": [float(same.mean())]}


def _shap() -> Any:
    try:
        import shap
    except ModuleNotFoundError:
        raise UserError("shap is not installed; get it with `pip install shap`") from None
    return shap


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
