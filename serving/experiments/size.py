"""How many units an experiment needs, and how many days, before anybody is let into it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from contract.errors import UserError
from serving.experiments.sequential import MIN_UNITS, critical
from serving.experiments.statistics import require_library


@dataclass(frozen=True)
class Size:
    """Units in all variants together. `always` is for inference that holds at every look, with
    `planned_units` set to it."""

    units: int
    always_units: int


def sample_size(
    mean: float,
    variance: float,
    lift: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    fractions: Sequence[float] = (0.5, 0.5),
) -> Size:
    """What it takes to find a relative `lift` of a metric whose `mean` and `variance` per unit are
    known, with a chance of `power`, in the variant with the fewest units against the control, which
    comes first in `fractions`. Several variants share `alpha`, as in reports. Raises UserError."""
    for name, found, wanted in (
        ("the baseline", mean, mean > 0),
        ("the variance", variance, variance > 0),
        ("the lift", lift, lift > -1 and lift != 0),
        ("the power", power, alpha < power < 1),
        ("alpha", alpha, 0 < alpha < 0.5),
    ):
        if not (wanted and math.isfinite(found)):
            raise UserError(f"{name} can not be {found:g}")
    if len(fractions) < 2 or not all(0 < one < math.inf for one in fractions):
        raise UserError("it takes two weights above 0")
    rare, alpha = min(fractions[1:]), alpha / (len(fractions) - 1)
    pair = _of_two(mean, variance, lift, power, alpha, rare / fractions[0])
    units = max(pair, 2 * MIN_UNITS) / (fractions[0] + rare) * sum(fractions)
    return Size(math.ceil(units), math.ceil(units * _price_of_looking(power, alpha)))


def _of_two(
    mean: float, variance: float, lift: float, power: float, alpha: float, ratio: float
) -> float:
    """Units of a control and of one variant, which has `ratio` times as many."""
    require_library()
    import tea_tasting as tt
    from tea_tasting.aggr import Aggregates

    test = tt.Mean(
        *("metric",),
        alpha=alpha,
        power=power,
        rel_effect_size=lift,
        ratio=ratio,
        use_t=False,
        equal_var=False,
    )
    known = Aggregates(count_=MIN_UNITS, mean_={"metric": mean}, var_={"metric": variance})
    try:
        (solved,) = test.solve_power_from_aggregates(known, "n_obs")
    except (ValueError, ArithmeticError):
        raise UserError(f"no number of people can be told for a lift of {lift:g}") from None
    return float(solved.n_obs)


def _price_of_looking(power: float, alpha: float) -> float:
    """How many times the units of one planned look."""
    normal = NormalDist()
    found = normal.inv_cdf(power)
    once = normal.inv_cdf(1 - alpha / 2)
    return ((critical(1.0, 1.0, alpha) + found) / (once + found)) ** 2


def days(units: int, per_day: float) -> int:
    """How long it takes until as many different people have come. Raises UserError."""
    if not (per_day > 0 and math.isfinite(per_day)):
        raise UserError(f"{per_day:g} people a day never come to an end")
    return math.ceil(units / per_day)
