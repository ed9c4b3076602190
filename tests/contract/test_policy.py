"""The policy: the arm with the most left after its price, exact chances, a floor and a budget that
hold, and a price that spends what there is."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contract.clock import DAY_US
from contract.offers import FrequencyCap
from contract.policy import (
    PLANNED_FOR,
    PRICE_SPREAD,
    Budget,
    choose,
    decisions_to_come,
    permitted,
    shadow_price,
)
from tests.contract.plain_policy import plain_choice

GAIN = np.array([0.0, 30.0, 50.0])
COST = np.array([0.0, 10.0, 40.0])
ALL = np.ones(3, bool)


@pytest.mark.parametrize(
    ("price", "arm"),
    [
        (0.0, 2),  # 50 > 30
        (0.5, 2),  # 50 - 20 = 30 > 30 - 5 = 25
        (1.0, 1),  # 50 - 40 = 10 < 30 - 10 = 20
        (3.1, 0),  # 30 - 31 < 0
    ],
)
def test_the_arm_with_the_most_left_after_its_price(price: float, arm: int) -> None:
    assert choose(GAIN, COST, ALL, price, draw=0.5).arm == arm


def test_no_offer_where_nothing_is_gained() -> None:
    assert choose(np.array([0.0, -1.0, -2.0]), COST, ALL, 0.0, draw=0.5).arm == 0


def test_chances_are_exact() -> None:
    choice = choose(GAIN, COST, ALL, 0.0, draw=0.5, holdout_share=0.05, explore_share=0.3)
    assert choice.propensities == pytest.approx((0.05 + 0.1, 0.1, 0.1 + 0.65))
    assert choice.propensity == pytest.approx(0.75)


def test_what_is_drawn_has_the_chances_that_are_told() -> None:
    draws = (np.arange(20_000) + 0.5) / 20_000
    shares = {"holdout_share": 0.05, "explore_share": 0.12}
    chosen = [choose(GAIN, COST, ALL, 0.0, draw, **shares) for draw in draws]
    seen = np.bincount([choice.arm for choice in chosen], minlength=3) / len(draws)
    assert seen == pytest.approx(chosen[0].propensities, abs=1e-3)
    assert sum(choice.by == "holdout" for choice in chosen) == 0.05 * len(draws)


def test_near_a_border_both_arms_have_their_chance() -> None:
    """Arms 2 and 1 are worth the same at 2 / 3: half of the prices around it are below."""
    draws = (np.arange(20_000) + 0.5) / 20_000
    shares = {"holdout_share": 0.05, "explore_share": 0.12}
    chosen = [choose(GAIN, COST, ALL, 2 / 3, draw, **shares) for draw in draws]
    assert chosen[0].propensities == pytest.approx((0.05 + 0.04, 0.04 + 0.415, 0.04 + 0.415))
    seen = np.bincount([choice.arm for choice in chosen], minlength=3) / len(draws)
    assert seen == pytest.approx(chosen[0].propensities, abs=1e-3)
    # A hundredth more, and three quarters are above; three hundredths, and all are.
    above = choose(GAIN, COST, ALL, 2 / 3 * 1.01, 0.5, holdout_share=0).propensities
    assert above == pytest.approx((0, 0.75, 0.25), abs=0.01)
    far = choose(GAIN, COST, ALL, 2 / 3 * 1.03, 0.5, holdout_share=0).propensities
    assert far == pytest.approx((0, 1, 0))


@given(
    gain=arrays(np.float64, 5, elements=st.floats(-100, 100)),
    cost=arrays(np.float64, 5, elements=st.floats(0, 50)),
    price=st.floats(0.01, 5),
)
def test_the_chances_are_those_of_prices_drawn_evenly(
    gain: np.ndarray, cost: np.ndarray, price: float
) -> None:
    gain[0] = cost[0] = 0
    choice = choose(gain, cost, np.ones(5, bool), price, 0.5, holdout_share=0)
    told = np.array(choice.propensities)
    prices = price * (1 + PRICE_SPREAD * np.linspace(-1, 1, 2_001))
    score = gain - prices[:, None] * cost
    best = score.max(1, keepdims=True)
    worth = (told * score).sum(1)
    # At the price itself nothing is lost but what the spread moves, and what is not the best at any
    # of the prices has no chance.
    assert worth[1_000] >= best[1_000, 0] - 2 * PRICE_SPREAD * price * cost.max() - 1e-9
    never = (score < best - 1e-6).all(0)
    assert told[never] == pytest.approx(0, abs=2e-3)
    ties = (score >= best - 1e-6).sum(1)
    if (ties == 1).mean() > 0.99:
        seen = np.bincount(score.argmax(1), minlength=5) / len(prices)
        assert told == pytest.approx(seen, abs=0.02)


@given(
    gain=arrays(np.float64, 4, elements=st.floats(-1e4, 1e4)),
    cost=arrays(np.float64, 4, elements=st.floats(0, 1e4)),
    allowed=arrays(np.bool_, 4),
    price=st.floats(0, 10),
    draw=st.floats(0, 1, exclude_max=True),
    explore=st.floats(0, 0.5),
)
def test_only_allowed_arms_ever(
    gain: np.ndarray,
    cost: np.ndarray,
    allowed: np.ndarray,
    price: float,
    draw: float,
    explore: float,
) -> None:
    choice = choose(gain, cost, allowed, price, draw, explore_share=explore)
    assert choice.arm == 0 or allowed[choice.arm]
    assert sum(choice.propensities) == pytest.approx(1)
    assert choice.propensity > 0
    assert all(
        p == 0 for p, may in zip(choice.propensities[1:], allowed[1:], strict=True) if not may
    )


# Few values, so that many arms are alike.
@given(
    st.lists(
        st.tuples(
            st.sampled_from((-9.0, 0.0, 1.0, 7.0, 7.5, 40.0)) | st.floats(-50, 50),
            st.sampled_from((0.0, 1e-10, 5.0, 5.1, 30.0)) | st.floats(0, 50),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from((0.0, 0.5, 1.0)) | st.floats(0, 5),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(((0.0, 0.0), (0.05, 0.0), (0.05, 0.2), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5))),
)
def test_the_choice_is_what_numpy_says(
    arms: list[tuple[float, float, bool]],
    price: float,
    draw: float,
    shares: tuple[float, float],
) -> None:
    gain, cost, allowed = (np.array(column) for column in zip(*arms, strict=True))
    holdout, explore = shares
    said = partial(choose, holdout_share=holdout, explore_share=explore)
    wanted = partial(plain_choice, holdout_share=holdout, explore_share=explore)
    found, expected = (one(gain, cost, allowed, price, draw) for one in (said, wanted))
    assert (found.arm, found.by) == (expected.arm, expected.by)
    assert found.propensities == pytest.approx(expected.propensities, rel=1e-12, abs=1e-15)


def test_the_floor_and_the_budget_decide_what_is_permitted() -> None:
    reductions = np.array([0.0, 100.0, 300.0, 301.0])
    # 1,000 of goods with a margin of 400: 100 must be left, so at most 300 may go
    assert permitted(reductions, 1_000, 400, 1e9, 0.1).tolist() == [True, True, True, False]
    assert permitted(reductions, 1_000, 400, 299, 0.1).tolist() == [True, True, False, False]
    assert permitted(reductions, 1_000, 0, 1e9, 0.1).tolist() == [True, False, False, False]
    assert permitted(reductions, 1_000, 400, 1e9, None).tolist() == [True] * 4


def test_reservations_count_and_a_part_is_kept_for_the_last_hour() -> None:
    budget = Budget(10_000, spent=6_000, reserved=1_000)
    assert budget.left == 3_000
    assert budget.usable(last_hour=True) == 3_000
    assert budget.usable(last_hour=False) == 3_000 - 100
    assert Budget(10_000, spent=9_900).usable(last_hour=False) == 0


def test_caps_count_what_was_shown_within_their_days() -> None:
    cap, now = FrequencyCap(times=2, days=7), 100 * DAY_US
    assert cap.holds([], now)
    assert not cap.holds([now - 1, now - 6 * DAY_US], now)
    assert cap.holds([now - 1, now - 7 * DAY_US], now)


def test_what_is_to_come_follows_the_day() -> None:
    assert decisions_to_come(1_000, 0.0, 0) == pytest.approx(PLANNED_FOR * 1_000)
    assert decisions_to_come(1_000, 0.5, 500) == pytest.approx(PLANNED_FOR * 500)
    # twice as many as usual: (1000 + 100) / (500 + 100) of the usual rest
    assert decisions_to_come(1_000, 0.5, 1_000) == pytest.approx(PLANNED_FOR * 500 * 1_100 / 600)
    assert decisions_to_come(1_000, 1.0, 1_000) == 0


def test_a_budget_that_does_not_bind_has_no_price() -> None:
    gain, cost = np.tile(GAIN, (10, 1)), np.tile(COST, (10, 1))
    allowed = np.ones_like(gain, bool)
    assert shadow_price(gain, cost, allowed, to_come=10, left=400) == 0.0


def test_the_price_makes_the_rest_of_the_day_fit() -> None:
    """Arm 2 costs 400 for ten; with 399 the ten must take arm 1, from price 20 / 30 on."""
    gain, cost = np.tile(GAIN, (10, 1)), np.tile(COST, (10, 1))
    allowed = np.ones_like(gain, bool)
    plain = partial(shadow_price, gain, cost, allowed, 10, spread=0.0)
    assert plain(left=399) == pytest.approx(2 / 3)
    assert plain(left=99) == pytest.approx(3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_budget_for_some_of_many_alike_goes_to_as_many(share: float) -> None:
    """Arm 1 is worth its price up to 3: without a draw everybody or nobody would get it."""
    gain, cost = np.tile(GAIN[:2], (200, 1)), np.tile(COST[:2], (200, 1))
    allowed = np.ones_like(gain, bool)
    price = shadow_price(gain, cost, allowed, to_come=200, left=share * 2_000)
    assert price == pytest.approx(3, rel=PRICE_SPREAD)
    chances = choose(gain[0], cost[0], allowed[0], price, 0.5, holdout_share=0).propensities
    assert chances == pytest.approx((1 - share, share), abs=0.01)


@given(seed=st.integers(0, 1_000), share=st.floats(0.05, 1.5))
def test_the_price_never_plans_to_overspend(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    gain, cost = rng.normal(0, 50, (200, 4)), rng.exponential(30, (200, 4))
    gain[:, 0], cost[:, 0] = 0, 0
    allowed = rng.random((200, 4)) < 0.8
    allowed[:, 0] = True
    free = np.where(allowed, gain, -np.inf).argmax(1)
    left = share * cost[np.arange(200), free].sum()
    price = shadow_price(gain, cost, allowed, to_come=200, left=left)
    draws = 0.6180339887498949 * (np.arange(200) + 0.5) % 1.0
    rows, price = zip(gain, cost, allowed, draws, strict=True), price * (1 + 1e-9)
    chosen = [choose(g, c, a, price, draw, holdout_share=0).arm for g, c, a, draw in rows]
    assert cost[np.arange(200), chosen].sum() <= left + 1e-6
