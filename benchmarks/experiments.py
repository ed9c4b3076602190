"""`python -m benchmarks.experiments`: whether experiments can be trusted.

A/A tests, in which the variants are the same, must find something as often as was agreed to, 5 % of
them, and with somebody who looks every day and stops at the first find no more often than that. A
true lift must be found as often as was promised when the sample size was computed. A million ids
must fall into the variants as they were asked to, and quickly.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from benchmarks.command import Missed, add_json, execute
from benchmarks.experiment_units import shoppers
from contract.errors import UserError
from contract.experiments import METRICS, Assigner, Experiment, Metric, personalised_against_generic
from contract.figures import Figures
from serving.experiments.moments import Moments
from serving.experiments.size import sample_size
from serving.experiments.statistics import COLUMNS, UNBALANCED_P, effect, sample_ratio_p

PROGRAM = "benchmarks.experiments"
ALPHA, POWER = 0.05, 0.8
_DAYS, _PER_DAY = 14, 200  # units of a variant
_BASELINE, _LIFT = 0.5, 0.05
_PEEKED: Metric = "revenue"
_BATCH = 10_000
MOST_MICROSECONDS = 5.0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Judge experiments.")
    parser.add_argument("--tests", type=int, default=2_000)
    parser.add_argument("--ids", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and False: there is nothing to be void. Raises UserError, and Missed where a
    promise is not kept."""
    if args.tests < 100 or args.ids < 1_000:
        raise UserError("at least 100 tests and 1,000 ids")
    figures, missed = Figures("experiments"), list[str]()
    _same(figures, args.tests, np.random.default_rng(args.seed), missed)
    _lifted(figures, args.tests, np.random.default_rng(args.seed + 1), missed)
    _assigned(figures, args.ids, missed)
    figures.notes.append(
        f"A/A: {args.tests:,} tests of {_DAYS} days with {_PER_DAY} units a day in each of two "
        "variants, with CUPED; `looked` looks every day at the always valid interval of "
        f"{_PEEKED} and stops at the first find, `looked, one-look interval` at the usual one"
    )
    if missed:
        raise Missed(figures, "; ".join(missed))
    return figures, False


def _same(figures: Figures, tests: int, rng: np.random.Generator, missed: list[str]) -> None:
    began = time.perf_counter()
    found = dict.fromkeys((*METRICS, "looked", "looked, one-look interval"), 0)
    planned = 2 * _DAYS * _PER_DAY
    for _ in range(tests):
        days = _cumulated(rng)
        for metric in METRICS:
            told = effect(metric, *days[-1], planned_units=planned)
            found[metric] += told is not None and told.p < ALPHA
        looks = [effect(_PEEKED, *day, planned_units=planned) for day in days]
        told_at = [one for one in looks if one is not None]
        found["looked"] += any(one.always_p < ALPHA for one in told_at)
        found["looked, one-look interval"] += any(one.p < ALPHA for one in told_at)
    seconds = time.perf_counter() - began
    # Two standard errors of the tests themselves, beside the point that is allowed.
    slack = 0.01 + 2 * (ALPHA * (1 - ALPHA) / tests) ** 0.5 * (tests < 2_000)
    for name, count in found.items():
        share = count / tests
        figures.add(f"A/A {name}", {"found": [share]}, seconds=seconds)
        if name in METRICS and abs(share - ALPHA) > slack:
            missed.append(f"{name} is found in {share:.1%} of A/A tests")
    if found["looked"] > (ALPHA + slack - 0.01) * tests:
        missed.append(f"looking every day finds something in {found['looked'] / tests:.1%}")


def _cumulated(rng: np.random.Generator) -> list[tuple[Moments, Moments]]:
    """Both variants as they are after each day."""
    rows = shoppers(rng, 2 * _DAYS * _PER_DAY).reshape(2, _DAYS, _PER_DAY, len(COLUMNS))
    sides = (Moments.none(COLUMNS), Moments.none(COLUMNS))
    days = []
    for day in range(_DAYS):
        sides = (
            sides[0] + Moments.of(COLUMNS, rows[0, day]),
            sides[1] + Moments.of(COLUMNS, rows[1, day]),
        )
        days.append(sides)
    return days


def _lifted(figures: Figures, tests: int, rng: np.random.Generator, missed: list[str]) -> None:
    began = time.perf_counter()
    variance = _BASELINE * (1 - _BASELINE)
    size = sample_size(_BASELINE, variance, _LIFT, power=POWER, alpha=ALPHA)
    for name, units in (("one look", size.units), ("always valid", size.always_units)):
        half, found = units // 2, 0
        for buyers in rng.binomial(half, [_BASELINE, _BASELINE * (1 + _LIFT)], (tests, 2)):
            sides = [_bought(half, int(one)) for one in buyers]
            told = effect("conversion", *sides, planned_units=units)
            assert told is not None
            found += (told.p if name == "one look" else told.always_p) < ALPHA
        share = found / tests
        figures.add(
            f"lift of {_LIFT:.0%}, {name}",
            {"found": [share], "units": [float(units)]},
            seconds=time.perf_counter() - began,
        )
        if abs(share - POWER) > 0.03 + 2 * (POWER * (1 - POWER) / tests) ** 0.5 * (tests < 2_000):
            missed.append(f"a true lift is found in {share:.1%}, {name}, not in {POWER:.0%}")


def _bought(units: int, buyers: int) -> Moments:
    sums, products = np.zeros(len(COLUMNS)), np.zeros((len(COLUMNS), len(COLUMNS)))
    sums[COLUMNS.index("buyers")] = buyers
    products[COLUMNS.index("buyers"), COLUMNS.index("buyers")] = buyers
    return Moments(COLUMNS, units, sums, products)


def _assigned(figures: Figures, ids: int, missed: list[str]) -> None:
    now = datetime.now(UTC)
    first = personalised_against_generic().model_copy(update={"status": "running"})
    uneven = Experiment.model_validate(
        {
            "key": "uneven",
            "title": "Three variants of unlike weights",
            "status": "running",
            "variants": [
                {"key": "a", "weight": 5},
                {"key": "b", "weight": 3},
                {"key": "c", "weight": 2},
            ],
        }
    )
    for one in (first, uneven):
        assigner, units = Assigner([one]), {variant.key: 0 for variant in one.variants}
        best = float("inf")
        for start in range(0, ids, _BATCH):
            names = [f"visitor-{n}" for n in range(start, min(start + _BATCH, ids))]
            began = time.process_time()
            told = [assigner.assign(name, now) for name in names]
            best = min(best, (time.process_time() - began) / len(names) * 1e6)
            for ((_, variant),) in told:
                units[variant] += 1
        p = sample_ratio_p(list(units.values()), one.fractions)
        figures.add(f"assignment {one.key}", {"sample-ratio p": [p], "microseconds": [best]})
        if p < UNBALANCED_P:
            missed.append(f"{one.key}: the variants have {units}")
        if best > MOST_MICROSECONDS:
            missed.append(f"an assignment takes {best:.1f} microseconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = build_parser().parse_args(arguments)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())
