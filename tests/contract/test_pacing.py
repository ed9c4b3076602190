"""The price of a day's spending: what is usual, what is to come, and what is let out on a first
day."""

from datetime import UTC, datetime

import numpy as np
import pytest

from contract.clock import DAY_US
from contract.offers import DailyBudget, ShopDay
from contract.pacing import HOUR_US, SLOT_US, Slot, price_of, traffic, usable
from contract.policy import PLANNED_FOR, Budget

TODAY = ShopDay("2017-11-20", 10 * DAY_US, 11 * DAY_US)
NOON = TODAY.start_us + DAY_US // 2


def even(start_us: int, end_us: int, each: int) -> list[Slot]:
    return [Slot(at, each) for at in range(start_us, end_us, SLOT_US)]


def test_a_day_is_the_shops_own() -> None:
    berlin = DailyBudget(amount=1, timezone="Europe/Berlin")
    day = berlin.day(datetime(2017, 11, 20, 23, 30, tzinfo=UTC))
    assert day.name == "2017-11-21"
    assert day.end_us - day.start_us == DAY_US
    # The day on which the clock goes back is an hour longer.
    autumn = berlin.day(datetime(2017, 10, 29, 12, tzinfo=UTC))
    assert autumn.end_us - autumn.start_us == DAY_US + HOUR_US


def test_what_is_usual_is_known_after_a_whole_day() -> None:
    first = traffic(even(TODAY.start_us, NOON, 2), TODAY, NOON)
    assert first.usual is None
    assert first.seen == 144
    assert first.to_come == pytest.approx(144)  # as many as so far
    known = traffic(even(TODAY.start_us - 2 * DAY_US, NOON, 2), TODAY, NOON)
    assert known.usual == pytest.approx(288)
    assert known.to_come == pytest.approx(PLANNED_FOR * 144)
    # Twice as busy as usual: more than usual are planned for, but not at once twice as many.
    busy = even(TODAY.start_us - 2 * DAY_US, TODAY.start_us, 2) + even(TODAY.start_us, NOON, 4)
    assert known.to_come < traffic(busy, TODAY, NOON).to_come < 2 * known.to_come
    # A day that was seen from its afternoon on says nothing of a whole one.
    part = even(TODAY.start_us - DAY_US // 2, NOON, 2)
    assert traffic(part, TODAY, NOON).usual is None


def test_the_shape_of_the_day_counts() -> None:
    # All come in the evening: at noon all are still to come.
    evening = [
        Slot(one.start_us, 0 if one.start_us % DAY_US < 18 * HOUR_US else 8)
        for one in even(TODAY.start_us - 2 * DAY_US, TODAY.start_us, 1)
    ]
    late = traffic([*evening, Slot(TODAY.start_us, 0)], TODAY, NOON)
    assert late.usual == pytest.approx(288)
    # Ten of the twenty that count for an even day are thought to be over.
    passed = 10 / (576 + 20)
    fewer = 100 / (100 + 288 * passed)  # nobody has come yet
    assert late.to_come == pytest.approx(PLANNED_FOR * 288 * (1 - passed) * fewer)


def test_on_a_first_day_the_budget_is_let_out_as_it_goes() -> None:
    budget = Budget(2_400)
    assert usable(budget, TODAY, TODAY.start_us, None) == 100
    assert usable(budget, TODAY, NOON, None) == 1_300
    assert usable(Budget(2_400, spent=1_000), TODAY, NOON, None) == 300
    assert usable(Budget(2_400, spent=2_000), TODAY, NOON, None) == 0
    assert usable(budget, TODAY, NOON, 50.0) == 2_400 - 24  # kept for the last hour
    assert usable(budget, TODAY, TODAY.end_us - HOUR_US, None) == 2_400


def test_the_price_spends_what_there_is() -> None:
    rng = np.random.default_rng(1)
    gain, cost = rng.uniform(-50, 100, (500, 1)), rng.uniform(10, 60, (500, 1))
    rows = tuple((tuple(g), tuple(c)) for g, c in zip(gain.tolist(), cost.tolist(), strict=True))
    slots = [Slot(0, 500, rows)]
    spent_free = float(np.where(gain > 0, cost, 0).mean()) * 1_000
    assert price_of(slots, 1_000, spent_free * 2, 0.0, 1) == 0.0
    price = price_of(slots, 1_000, spent_free / 2, 0.0, 1)
    assert float(np.where(gain > price * cost, cost, 0).mean()) * 1_000 == pytest.approx(
        spent_free / 2, rel=0.1
    )
    # What chance spends is taken off before.
    assert price_of(slots, 1_000, spent_free / 2, 0.3, 1) > price
    # Who is held out spends nothing: the others may have more.
    held_out = price_of(slots, 1_000, spent_free / 2, 0.0, 1, holdout_share=0.3)
    assert held_out < price
    assert float(np.where(gain > held_out * cost, cost, 0).mean()) * 700 == pytest.approx(
        spent_free / 2, rel=0.1
    )
    assert price_of([], 1_000, 0.0, 0.0, 1) == 0.0
    # Where nothing may be spent, nothing is worth its price.
    assert price_of(slots, 1_000, 0.0, 0.0, 1) >= float((gain / cost).max()) * 0.9


def test_slots_weigh_by_what_they_saw() -> None:
    dear, cheap = (((100.0,), (50.0,)),), (((10.0,), (10.0,)),)
    busy = price_of([Slot(0, 990, dear), Slot(SLOT_US, 10, cheap)], 100, 2_000, 0.0, 1)
    quiet = price_of([Slot(0, 10, dear), Slot(SLOT_US, 990, cheap)], 100, 2_000, 0.0, 1)
    assert busy > 1.0  # the dear ones alone would spend 5,000
    assert quiet == 0.0
