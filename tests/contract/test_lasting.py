"""Counts that last, and how carts follow the price, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import features
from contract.events import EVENT_TYPE, Event, key_of
from contract.features import RECENT_INTERACTIONS, TRACES, UNKNOWN
from contract.lasting import LASTING, lasting
from contract.orders import ORDERED
from contract.price_levels import NOTHING, PriceLevels
from tests.contract.examples import event, folded, us
from tests.contract.plain_lasting import plain_lasting

PRICES = {"milk": 100, "tea": 200, "soap": 400}
LEVELS = PriceLevels.of(
    np.array([key_of(one) for one in PRICES], np.uint64),
    np.array([*PRICES.values()]),
    [["SHOP", "ALL"]] * len(PRICES),
)
HALF = math.log(2)  # milk is at -HALF, tea at 0, soap at +HALF
FIRST, SECOND, NOW = ({"session_id": name} for name in ("first", "second", "now"))
LOG = (
    event(1, "view_item", day=0, items=["milk"], **FIRST),
    event(2, "add_to_cart", day=0.01, items=["milk"], **FIRST),
    event(3, "search", day=0.02, items=(), search_term="soap", **FIRST),
    event(4, "view_item", day=0.03, items=["soap"], **FIRST),
    event(5, "begin_checkout", day=0.04, items=["milk"], **FIRST),
    event(6, day=0.05, items=["milk"], value=100, currency="USD", coupon="TEN", **FIRST),
    event(7, "view_item", day=7, items=["milk"], **SECOND),
    event(8, "add_to_cart", day=7.01, items=["milk"], **SECOND),
    event(9, "remove_from_cart", day=7.02, items=["milk"], **SECOND),
    event(10, "view_item", day=14, items=["tea"], **NOW),
    event(11, "add_to_cart", day=14.01, items=["tea"], **NOW),
    event(12, "begin_checkout", day=14.02, items=["tea"], **NOW),
)


def told(*log: Event, day: float = 14.02) -> dict[str, float]:
    view = features.view(features.update_all({}, log), us(day))
    return dict(zip(LASTING, lasting(view, LEVELS), strict=True))


def odds(some: float, of_all: float) -> float:
    return math.log((some + 0.5) / (of_all - some + 0.5))


def ratio(one: float, other: float) -> float:
    return math.log((one + 0.5) / (other + 0.5))


def test_by_hand() -> None:
    weeks = 14.02 / 7
    rate = 3.5 / 5  # three of four views were put in
    mean = (-HALF + HALF - HALF + 0) / 4
    squares = sum((one - mean) ** 2 for one in (-HALF, HALF, -HALF, 0.0))
    spread = squares * rate * (1 - rate)
    assert told(*LOG) == pytest.approx(
        {
            "weeks_known": math.log1p(weeks),
            "visits": math.log1p(3),
            "visits_each_week": ratio(3, weeks),
            "all_views": math.log1p(4),
            "views_each_visit": ratio(4, 3),
            "views_searched": ratio(1, 4),
            "views_added": ratio(3, 4),
            "views_again": odds(1, 4),  # milk, in the second visit
            "views_same_category": odds(1, 1),  # milk, then soap
            "adds_removed": ratio(1, 3),
            "visits_with_cart": odds(2, 2),  # this one is not over
            "carts_to_checkout": odds(1, 2),
            "checkouts": math.log1p(1),
            "checkouts_ordered": odds(1, 1),
            "all_orders": math.log1p(1),
            "all_spend": math.log1p(100),
            "coupons_used": math.log1p(1),
            "orders_with_coupon": odds(1, 1),
            "weeks_since_first_order": math.log1p((14.02 - 0.05) / 7),
            "level_viewed": -HALF / (4 + 4),
            "level_added": -2 * HALF / (3 + 4),
            "level_kept": -HALF / (2 + 4),
            "price_slope": (-2 * HALF - 3 * mean) / (spread + 2),
            "price_evidence": math.log1p(spread),
        },
        abs=1e-9,
    )


def test_nothing_known_is_nothing_told() -> None:
    assert set(told().values()) == {0.0}
    assert set(told(event(1, "view_item", purposes=("analytics",))).values()) == {0.0}


def test_they_last_where_interactions_do_not() -> None:
    """The purchase of long ago counts although 200 views came since."""
    views = [
        event(100 + n, "view_item", day=20 + n / 50, items=["tea"], session_id=f"s-{n // 10}")
        for n in range(200)
    ]
    log = [*LOG, *views]
    assert len(folded(RECENT_INTERACTIONS, log)) == 64
    assert len(folded(TRACES, log)) == len(log)
    found = told(*log, day=30)
    assert found["checkouts_ordered"] == pytest.approx(odds(1, 2))
    assert found["visits"] == pytest.approx(math.log1p(23))
    assert found["all_views"] == pytest.approx(math.log1p(204))


def test_items_of_another_shop_say_nothing_of_prices() -> None:
    log = [event(1, "view_item", items=["gold"]), event(2, "add_to_cart", items=["gold"])]
    found = told(*log, day=1)
    levels = ("level_viewed", "level_added", "level_kept", "price_slope", "price_evidence")
    assert {found[name] for name in levels} == {0.0}
    assert found["views_added"] == pytest.approx(ratio(1, 1))


def test_more_put_in_than_looked_at_is_still_a_number() -> None:
    log = [event(n, "add_to_cart", items=["soap"]) for n in range(1, 9)]
    assert all(math.isfinite(one) for one in told(*log, day=1).values())
    log.append(event(20, "view_item", items=["milk"]))
    assert all(math.isfinite(one) for one in told(*log, day=1).values())


def test_a_trace_is_of_each_item_or_of_the_event() -> None:
    state = folded(TRACES, [event(1, "add_to_cart", items=["milk", "tea"]), event(2, day=1)])
    assert state["item_key"].tolist() == [key_of("milk"), key_of("tea"), 0]
    assert state["position"].tolist() == [0, 1, 0]


# Small keys, of which many stand at the same place of a table; 0 is none, 4 to 6 have no price.
ITEMS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 2**40 + 1, 2**63 + 1])
VISITS = st.sampled_from([0, 1, 2, 17, 2**32 + 1, 2**63 + 2])
KINDS = st.sampled_from([EVENT_TYPE["select_item"], *sorted(TRACES.event_types)])
OTHERS = PriceLevels.of(
    np.array([1, 2, 3, 2**40 + 1, 2**63 + 1], np.uint64),
    np.array([99, 250, 1_000, 40_000, 7]),
    [["FOOD", "DAIRY"], ["FOOD", "DAIRY"], ["HOME", "BATH"], None, ["HOME", "BATH"]],
)
TIMES = st.integers(0, us(400))


@given(
    traces=st.lists(st.tuples(TIMES, KINDS, ITEMS, VISITS), max_size=60),
    orders=st.lists(st.tuples(TIMES, st.integers(-1, 90_000), st.booleans()), max_size=6),
    now_us=TIMES,
    prices=st.sampled_from([OTHERS, LEVELS, NOTHING]),
)
def test_they_are_what_numpy_says(
    traces: list[tuple[int, int, int, int]],
    orders: list[tuple[int, int, bool]],
    now_us: int,
    prices: PriceLevels,
) -> None:
    rows, ordered = np.zeros(len(traces), TRACES.dtype), np.zeros(len(orders), ORDERED)
    for place, (when, *told) in enumerate(sorted(traces)):
        rows[place] = (when, place, 0, *told)
    for place, (when, spend, coupon) in enumerate(sorted(orders)):
        ordered[place]["occurred_us"], ordered[place]["spend"] = when, spend
        ordered[place]["coupon"] = coupon
    view = replace(UNKNOWN, traces=rows, orders=ordered, now_us=now_us)
    assert lasting(view, prices) == pytest.approx(plain_lasting(view, prices), rel=1e-9, abs=1e-9)
