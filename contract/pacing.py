"""The price of spending for the rest of a day, from what was decided lately: how many decisions are
still to come, and what decisions like those would bring and cost.

Pure: whoever calls it keeps the decisions (`Slot`) and knows what was spent; gateways do, and the
simulated days of `tillwise-train benchmark pacing`. Amounts are minor units.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from contract.offers import ShopDay
from contract.policy import Budget, decisions_to_come, shadow_price

HOUR_US: Final = DAY_US // 24
SLOT_US: Final = 10 * 60 * 1_000_000  # decisions are counted by so long
# How often the price is solved anew while nobody knows how many are usual: more is learned every
# minute. Later it is once a slot.
RESOLVE_SOON_US: Final = 60 * 1_000_000
DAYS_LOOKED_AT: Final = 7
_SAMPLE = 400
_ROWS = 20  # that are kept of a slot
# Of what is usual by the time of day: so many decisions' worth of trust in all hours being alike.
_EVEN_COUNTS_FOR = 20.0
# On a first day, when nobody knows how many will come, this much more than the day's share so far.
_AHEAD = 1 / 24

# What arms of one decision were expected to bring over no offer, and to cost.
Row = tuple[tuple[float, ...], tuple[float, ...]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slot:
    """Decisions of some minutes from `start_us` on: how many, and some of them drawn evenly."""

    start_us: int
    seen: int
    rows: tuple[Row, ...] = ()


@dataclass
class Filling:
    """The slot under way; of its decisions a few, drawn evenly (reservoir sampling)."""

    start_us: int
    seen: int = 0
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row, chance: random.Random) -> None:
        """One more decision."""
        self.seen += 1
        if len(self.rows) < _ROWS:
            self.rows.append(row)
        elif (place := chance.randrange(self.seen)) < _ROWS:
            self.rows[place] = row

    def slot(self) -> Slot:
        """As it stands."""
        return Slot(self.start_us, self.seen, tuple(self.rows))


@dataclass(frozen=True)
class Traffic:
    """What is known of a day's decisions: how many were `seen` and are `to_come`; `usual` of a
    whole day, None on a first one."""

    seen: int
    to_come: float
    usual: float | None


@dataclass(frozen=True)
class Plan:
    """For what is left of a day: the `price` of spending one minor unit, what was `usable` when it
    was solved, and the traffic that it was solved for."""

    price: float
    usable: int
    traffic: Traffic


def slot_start(at_us: int) -> int:
    """Of the slot that `at_us` is in."""
    return at_us // SLOT_US * SLOT_US


def plan(
    slots: Sequence[Slot],
    budget: Budget,
    day: ShopDay,
    now_us: int,
    *,
    explore_share: float = 0.0,
    holdout_share: float = 0.0,
) -> Plan:
    """From the `slots` of today and of the days before."""
    counted = traffic(slots, day, now_us)
    recent = [one for one in slots if one.start_us >= now_us - DAY_US]
    # What is let out bit by bit on a first day is let out for what comes until the day's end.
    whole = usable(budget, day, now_us)
    price = price_of(
        *(recent, counted.to_come, whole, explore_share, now_us % 2**32),
        holdout_share=holdout_share,
    )
    return Plan(price, usable(budget, day, now_us, counted.usual), counted)


def usable(budget: Budget, day: ShopDay, now_us: int, usual: float | None = 0.0) -> int:
    """What may be spent now: a part is kept for the last hour and, where nobody knows how many
    shoppers are usual, the day's budget is only let out as the day goes by."""
    left = budget.usable(now_us >= day.end_us - HOUR_US)
    if usual is not None:
        return left
    passed = _passed(day, now_us) + _AHEAD
    return max(min(left, int(passed * budget.amount) - budget.spent - budget.reserved), 0)


def traffic(slots: Sequence[Slot], day: ShopDay, now_us: int) -> Traffic:
    """From the `slots` of today and of the days before."""
    seen = sum(one.seen for one in slots if one.start_us >= day.start_us)
    before = [one for one in slots if one.start_us < day.start_us]
    first_us = min((one.start_us for one in slots), default=now_us)
    # Days that were seen from their beginning on, but for a quarter of an hour or so.
    whole = min((day.start_us - first_us + 2 * SLOT_US) // DAY_US, DAYS_LOOKED_AT)
    if whole < 1:
        since = max(now_us - max(first_us, day.start_us), SLOT_US)
        return Traffic(seen, seen / since * max(day.end_us - now_us, 0), None)
    kept = [one for one in before if one.start_us >= day.start_us - whole * DAY_US - 2 * SLOT_US]
    total = sum(one.seen for one in kept)
    elapsed = now_us - day.start_us
    by_now = sum(one.seen for one in kept if (one.start_us - day.start_us) % DAY_US < elapsed)
    passed = (by_now + _EVEN_COUNTS_FOR * _passed(day, now_us)) / (total + _EVEN_COUNTS_FOR)
    usual = total / whole
    return Traffic(seen, decisions_to_come(usual, min(passed, 1.0), seen), usual)


def price_of(
    slots: Sequence[Slot],
    to_come: float,
    left: float,
    explore_share: float,
    seed: int,
    holdout_share: float = 0.0,
) -> float:
    """The price at which `to_come` decisions like those of `slots` spend no more than `left`, of
    which `explore_share` take any arm alike, whatever its price, and `holdout_share` none."""
    gain, cost, allowed = _matrices(_drawn(slots, seed))
    if not len(gain):
        return 0.0
    explored = float((cost.sum(1) / allowed.sum(1)).mean())
    rest = max(left - explore_share * to_come * explored, 0.0)
    by_price = max(1.0 - explore_share - holdout_share, 0.0)
    return shadow_price(gain, cost, allowed, by_price * to_come, rest)


def _passed(day: ShopDay, now_us: int) -> float:
    return min(max((now_us - day.start_us) / (day.end_us - day.start_us), 0.0), 1.0)


def _drawn(slots: Sequence[Slot], seed: int) -> list[Row]:
    """Rows of the slots, each slot by how many it saw."""
    rows = [(row, one.seen / len(one.rows)) for one in slots for row in one.rows]
    if not rows:
        return []
    weight = np.array([each for _, each in rows])
    rng = np.random.default_rng(seed)
    some = rng.choice(len(rows), min(_SAMPLE, 4 * len(rows)), p=weight / weight.sum())
    return [rows[at][0] for at in some.tolist()]


def _matrices(rows: Sequence[Row]) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """`rows` as gain, cost and which arms there were, [M, A] with no offer first."""
    most = 1 + max((len(gain) for gain, _ in rows), default=0)
    gains, costs = np.zeros((len(rows), most)), np.zeros((len(rows), most))
    allowed = np.zeros((len(rows), most), bool)
    allowed[:, 0] = True
    for at, (gain, cost) in enumerate(rows):
        gains[at, 1 : 1 + len(gain)] = gain
        costs[at, 1 : 1 + len(cost)] = cost
        allowed[at, 1 : 1 + len(gain)] = True
    return gains, costs, allowed
