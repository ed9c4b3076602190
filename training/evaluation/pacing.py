"""Simulated days of offers under a budget: demand with shocks, reservations that lapse, policies
that spend it. Decisions are drawn from simulated checkouts whose true chances are known; what a
policy sees is what the network told it.

Shapes: N checkouts to draw from, A arms, D decisions of a day.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from contract.offers import FrequencyCap, ShopDay
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
from contract.policy import NO_OFFER, Budget, choose, permitted, shadow_price
from training.data.offer_log import Floats, Ints, OfferLog, margins

DAY_S, HOUR_S, SECOND_US = 86_400, 3_600, 1_000_000
_HOLD_S = 900  # a reservation that is not redeemed lapses
MARGIN_FLOOR = 0.1
CAP = FrequencyCap(times=2, days=1.0)


@dataclass(frozen=True)
class Demand:
    """Checkouts to draw days from; `gain` and `cost` as predicted, `true_*` as they are."""

    gain: Floats  # [N, A] expected margin over no offer
    cost: Floats  # [N, A] expected reduction
    true_gain: Floats
    true_cost: Floats
    chance: Floats  # [N, A] true chance of buying
    reduction: Floats  # [N, A]
    allowed: npt.NDArray[np.bool_]  # [N, A] by the margin floor
    subject: Ints  # [N]
    value: Floats  # [N]
    margin: Floats  # [N]
    profile: Floats  # [24] share of a day's decisions by hour

    @classmethod
    def of(cls, log: OfferLog, told: Floats, truth: Floats) -> "Demand":
        """From decisions, the network's chances and the true ones, [N, A] each."""
        hours = (log.decided_us // (HOUR_S * SECOND_US)) % 24
        predicted, true = margins(log, told), margins(log, truth)
        allowed = [
            permitted(reduction, value, margin, np.inf, MARGIN_FLOOR)
            for reduction, value, margin in zip(log.reduction, log.value, log.margin, strict=True)
        ]
        return cls(
            gain=predicted - predicted[:, :1],
            cost=told * log.reduction,
            true_gain=true - true[:, :1],
            true_cost=truth * log.reduction,
            chance=truth,
            reduction=log.reduction,
            allowed=np.array(allowed),
            subject=log.subject,
            value=log.value,
            margin=log.margin,
            profile=np.bincount(hours, minlength=24) / len(log),
        )


@dataclass(frozen=True)
class Day:
    """Decisions in the order of time."""

    rows: Ints  # [D] of the demand
    second: Floats  # [D]


def draw_day(rng: np.random.Generator, demand: Demand, usual: float, *, shocks: bool) -> Day:
    """A day of about `usual` decisions. With `shocks` the whole day is busier or quieter, and often
    some hours bring a fifth to four times as many, or people who cost more."""
    rate = usual * demand.profile
    dear = np.zeros(24)
    if shocks:
        rate = rate * np.exp(0.3 * rng.standard_normal())
        for _ in range(rng.integers(0, 3)):
            start, length = rng.integers(0, 24), rng.integers(1, 5)
            hours = (start + np.arange(length)) % 24
            rate[hours] *= np.exp(rng.uniform(np.log(0.2), np.log(4.0)))
            dear[hours] = rng.random()
    counts = rng.poisson(rate)
    hour = np.repeat(np.arange(24), counts)
    rows = rng.integers(0, len(demand.gain), len(hour))
    costly = demand.true_cost[:, 1:].max(1)
    often = np.cumsum(costly) / costly.sum()
    swapped = rng.random(len(hour)) < dear[hour]
    rows[swapped] = np.searchsorted(often, rng.random(int(swapped.sum())), side="right")
    second = (hour + rng.random(len(hour))) * HOUR_S
    order = np.argsort(second, kind="stable")
    return Day(np.minimum(rows, len(demand.gain) - 1)[order], second[order])


@dataclass
class Course:
    """How a day went under one policy."""

    spent: int = 0
    gained: float = 0.0  # true expected margin over no offer
    left_at_last_hour: int = 0
    largest: int = 0  # spent and reserved together at their highest
    floor_broken: int = 0
    offers: int = 0
    by_hour: list[int] = field(default_factory=list)  # spent and reserved at the end of each


# From the number of a row and the budget at that second to an arm.
Decide = Callable[[int, float, Budget], int]


def run_day(
    rng: np.random.Generator, demand: Demand, day: Day, amount: int, decide: Decide
) -> Course:
    """Offers are reserved when they are shown, redeemed a few minutes later by those who buy, and
    lapse otherwise."""
    course, spent, reserved = Course(left_at_last_hour=amount), 0, 0
    due: list[tuple[float, int, bool]] = []  # when, how much, whether redeemed

    def until(second: float) -> None:
        nonlocal spent, reserved
        while due and due[0][0] <= second:
            _, held, redeemed = heapq.heappop(due)
            reserved -= held
            spent += held * redeemed

    for row, second in zip(day.rows.tolist(), day.second.tolist(), strict=True):
        while len(course.by_hour) < int(second // HOUR_S):
            until((len(course.by_hour) + 1) * HOUR_S)
            course.by_hour.append(spent + reserved)
            if len(course.by_hour) == 23:
                course.left_at_last_hour = amount - spent - reserved
        until(second)
        arm = decide(row, second, Budget(amount, spent, reserved))
        course.gained += float(demand.true_gain[row, arm])
        if arm == NO_OFFER:
            continue
        held = int(demand.reduction[row, arm])
        course.offers += 1
        course.floor_broken += demand.margin[row] - held < MARGIN_FLOOR * demand.value[row] - 1e-9
        buys = bool(rng.random() < demand.chance[row, arm])
        reserved += held
        course.largest = max(course.largest, spent + reserved)
        heapq.heappush(due, (second + (rng.uniform(60, 600) if buys else _HOLD_S), held, buys))
    until(np.inf)
    course.spent = spent
    course.by_hour += [spent + reserved] * (24 - len(course.by_hour))
    return course


class Paced:
    """Our policy: the contract's choice at the price that the contract's plan gives every ten
    minutes, from what was decided lately, as a gateway keeps it. It goes on from day to day."""

    def __init__(self, rng: np.random.Generator, demand: Demand, holdout: float) -> None:
        self._rng, self._demand, self._holdout = rng, demand, holdout
        self._chance = random.Random(int(rng.integers(2**32)))
        self._slots: list[Slot] = []
        self._filling: Filling | None = None
        self._day = ShopDay("0", 0, DAY_US)
        self._next_us = 0
        self._price = 0.0
        self._usual: float | None = None
        self._shown: dict[int, list[int]] = {}

    def begin_day(self, number: int) -> None:
        """The days are numbered from 0 on."""
        start_us = number * DAY_US
        self._day = ShopDay(str(number), start_us, start_us + DAY_US)
        self._next_us = start_us
        kept_us = start_us - (DAYS_LOOKED_AT + 1) * DAY_US
        self._slots = [one for one in self._slots if one.start_us >= kept_us]

    def unpriced(self, rng: np.random.Generator, demand: Demand | None = None) -> "Paced":
        """The same on the same day, which expects nobody, so that spending has no price. `demand`:
        what is told of the same rows instead."""
        other = Paced(rng, demand or self._demand, self._holdout)
        other._day, other._next_us = self._day, self._day.end_us
        other._shown = dict(self._shown)
        return other

    def __call__(self, row: int, second: float, budget: Budget) -> int:
        demand, now_us = self._demand, self._day.start_us + int(second * SECOND_US)
        if now_us >= self._next_us:
            self._resolve(now_us, budget)
        within = demand.reduction[row] <= usable(budget, self._day, now_us, self._usual)
        allowed = demand.allowed[row] & within
        who = int(demand.subject[row])
        shown = self._shown.get(who, [])
        capped = not CAP.holds(shown, now_us)
        arms = np.flatnonzero(allowed)[1:] if not capped else np.empty(0, np.int64)
        self._note((demand.gain[row, arms], demand.cost[row, arms]), now_us)
        if capped:
            return NO_OFFER
        arm = choose(
            demand.gain[row],
            demand.cost[row],
            allowed,
            self._price,
            float(self._rng.random()),
            holdout_share=self._holdout,
        ).arm
        if arm != NO_OFFER:
            self._shown[who] = [*shown[-CAP.times :], now_us]
        return arm

    def _note(self, told: tuple[Floats, Floats], now_us: int) -> None:
        start_us = slot_start(now_us)
        if self._filling is None or self._filling.start_us != start_us:
            self._close_slot()
            self._filling = Filling(start_us)
        gain, cost = told
        self._filling.add((tuple(gain.tolist()), tuple(cost.tolist())), self._chance)

    def _close_slot(self) -> None:
        if self._filling is not None:
            self._slots.append(self._filling.slot())
            self._filling = None

    def _resolve(self, now_us: int, budget: Budget) -> None:
        self._close_slot()
        found = plan(self._slots, budget, self._day, now_us, holdout_share=self._holdout)
        self._price, self._usual = found.price, found.traffic.usual
        self._next_us = now_us + (SLOT_US if self._usual is not None else RESOLVE_SOON_US)


def first_come(demand: Demand, arms: Ints) -> Decide:
    """A fixed arm for every row, while the budget lasts."""

    def decide(row: int, second: float, budget: Budget) -> int:
        arm = int(arms[row])
        fits = demand.allowed[row, arm] and demand.reduction[row, arm] <= budget.left
        return arm if fits else NO_OFFER

    return decide


def oracle_arms(demand: Demand, rows: Ints, amount: float) -> tuple[Ints, float, float]:
    """With every chance and the whole day known: the arms [D], what they are expected to spend, and
    what would be spent without a budget."""
    gain, cost = demand.true_gain[rows], demand.true_cost[rows]
    allowed = demand.allowed[rows]
    at = np.arange(len(rows))
    wish = np.where(allowed, gain, -np.inf).argmax(1)
    wished = float(cost[at, wish].sum())
    price = shadow_price(gain, cost, allowed, float(len(rows)), amount, spread=0.0)
    net = np.where(allowed, gain - price * cost, -np.inf)
    arms = net.argmax(1)
    return arms, float(cost[at, arms].sum()), wished
