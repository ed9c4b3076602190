"""Intervals that can be computed by hand, and that hold as often as they say."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.experiment_units import shoppers
from contract.errors import UserError
from contract.experiments import METRICS, Guardrail
from serving.experiments.moments import Moments
from serving.experiments.sequential import critical, p_value
from serving.experiments.size import days, sample_size
from serving.experiments.statistics import (
    COLUMNS,
    UNBALANCED_P,
    broken,
    corrected,
    effect,
    sample_ratio_p,
)


def variants(count: int, lift: float, seed: int = 1) -> tuple[Moments, Moments]:
    """The control and one with that lift."""
    rng = np.random.default_rng(seed)
    return (
        Moments.of(COLUMNS, shoppers(rng, count)),
        Moments.of(COLUMNS, shoppers(rng, count, lift=lift)),
    )


def test_moments_add_up_to_those_of_all_rows() -> None:
    rows = shoppers(np.random.default_rng(1), 300)
    whole = Moments.of(COLUMNS, rows)
    parts = (
        Moments.none(COLUMNS) + Moments.of(COLUMNS, rows[:100]) + Moments.of(COLUMNS, rows[100:])
    )
    assert parts.units == 300
    np.testing.assert_allclose(parts.products, whole.products)
    revenue, orders = (rows[:, COLUMNS.index(name)] for name in ("revenue", "orders"))
    assert whole.mean("revenue") == pytest.approx(revenue.mean())
    assert whole.covariance("revenue", "orders") == pytest.approx(np.cov(revenue, orders)[0, 1])


def test_conversion_as_by_hand() -> None:
    # 300 of 1,000 and 360 of 1,000 bought: .06 +- 1.96 * sqrt(.3 * .7 / 999 + .36 * .64 / 999).
    def bought(buyers: int) -> Moments:
        rows = np.zeros((1_000, len(COLUMNS)))
        rows[:buyers, COLUMNS.index("buyers")] = 1
        return Moments.of(COLUMNS, rows)

    found = effect("conversion", bought(300), bought(360), planned_units=2_000)
    assert found is not None
    half = 1.959964 * math.sqrt(0.3 * 0.7 / 999 + 0.36 * 0.64 / 999)
    assert found.difference == pytest.approx(0.06)
    assert found.difference_high == pytest.approx(0.06 + half)
    assert found.lift == pytest.approx(0.2)
    assert not found.cuped  # they have no past
    assert found.always_low < found.lift_low < found.lift_high < found.always_high


def test_order_value_knows_that_orders_vary_with_revenue() -> None:
    """The delta method, as by hand: revenue of the mean order times their number has no variance
    beyond that of the orders' values."""
    rng = np.random.default_rng(3)
    rows = np.zeros((2, 4_000, len(COLUMNS)))
    orders = rng.integers(1, 6, (2, 4_000))
    rows[:, :, COLUMNS.index("orders")] = orders
    rows[:, :, COLUMNS.index("revenue")] = orders * 20 + rng.normal(0, 1, (2, 4_000))
    found = effect("order_value", *(Moments.of(COLUMNS, one) for one in rows), planned_units=8_000)
    assert found is not None
    # Of one arm: noise of 1 per unit over 3 orders on average.
    half = 1.959964 * math.sqrt(2 * (1 / 3) ** 2 / 4_000)
    assert found.difference_high - found.difference == pytest.approx(half, rel=0.05)


def test_the_past_narrows_the_interval_and_moves_no_truth() -> None:
    control, treatment = variants(20_000, 0.05)
    with_past = effect("revenue", control, treatment, planned_units=40_000)
    without = effect("revenue", control, treatment, planned_units=40_000, cuped=False)
    assert with_past is not None
    assert without is not None
    assert with_past.variance_kept < 0.95
    assert without.variance_kept == 1
    narrow, wide = (one.lift_high - one.lift_low for one in (with_past, without))
    assert (narrow / wide) ** 2 == pytest.approx(with_past.variance_kept, rel=0.05)
    assert with_past.lift_low < 0.05 < with_past.lift_high


def test_every_metric_is_measured_and_nothing_of_too_few() -> None:
    control, treatment = variants(5_000, 0.2)
    for metric in METRICS:
        found = effect(metric, control, treatment, planned_units=10_000)
        assert found is not None
        assert found.always_low < found.lift < found.always_high
    assert effect("conversion", *variants(99, 0.2), planned_units=10_000) is None
    nobody = Moments.of(COLUMNS, np.zeros((500, len(COLUMNS))))
    assert all(effect(one, nobody, nobody, planned_units=1_000) is None for one in METRICS)


def test_of_many_looks_none_is_mistaken_more_often_than_said() -> None:
    """600 random walks of 2,000 steps without any drift, looked at after every step from 100 on.
    5 % is 30; the boundary is conservative, so at most 30 + 2 * sqrt(30 * .95)."""
    rng = np.random.default_rng(4)
    steps = np.arange(1, 2_001)
    walks = rng.normal(size=(600, 2_000)).cumsum(axis=1) / np.sqrt(steps)
    bounds = np.array([critical(int(n), 2_000, 0.05) for n in steps])
    mistaken = (np.abs(walks) > bounds)[:, 99:].any(axis=1).sum()
    once = (np.abs(walks) > 1.96)[:, 99:].any(axis=1).sum()
    assert mistaken <= 41
    assert once > 100  # what looking at the usual interval would have cost


def test_always_valid_p_and_interval_say_the_same() -> None:
    for units in (150, 2_000, 90_000):
        bound = critical(units, 4_000, 0.05)
        assert p_value(bound, units, 4_000) == pytest.approx(0.05)
        assert p_value(-bound * 1.1, units, 4_000) < 0.05
        assert p_value(0, units, 4_000) == 1


def test_a_ratio_that_was_not_asked_for_is_found() -> None:
    assert sample_ratio_p([5_030, 4_970], [0.5, 0.5]) > 0.5
    assert sample_ratio_p([5_300, 4_700], [0.5, 0.5]) < UNBALANCED_P
    assert sample_ratio_p([0, 0], [0.5, 0.5]) == 1
    # (10 ** 2 / 100) * 2 with one degree of freedom.
    assert sample_ratio_p([110, 90], [0.5, 0.5]) == pytest.approx(2 * norm.sf(math.sqrt(2)))


def test_many_cuts_are_corrected() -> None:
    # Of m p values the k-th smallest times m / k, never falling.
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert corrected([]) == []


def test_a_guardrail_breaks_on_certain_loss_only() -> None:
    guardrail = Guardrail(metric="abandonment", max_loss=0.02)
    worse = effect("abandonment", *variants(20_000, -0.3), planned_units=40_000)
    better = effect("abandonment", *variants(20_000, 0.3), planned_units=40_000)
    assert broken(guardrail, worse)
    assert not broken(guardrail, better)
    assert not broken(guardrail, None)
    assert not broken(Guardrail(metric="abandonment", max_loss=0.9), worse)


def test_sample_sizes_as_by_hand() -> None:
    # 2 * (1.96 + .8416)^2 * variance / effect^2 in each of two variants.
    mean, variance = 0.1, 0.09
    by_hand = 4 * (1.959964 + 0.841621) ** 2 * variance / 0.005**2
    found = sample_size(mean, variance, 0.05)
    assert found.units == pytest.approx(by_hand, rel=0.001)
    assert 1.5 < found.always_units / found.units < 2.5
    # A small variant needs more in all: 1 / (4 * .1 * .9) times.
    uneven = sample_size(mean, variance, 0.05, fractions=(0.9, 0.1))
    assert uneven.units == pytest.approx(by_hand / 0.36, rel=0.001)
    three = sample_size(mean, variance, 0.05, fractions=(1, 1, 1))
    assert three.units == pytest.approx(1.5 * by_hand, rel=0.001)
    assert days(10_001, 1_000) == 11


@pytest.mark.parametrize(
    ("mean", "lift", "fractions"),
    [(0, 0.05, (1, 1)), (0.1, 0, (1, 1)), (0.1, float("nan"), (1, 1)), (0.1, 0.05, (1, 0))],
)
def test_sizes_of_nothing_are_refused(
    mean: float, lift: float, fractions: tuple[float, ...]
) -> None:
    with pytest.raises(UserError):
        sample_size(mean, 0.09, lift, fractions=fractions)
    with pytest.raises(UserError):
        days(100, 0)
