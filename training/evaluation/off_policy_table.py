"""The `off-policy` protocol: logs drawn again and again from simulated checkouts whose chances are
known, and how often each estimate is right. An estimator sees a log; the truth is what it is held
against, and nothing else reads it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from contract.errors import UserError
from contract.figures import Figures
from contract.off_policy import estimates
from training.commands import peak_mib
from training.data.checkouts import read_offer_log, read_true_probabilities
from training.data.offer_log import Floats, Ints, OfferLog, margins
from training.evaluation.off_policy import Terms, always, as_logged, chances, outcome_model

PEOPLE = 4_000  # of a drawn log
CLOSE = 0.05
EXPLORED = Terms(holdout_share=0.05, explore_share=0.2)


def redrawn(
    log: OfferLog, truth: Floats, rng: np.random.Generator, people: int
) -> tuple[OfferLog, Ints]:
    """A log like `log` of other people, and the rows of `log` that it was made of: as many are
    drawn with all their checkouts (twice is two people), and arms and outcomes happen anew by the
    propensities and the true chances [N, A]."""
    rows_of = np.split(np.argsort(log.subject, kind="stable"), _starts(log))
    who = rng.integers(0, len(rows_of), people)
    rows = np.concatenate([rows_of[one] for one in who])
    drawn = log.take(rows)
    subject = np.repeat(np.arange(people), [len(rows_of[one]) for one in who])
    arm = (drawn.propensity.cumsum(1) < rng.random((len(rows), 1))).sum(1)
    arm = np.minimum(arm, len(log.arms) - 1)
    bought = (rng.random(len(rows)) < truth[rows, arm]).astype(np.float64)
    spend = bought * drawn.value
    return replace(drawn, subject=subject, arm=arm, outcome=bought, spend=spend), rows


def _starts(log: OfferLog) -> list[int]:
    ends: list[int] = np.cumsum(np.bincount(log.subject)).tolist()
    return ends[:-1]


def policies(log: OfferLog) -> Mapping[str, Floats]:
    """Policies to judge, [N, A] each: the best arm by a plain model with a holdout and without, and
    the arm that did best to everybody."""
    told = outcome_model(log)
    best = 1 + int(margins(log, told)[:, 1:].mean(0).argmax())
    return {
        "greedy": chances(log, told, Terms()),
        "greedy with holdout and exploration": chances(log, told, EXPLORED),
        f"always {log.arms[best]}": always(log, log.arms[best]),
    }


Found = dict[str, dict[str, list[float]]]


def coverage(
    log: OfferLog, truth: Floats, targets: Mapping[str, Floats], seeds: int, people: int
) -> dict[str, Found]:
    """For each policy of `targets` and each estimate, one value a seed: how far off it was (of the
    truth), whether its interval held the truth, and how wide that was (of the truth)."""
    worth = margins(log, truth)
    values = {name: float((one * worth).sum() / len(log)) for name, one in targets.items()}
    found: dict[str, Found] = {name: {} for name in targets}
    for seed in tqdm(range(seeds), desc="logs", unit="log", disable=None):
        drawn, rows = redrawn(log, truth, np.random.default_rng(seed), people)
        model = outcome_model(drawn, seed)
        for policy, target in targets.items():
            value = values[policy]
            for name, one in estimates(as_logged(drawn, target[rows], model)).items():
                row = found[policy].setdefault(name, {"off": [], "covered": [], "width": []})
                row["off"].append(one.value / value - 1.0)
                row["covered"].append(float(one.low <= value <= one.high))
                row["width"].append((one.high - one.low) / value)
    return found


def off_policy_table(folder: Path, seeds: int) -> Figures:
    """The table over `seeds` drawn logs. UserError where `folder` has no truth."""
    log, truth = read_offer_log(folder), read_true_probabilities(folder)
    if truth is None:
        raise UserError(f"{folder}: nobody knows its truth; off-policy needs a simulated folder")
    figures = Figures("benchmark off-policy")
    for policy, found in coverage(log, truth, policies(log), seeds, PEOPLE).items():
        for name, row in found.items():
            off = np.abs(row["off"])
            figures.add(
                f"{policy}/{name}",
                {
                    "off": [float(np.mean(row["off"]))],
                    "mean distance": [float(off.mean())],
                    "within 5 %": [float((off <= CLOSE).mean())],
                    "covered": [float(np.mean(row["covered"]))],
                    "width": [float(np.mean(row["width"]))],
                },
                peak_mib=peak_mib(),
            )
    figures.notes.append(
        f"{seeds} logs of {PEOPLE} people drawn from {len(log)} simulated checkouts; off, distance "
        "and width are shares of the true margin; covered: of the 95 % intervals"
    )
    return figures
