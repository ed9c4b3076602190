"""The pace at which a day's budget is spent, as decisions find it: the price of spending and what
may be spent now, both in memory and at most a moment old. Decisions that could have been offered
something are counted here, and every few minutes one of the shop's gateways solves the price anew
from what all of them have counted."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from contract.clock import DAY_US, from_us, to_us
from contract.offers import DailyBudget, OfferBook, ShopDay
from contract.pacing import (
    DAYS_LOOKED_AT,
    RESOLVE_SOON_US,
    SLOT_US,
    Filling,
    Slot,
    plan,
    slot_start,
    usable,
)
from contract.policy import Budget
from serving.monitoring.offer_pacing import PacingMetrics
from serving.state.group_writer import StoreError
from serving.state.pacing_records import PacingRecords, Price, Standing

log = logging.getLogger(__name__)

_MOST_SLOTS = 500  # that wait to be written


@dataclass(frozen=True)
class Pace:
    """What the policy goes by: `price` of spending one minor unit, `usable` of the day's budget."""

    day: str
    price: float
    usable: int
    solved_at: datetime | None

    @classmethod
    def untouched(cls, budget: DailyBudget, now: datetime) -> Self:
        """Of a budget that nothing was spent of."""
        return cls(budget.day(now).name, 0.0, budget.amount, None)

    def record(self) -> dict[str, Any]:
        """For the decision's event."""
        solved = None if self.solved_at is None else self.solved_at.isoformat()
        return {
            "day": self.day,
            "price": self.price,
            "usable": self.usable,
            "price_solved_at": solved,
        }


class OfferPacing:
    """Of one gateway. Decisions call `pace` and `note`, which take microseconds and wait for
    nothing; all else is done by whoever follows the stores."""

    def __init__(self, records: PacingRecords, metrics: PacingMetrics) -> None:
        self._records = records
        self._metrics = metrics
        self._day = ""
        self._held_day: tuple[str, ShopDay] | None = None  # with the zone that it is of
        self._standing: Standing | None = None  # None: it is not known
        self._filling: Filling | None = None
        self._full: list[Slot] = []
        self._chance = random.Random(0)
        self._solving = asyncio.Lock()
        self._said_away = False

    def pace(self, budget: DailyBudget, now: datetime) -> Pace | None:
        """At this moment; None where nobody knows what was spent: then nothing may be."""
        standing = self._standing
        if standing is None:
            return None
        day, price = self._shop_day(budget, now), standing.price
        # At midnight a new day has begun that nothing was read of yet; the ledger knows.
        spent = standing.spent if day.name == self._day else 0
        usual = None if price is None else price.usual
        left = usable(Budget(budget.amount, spent), day, to_us(now), usual)
        if price is None:
            return Pace(day.name, 0.0, left, None)
        return Pace(day.name, price.price, left, from_us(price.solved_us))

    def _shop_day(self, budget: DailyBudget, now: datetime) -> ShopDay:
        """The day that it is, asked of the calendar once a day."""
        held = self._held_day
        if held is not None and held[0] == budget.timezone:
            day = held[1]
            if day.start_us <= to_us(now) < day.end_us:
                return day
        day = budget.day(now)
        self._held_day = budget.timezone, day
        return day

    def note(self, gain: Sequence[float], cost: Sequence[float], now: datetime) -> None:
        """A decision: what each arm but no offer was expected to bring and to cost; none, where no
        offer might be shown."""
        start_us = slot_start(to_us(now))
        filling = self._filling
        if filling is None or filling.start_us != start_us:
            self._close_slot()
            filling = self._filling = Filling(start_us)
        filling.add((tuple(gain), tuple(cost)), self._chance)

    def withheld(self, why: str) -> None:
        """An offer was not shown that might have been worth it."""
        self._metrics.withheld(why)

    async def follow(self, book: OfferBook, now: datetime) -> None:
        """Learn what was spent of the day's budget, and at which price it is to be. Where the
        ledger does not say, nothing is known until it does."""
        budget = book.daily_budget
        if budget is None:
            self._standing = None
            return
        day = budget.day(now).name
        try:
            standing = await self._records.standing(day, to_us(now))
        except StoreError as error:
            self._standing = None
            self._metrics.unknown()
            if not self._said_away:
                log.error("what was spent of the day's budget is not known: %s", error)
            self._said_away = True
            return
        self._day, self._standing, self._said_away = day, standing, False
        self._metrics.stands(budget.amount, standing)

    async def work(self, book: OfferBook, now: datetime) -> None:
        """Put down what was counted, and solve the price if it is time. Raises StoreError."""
        budget = book.daily_budget
        if budget is None:
            return
        async with self._solving:
            await self.follow(book, now)
            if self._filling is not None and self._filling.start_us != slot_start(to_us(now)):
                self._close_slot()
            if self._full:
                await self.flush(now)
            if self._standing is not None and _due(self._standing.price, budget, now):
                await self._solve(book, budget, self._standing, now)

    async def flush(self, now: datetime) -> None:
        """Put down what was counted. Raises StoreError."""
        self._close_slot()
        waiting, self._full = self._full, []
        if not waiting:
            return
        try:
            forget_us = to_us(now) - (DAYS_LOOKED_AT + 2) * DAY_US
            await self._records.add_slots(waiting, forget_us)
        except StoreError:
            self._full = (waiting + self._full)[-_MOST_SLOTS:]
            raise

    async def _solve(
        self, book: OfferBook, budget: DailyBudget, standing: Standing, now: datetime
    ) -> None:
        await self.flush(now)
        day, now_us = budget.day(now), to_us(now)
        slots = await self._records.slots(day.start_us - (DAYS_LOOKED_AT + 1) * DAY_US)
        price = await asyncio.to_thread(_solved, book, budget, standing.spent, slots, now_us)
        found = await self._records.put_price(price, standing.price)
        latest = self._standing or standing  # more may have been spent meanwhile
        self._standing = Standing(latest.spent, found)
        self._metrics.stands(budget.amount, self._standing)

    def _close_slot(self) -> None:
        if self._filling is not None:
            self._full = [*self._full, self._filling.slot()][-_MOST_SLOTS:]
            self._filling = None


def _due(price: Price | None, budget: DailyBudget, now: datetime) -> bool:
    """Whether the price is to be solved anew: it is old, or for another day or budget. A clock that
    went back makes it due as well."""
    if price is None or price.day != budget.day(now).name or price.amount != budget.amount:
        return True
    lasts_us = RESOLVE_SOON_US if price.usual is None else SLOT_US
    return not 0 <= to_us(now) - price.solved_us < lasts_us


def _solved(
    book: OfferBook, budget: DailyBudget, spent: int, slots: Sequence[Slot], now_us: int
) -> Price:
    day = budget.day(from_us(now_us))
    found = plan(
        slots,
        Budget(budget.amount, spent),
        day,
        now_us,
        explore_share=book.explore_share,
        holdout_share=book.holdout_share,
    )
    counted = found.traffic
    return Price(
        *(day.name, now_us, found.price, budget.amount, found.usable),
        *(counted.seen, counted.to_come, counted.usual),
    )
