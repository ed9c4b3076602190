"""What a variant does to a metric, from sums per variant: difference and relative lift, with
intervals for one planned look and intervals that hold however often one looks.

Means, ratios by the delta method, CUPED and the intervals for one look are those of the kept
library tea-tasting. It comes with an extra and is imported where it is used: a gateway's image has
neither it nor SciPy, and to import it takes seconds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from contract.errors import UserError
from contract.experiments import LESS_IS_BETTER, Guardrail, Metric
from serving.experiments.moments import Moments
from serving.experiments.sequential import MIN_UNITS, critical, none_p, p_value, shares_p

if TYPE_CHECKING:
    import tea_tasting as tt
    from tea_tasting.aggr import Aggregates

COLUMNS: Final = (
    *("buyers", "orders", "valued", "revenue", "margin"),
    *("checkouts", "abandoned", "shown", "taken"),
    *("buyers_before", "orders_before", "valued_before", "revenue_before"),
)
UNBALANCED_P = 0.001  # below it, who is in which variant is not what was asked for


def require_library() -> None:
    """Raises UserError where what the statistics need is not installed."""
    try:
        import tea_tasting  # noqa: F401
    except ImportError:
        raise UserError("experiments need the extra: pip install 'tillwise[experiments]'") from None


@dataclass(frozen=True)
class Measure:
    """How a metric comes of the columns: a mean per unit or, with `denom`, a ratio of two means,
    whose parts of one unit depend on each other. `before` names what the same unit did before it
    was exposed, for CUPED."""

    numer: str
    denom: str | None = None
    before: str | None = None
    denom_before: str | None = None


MEASURES: Final[Mapping[Metric, Measure]] = {
    "conversion": Measure("buyers", before="buyers_before"),
    "order_value": Measure("revenue", "valued", "revenue_before", "valued_before"),
    "revenue": Measure("revenue", before="revenue_before"),
    "margin": Measure("margin", before="revenue_before"),
    "abandonment": Measure("abandoned", "checkouts"),
    "take_rate": Measure("taken", "shown"),
}


@dataclass(frozen=True)
class Effect:
    """A variant against the control. `lift` is relative to the control, `error` the standard error
    of the difference. `low`, `high` and `p` are for one planned look; those that begin with
    `always` hold at every look. `cuped` says whether the past of the units was used, and
    `variance_kept` how much of the variance was left by it."""

    metric: Metric
    control: float
    treatment: float
    difference: float
    difference_low: float
    difference_high: float
    error: float
    lift: float
    lift_low: float
    lift_high: float
    p: float
    always_low: float
    always_high: float
    always_p: float
    cuped: bool
    variance_kept: float


def effect(
    metric: Metric,
    control: Moments,
    treatment: Moments,
    *,
    planned_units: float,
    alpha: float = 0.05,
    cuped: bool = True,
    comparisons: int = 1,
) -> Effect | None:
    """The effect on `metric`; None where there are too few units, or nothing to compare. Of so many
    `comparisons`, as of variants with one control, all intervals hold together with the chance
    1 - alpha, and so does p below alpha (Bonferroni)."""
    measure, alpha = MEASURES[metric], alpha / comparisons
    if not _measurable(measure, control, treatment):
        return None
    plain = _analysed(measure, control, treatment, alpha, cuped=False)
    used = cuped and _has_past(measure, control, treatment)
    found = _analysed(measure, control, treatment, alpha, cuped=True) if used else plain
    if found.rel_effect_size <= -1:  # the past outweighs all there is
        return None
    z = NormalDist().inv_cdf(1 - alpha / 2)
    # The library gives intervals, on the scale of the logarithm for the lift.
    error = (found.effect_size_ci_upper - found.effect_size_ci_lower) / (2 * z)
    plain_error = (plain.effect_size_ci_upper - plain.effect_size_ci_lower) / (2 * z)
    middle = math.log1p(found.rel_effect_size)
    log_error = (
        math.log1p(found.rel_effect_size_ci_upper) - math.log1p(found.rel_effect_size_ci_lower)
    ) / (2 * z)
    units = control.units + treatment.units
    wide = critical(units, planned_units, alpha) * log_error
    return Effect(
        metric=metric,
        control=found.control,
        treatment=found.treatment,
        difference=found.effect_size,
        difference_low=found.effect_size_ci_lower,
        difference_high=found.effect_size_ci_upper,
        error=error,
        lift=found.rel_effect_size,
        lift_low=found.rel_effect_size_ci_lower,
        lift_high=found.rel_effect_size_ci_upper,
        p=min(1.0, found.pvalue * comparisons),
        always_low=math.expm1(middle - wide),
        always_high=math.expm1(middle + wide),
        always_p=min(1.0, p_value(middle / log_error, units, planned_units, alpha) * comparisons),
        cuped=used,
        variance_kept=(error / plain_error) ** 2,
    )


def _analysed(
    measure: Measure, control: Moments, treatment: Moments, alpha: float, *, cuped: bool
) -> "tt.metrics.MeanResult":
    import tea_tasting as tt

    test = tt.RatioOfMeans(
        measure.numer,
        measure.denom,
        measure.before if cuped else None,
        measure.denom_before if cuped else None,
        confidence_level=1 - alpha,
        equal_var=False,
        use_t=False,
    )
    return test.analyze_aggregates(_aggregates(control), _aggregates(treatment))


def _aggregates(moments: Moments) -> "Aggregates":
    from tea_tasting.aggr import Aggregates

    names = moments.columns
    return Aggregates(
        count_=moments.units,
        mean_={name: moments.mean(name) for name in names},
        var_={name: moments.covariance(name, name) for name in names},
        cov_={
            (min(one, other), max(one, other)): moments.covariance(one, other)
            for place, one in enumerate(names)
            for other in names[place + 1 :]
        },
    )


def _measurable(measure: Measure, *variants: Moments) -> bool:
    """Whether both variants have something that varies, and a lift is a positive ratio."""
    for one in variants:
        if not _enough(measure, one) or one.total(measure.numer) <= 0:
            return False
    parts = [measure.numer] if measure.denom is None else [measure.numer, measure.denom]
    return all(any(one.covariance(part, part) > 0 for part in parts) for one in variants)


def _enough(measure: Measure, one: Moments) -> bool:
    """Whether as many units as a mean needs have something to divide by."""
    return one.units >= MIN_UNITS and (
        measure.denom is None or _having(one, measure.denom) >= MIN_UNITS
    )


def _having(one: Moments, column: str) -> float:
    """How many units have something in a column, at least (Cauchy and Schwarz): as many as would,
    if all had the same."""
    place = one.columns.index(column)
    squares = float(one.products[place, place])
    return one.total(column) ** 2 / squares if squares else 0.0


def _has_past(measure: Measure, *variants: Moments) -> bool:
    if measure.before is None:
        return False
    names = [measure.before, *([measure.denom_before] if measure.denom_before else [])]
    return all(one.covariance(name, name) > 0 for one in variants for name in names)


def sample_ratio_p(units: Sequence[int], fractions: Sequence[float]) -> float:
    """The p value, valid at every look, of as many `units` in the variants as there are, where
    `fractions` were asked for; 1 where there is nobody. Below UNBALANCED_P no other figure can be
    trusted."""
    return shares_p(units, fractions)


def corrected(p_values: Sequence[float]) -> list[float]:
    """p values of many cuts at once, so that of those below a level at most that share is chance
    (Benjamini and Hochberg, 1995)."""
    from scipy.stats import false_discovery_control

    return [float(one) for one in false_discovery_control(p_values)] if p_values else []


def broken(
    guardrail: Guardrail,
    control: Moments,
    treatment: Moments,
    found: Effect | None,
    *,
    planned_units: float,
    alpha: float = 0.05,
) -> bool | None:
    """Whether a variant has certainly lost more than it may, at whatever look this is; None where
    that can not be said. `found` is the effect, where there is one. A loss is a difference, which
    there is where a lift is not: of who sells nothing, or at a loss."""
    measure, worse = MEASURES[guardrail.metric], guardrail.metric in LESS_IS_BETTER
    if not _enough(measure, control) or not _enough(measure, treatment):
        return None
    empty, full = (control, treatment) if worse else (treatment, control)
    if full.total(measure.numer) <= 0:
        return None
    # What the variant may have of what the control has.
    allowed = 1 + guardrail.max_loss if worse else 1 - guardrail.max_loss
    if not _having(empty, measure.numer):
        sizes = _size(measure, control), _size(measure, treatment) * allowed
        events = _having(full, measure.numer)
        return none_p(events, *(reversed(sizes) if worse else sizes)) < alpha
    if found is not None:
        level, difference, error = found.control, found.difference, found.error
    else:
        level, difference, error = _difference(measure, control, treatment)
    # The control's own error counts as often as what is allowed of it.
    wide = critical(control.units + treatment.units, planned_units, alpha) * error * max(allowed, 1)
    loss = difference if worse else -difference
    return error > 0 and loss - wide > guardrail.max_loss * level


def _size(measure: Measure, one: Moments) -> float:
    return one.units if measure.denom is None else one.total(measure.denom)


def _difference(
    measure: Measure, control: Moments, treatment: Moments
) -> tuple[float, float, float]:
    """The control's level, how far the variant's is from it, and the standard error of that (delta
    method)."""
    levels, squares = [], 0.0
    for one in (control, treatment):
        size = _size(measure, one)
        level = one.total(measure.numer) / size
        variance = one.covariance(measure.numer, measure.numer)
        if measure.denom is not None:
            variance -= 2 * level * one.covariance(measure.numer, measure.denom)
            variance += level**2 * one.covariance(measure.denom, measure.denom)
        squares += max(variance, 0.0) * one.units / size**2
        levels.append(level)
    return levels[0], levels[1] - levels[0], math.sqrt(squares)
