"""Intervals that can be computed by hand, and that hold as often as they say."""

import math

import numpy as np
import pytest

from benchmarks.experiment_units import shoppers
from contract.errors import UserError
from contract.experiments import METRICS, Guardrail
from serving.experiments.moments import Moments
from serving.experiments.sequential import critical, none_p, p_value, shares_p
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
    rows[:, :, COLUMNS.index("valued")] = orders
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
    # Of 3 and 1: (1/2)^4 against 3! 1! / 5!, and of 4 and 0: (1/2)^4 against 4! 0! / 5!.
    assert sample_ratio_p([3, 1], [0.5, 0.5]) == 1
    assert shares_p([0, 9], [0.0, 1.0]) == 1
    assert shares_p([1, 9], [0.0, 1.0]) == 0
    assert shares_p([4, 0], [0.5, 0.5]) == pytest.approx((1 / 16) / (24 / 120))


def test_shares_that_are_looked_at_after_everybody_seldom_seem_wrong() -> None:
    """200 tests of 1,000 people at a level of .05: at most 10 + 2 * sqrt(10 * .95)."""
    rng = np.random.default_rng(5)
    sides = (rng.random((200, 1_000)) < 0.3).cumsum(axis=1)
    mistaken = sum(
        any(
            shares_p([int(n - left), int(left)], [0.7, 0.3]) < 0.05 for n, left in enumerate(row, 1)
        )
        for row in sides
    )
    assert mistaken <= 16


def test_many_cuts_are_corrected() -> None:
    # Of m p values the k-th smallest times m / k, never falling.
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert corrected([]) == []


def test_a_guardrail_breaks_on_certain_loss_only() -> None:
    guardrail = Guardrail(metric="abandonment", max_loss=0.02)
    worse, better = variants(20_000, -0.3), variants(20_000, 0.3)
    assert lost(guardrail, *worse)
    assert lost(guardrail, *better) is False
    assert not lost(Guardrail(metric="abandonment", max_loss=0.9), *worse)
    few = variants(99, -0.9)
    assert lost(guardrail, *few) is None


def lost(guardrail: Guardrail, control: Moments, treatment: Moments) -> bool | None:
    found = effect(guardrail.metric, control, treatment, planned_units=10_000)
    return broken(guardrail, control, treatment, found, planned_units=10_000)


def with_columns(count: int, **values: float) -> Moments:
    """People of whom every other one has all of `values`, and the rest nothing."""
    rows = np.zeros((count, len(COLUMNS)))
    for name, value in values.items():
        rows[::2, COLUMNS.index(name)] = value
    return Moments.of(COLUMNS, rows)


def test_who_sells_nothing_or_at_a_loss_breaks_guardrails() -> None:
    control, nothing = variants(5_000, 0)[0], variants(5_000, -1)[1]
    assert nothing.total("orders") == 0
    for metric in ("conversion", "revenue", "margin", "abandonment"):
        assert lost(Guardrail(metric=metric, max_loss=0.02), control, nothing), metric
        assert not lost(Guardrail(metric=metric, max_loss=0.02), nothing, control), metric
    assert lost(Guardrail(metric="order_value"), control, nothing) is None
    gain, loss = with_columns(5_000, margin=30), with_columns(5_000, margin=-30)
    assert lost(Guardrail(metric="margin", max_loss=0.5), gain, loss)
    assert lost(Guardrail(metric="margin"), loss, gain) is None  # of less than nothing no part
    assert lost(Guardrail(metric="margin"), nothing, nothing) is None


def test_nothing_at_all_is_judged_by_how_many_there_would_be() -> None:
    # All 4 of 4 on one of two like sides: 1/16; all 5: 1/32.
    assert none_p(4, 100, 100) == pytest.approx(1 / 16)
    nobody = Moments.of(COLUMNS, np.zeros((200, len(COLUMNS))))
    rows = np.zeros((200, len(COLUMNS)))
    told = []
    for row in range(6):
        rows[row, COLUMNS.index("buyers")] = 1
        told.append(lost(Guardrail(metric="conversion"), Moments.of(COLUMNS, rows), nobody))
    assert told == [False] * 4 + [True] * 2


def test_of_one_order_no_average_is_told() -> None:
    control = variants(5_000, 0)[0]
    rows = np.zeros((5_000, len(COLUMNS)))
    rows[0, COLUMNS.index("valued")] = rows[0, COLUMNS.index("revenue")] = 1
    one = Moments.of(COLUMNS, rows)
    assert effect("order_value", control, one, planned_units=10_000) is None
    assert lost(Guardrail(metric="order_value"), control, one) is None


def test_guardrails_seldom_break_by_chance_however_often_one_looks() -> None:
    """300 tests of rare orders (2 %) without a difference, looked at every 50 people from 100 on;
    of 300, 5 % is 15, and at most 15 + 2 * sqrt(15 * .95)."""
    rng = np.random.default_rng(6)
    guardrail, mistaken = Guardrail(metric="conversion"), 0
    for _ in range(300):
        bought = (rng.random((2, 2_000)) < 0.02).cumsum(axis=1)
        mistaken += any(
            broken(
                guardrail,
                _buyers(n, int(bought[0, n - 1])),
                _buyers(n, int(bought[1, n - 1])),
                None,
                planned_units=4_000,
            )
            for n in range(100, 2_001, 50)
        )
    assert mistaken <= 22


def _buyers(units: int, count: int) -> Moments:
    sums, products = np.zeros(len(COLUMNS)), np.zeros((len(COLUMNS), len(COLUMNS)))
    place = COLUMNS.index("buyers")
    sums[place] = products[place, place] = count
    return Moments(COLUMNS, units, sums, products)


def test_of_many_variants_that_are_the_same_none_is_found_more_often_than_of_one() -> None:
    """120 tests of nine variants beside a control: 5 % is 6, at most 6 + 2 * sqrt(6 * .95);
    uncorrected it would be a quarter."""
    rng = np.random.default_rng(7)
    found, alone = 0, 0
    for _ in range(120):
        control, *others = (_buyers(2_000, int(one)) for one in rng.binomial(2_000, 0.3, 10))
        told = [
            effect("conversion", control, one, planned_units=4_000, comparisons=9) for one in others
        ]
        p_values = [one.p for one in told if one is not None]
        assert len(p_values) == 9
        found += min(p_values) < 0.05
        alone += min(p_values) / 9 < 0.05
        for one in told:
            assert one is not None
            assert (one.always_low > 0 or one.always_high < 0) == (one.always_p < 0.05)
    assert found <= 10
    assert alone > 20


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
    # Of three variants two are compared, each at half of alpha: 2.2414 deviations.
    three = sample_size(mean, variance, 0.05, fractions=(1, 1, 1))
    by_hand = 6 * (2.241403 + 0.841621) ** 2 * variance / 0.005**2
    assert three.units == pytest.approx(by_hand, rel=0.001)
    assert days(10_001, 1_000) == 11


def test_a_size_for_many_variants_keeps_its_promise() -> None:
    """Of five variants that each lift a conversion of 50 % by 5 %, each is found in 80 % of tests,
    as reports judge them: within three standard errors of 1.5 % (five share a control)."""
    size, rng, found = sample_size(0.5, 0.25, 0.05, fractions=(1,) * 6), np.random.default_rng(8), 0
    each = size.units // 6
    for buyers in rng.binomial(each, [0.5, *[0.525] * 5], (400, 6)):
        control, *others = (_buyers(each, int(one)) for one in buyers)
        told = [
            effect("conversion", control, one, planned_units=size.units, comparisons=5)
            for one in others
        ]
        found += sum(one is not None and one.p < 0.05 for one in told)
    assert found / 2_000 == pytest.approx(0.8, abs=0.045)


@pytest.mark.parametrize(
    ("mean", "lift", "fractions"),
    [
        (0, 0.05, (1, 1)),
        (0.1, 0, (1, 1)),
        (0.1, float("nan"), (1, 1)),
        (0.1, 0.05, (1, 0)),
        (0.1, 1e300, (1, 1)),
    ],
)
def test_sizes_of_nothing_are_refused(
    mean: float, lift: float, fractions: tuple[float, ...]
) -> None:
    with pytest.raises(UserError):
        sample_size(mean, 0.09, lift, fractions=fractions)
    with pytest.raises(UserError):
        days(100, 0)
