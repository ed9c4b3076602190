"""Uplift metrics: every expected value is arithmetic that can be redone by hand."""

import numpy as np
import pytest

from training.data.offer_log import Floats, OfferLog
from training.evaluation import uplift_metrics as metrics

ONCE = np.ones((1, 4))


def log_of(arm: list[int], outcome: list[float], propensity: list[list[float]]) -> OfferLog:
    size, arms = len(arm), len(propensity[0])
    return OfferLog(
        arms=("none", "ten", "ship")[:arms],
        features=np.zeros((size, 1), np.float32),
        feature_names=("nothing",),
        subject=np.arange(size),
        decided_us=np.zeros(size, np.int64),
        arm=np.array(arm),
        propensity=np.array(propensity),
        outcome=np.array(outcome),
        spend=np.zeros(size),
        value=np.ones(size),
        margin=np.ones(size),
        reduction=np.zeros((size, arms)),
    )


def halves(arm: list[int], outcome: list[float]) -> OfferLog:
    return log_of(arm, outcome, [[0.5, 0.5]] * len(arm))


# Two people whom the offer wins (who got it bought, the other not), two whom it does not move.
FOUR = halves([1, 0, 1, 0], [1.0, 0.0, 1.0, 1.0])


def test_the_curve_of_four_people() -> None:
    share, gain = metrics.uplift_curve(FOUR.outcome, FOUR.arm == 1, ONCE)
    assert share[0] == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4, 1])
    # After one there is nobody to compare with; after two: 1 - 0; three: 1 - 0; four: 1 - 1/2.
    assert gain[0] == pytest.approx([0, 0, 2 / 4 * 1, 3 / 4 * 1, 1 * (1 - 1 / 2)])


def test_the_area_is_of_trapezoids() -> None:
    best = np.array([4.0, 3.0, 2.0, 1.0])
    auuc, _ = metrics.areas(FOUR, 1, best, ONCE)
    # heights 0, 0, 1/2, 3/4, 1/2, a quarter apart
    assert auuc[0] == pytest.approx(1 / 4 * ((0 + 0) / 2 + 1 / 4 + (1 / 2 + 3 / 4) / 2 + 5 / 8))


def test_qini_of_four_people() -> None:
    share, gain = metrics.qini_curve(FOUR.outcome, FOUR.arm == 1, ONCE)
    # (Y1 - Y0 * N1 / N0) / 2: then (1 - 0) / 2, (2 - 0) / 2, (2 - 1 * 2 / 2) / 2
    assert gain[0] == pytest.approx([0, 0, 1 / 2, 1, 1 / 2])
    over = metrics.area_over_chance(share, gain)
    assert over[0] == pytest.approx(1 / 4 * (0 + 1 / 4 + 3 / 4 + 3 / 4) - 1 / 2 * 1 / 2)


def test_the_wrong_order_is_worth_less() -> None:
    best = np.array([4.0, 3.0, 2.0, 1.0])
    assert metrics.areas(FOUR, 1, best, ONCE)[0] > metrics.areas(FOUR, 1, -best, ONCE)[0]
    assert metrics.areas(FOUR, 1, best, ONCE)[1] > metrics.areas(FOUR, 1, -best, ONCE)[1]


def test_unequal_shares_of_arms_do_no_harm() -> None:
    """A row that got what only one in four gets stands for four."""
    told = log_of([1, 1, 0, 0], [1.0, 0.0, 1.0, 0.0], [[0.75, 0.25], [0.5, 0.5]] * 2)
    _, gain = metrics.uplift_curve(
        told.outcome, told.arm == 1, 1.0 / told.propensity[np.arange(4), told.arm][None]
    )
    mean_one = (4 * 1 + 2 * 0) / (4 + 2)
    mean_zero = (1 / 0.75 * 1 + 2 * 0) / (1 / 0.75 + 2)
    assert gain[0, -1] == pytest.approx(mean_one - mean_zero)


def test_other_arms_do_not_count() -> None:
    told = log_of([1, 2, 0, 1, 0], [1.0, 1.0, 0.0, 1.0, 1.0], [[0.5, 0.3, 0.2]] * 5)
    same = log_of([1, 0, 1, 0], [1.0, 0.0, 1.0, 1.0], [[0.5, 0.3, 0.2]] * 4)
    got = metrics.areas(told, 1, np.array([5.0, 9.0, 4.0, 3.0, 2.0]), np.ones((1, 5)))
    expected = metrics.areas(same, 1, np.array([4.0, 3.0, 2.0, 1.0]), ONCE)
    assert (got[0][0], got[1][0]) == pytest.approx((expected[0][0], expected[1][0]))


def test_a_policy_is_worth_what_those_earned_who_got_its_arm() -> None:
    told = log_of(
        [1, 0, 1, 0], [1.0, 0.0, 0.0, 1.0], [[0.5, 0.5], [0.5, 0.5], [0.8, 0.2], [0.8, 0.2]]
    )
    chosen = np.array([1, 1, 1, 0])  # rows 0, 2 and 3 did get it
    earned = np.array([10.0, 99.0, 20.0, 30.0])
    value = metrics.policy_value(told, chosen, earned, ONCE)
    weights = (1 / 0.5, 1 / 0.2, 1 / 0.8)
    total = 10 * weights[0] + 20 * weights[1] + 30 * weights[2]
    assert value[0] == pytest.approx(total / sum(weights))


def test_weights_are_repetitions() -> None:
    twice = FOUR.take(np.array([0, 0, 1, 2, 3]))
    order = np.array([4.0, 4.0, 3.0, 2.0, 1.0])
    repeated = metrics.areas(twice, 1, order, np.ones((1, 5)))[0]
    weighed = metrics.areas(FOUR, 1, order[1:], np.array([[2.0, 1.0, 1.0, 1.0]]))[0]
    assert repeated[0] == pytest.approx(weighed[0], abs=0.06)  # one step of the curve more


def test_calibration_by_equal_parts() -> None:
    arm, outcome = [1, 0] * 4, [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    told, seen, error = metrics.calibration(
        halves(arm, outcome), 1, np.array([0.9] * 4 + [0.1] * 4), bins=2
    )
    assert told == pytest.approx([0.1, 0.9])
    assert seen == pytest.approx([1 / 2 - 1 / 2, 1 - 0])
    assert error == pytest.approx([np.sqrt(2 * (2 * 1 / 4 * 1 / 4)), 0])


def test_resamples_begin_with_the_rows_themselves() -> None:
    drawn = metrics.resamples(50, 20, seed=1)
    assert drawn.shape == (21, 50)
    assert (drawn[0] == 1).all()
    assert drawn.sum(1) == pytest.approx(50)


def test_the_interval_holds_the_middle() -> None:
    values: Floats = np.arange(101.0)
    assert metrics.interval(values) == pytest.approx((2.5, 97.5))
