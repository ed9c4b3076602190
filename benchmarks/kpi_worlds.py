"""Simulated shops as their key figures see them: counters by quarter of an hour, or by a part of
one, for every slice, with season, trend, promotions and noise that nobody announces, and faults
that only the truth beside them knows of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from serving.monitoring.kpi_metrics import CLASSES, COUNTERS, EDGES_MS, PLACE

Floats = npt.NDArray[np.float64]
Kind = Literal["drop", "slice drop", "value drop", "slow drift", "dead slice", "latency"]
A_DAY: Final = 96
_QUARTER, _TILL = 15.0, 12.0  # minutes; an order comes up to so many after its visit began
_DEVICES: Final = ("mobile", "desktop", "tablet")
_COUNTRIES: Final = ("DE", "AT", "CH")
_SEGMENTS: Final = ("new", "loyal", "others")
_CELLS: Final = [(d, c, s) for d in range(3) for c in range(3) for s in range(3)]


@dataclass(frozen=True)
class World:
    """What a shop is like; everything that the watch does not know."""

    visits_a_day: float
    conversion: float = 0.05
    night: float = 0.08  # traffic of the quietest hour by that of the busiest
    weekend: float = 1.15
    conversion_by_hour: float = 0.12
    growth_a_week: float = 0.01
    conversion_a_week: float = 0.004
    daily_traffic: float = 0.06  # deviations of a day's level
    daily_conversion: float = 0.015
    hourly_traffic: float = 0.08
    hourly_conversion: float = 0.01
    promotions_a_week: float = 0.5
    order_spread: float = 0.7  # deviation of the log of an order's value
    median_ms: float = 8.0
    ms_spread: float = 0.35
    busy_ms: float = 0.1  # slower when it is busy, by so much

    @classmethod
    def drawn(cls, rng: np.random.Generator, visits_a_day: float, wide: float = 1.0) -> "World":
        """A shop drawn at random; `wide`: how far from the usual one it may be."""

        def around(usual: float) -> float:
            return float(usual * np.exp(rng.uniform(-0.6, 0.6) * wide))

        return cls(
            visits_a_day=visits_a_day,
            conversion=around(0.045),
            night=around(0.08),
            weekend=float(rng.uniform(0.75, 1.35)),
            conversion_by_hour=around(0.1),
            growth_a_week=float(rng.uniform(-0.02, 0.03) * wide),
            conversion_a_week=float(rng.uniform(-0.01, 0.01) * wide),
            daily_traffic=around(0.06),
            daily_conversion=around(0.012),
            hourly_traffic=around(0.08),
            hourly_conversion=around(0.008),
            promotions_a_week=around(0.5),
            order_spread=around(0.65),
            median_ms=around(8.0),
            ms_spread=around(0.3),
            busy_ms=around(0.1),
        )


@dataclass(frozen=True)
class Fault:
    """What goes wrong from `at` until `until`, in quarters of an hour and fractions of one. `size`
    is the share that is lost, of latency the factor, of a drift the share lost a day. `where`: the
    slice that it is about, None: everything."""

    kind: Kind
    at: float
    until: float
    size: float
    where: tuple[str, str] | None = None

    def strength(self, buckets: int, fine: int = 1) -> Floats:
        """How much of it there is in each bucket, `fine` of them a quarter of an hour, 0..1, and of
        a drift the days so far, [T]."""
        at, until, edge = self.at * fine, self.until * fine, np.arange(buckets)
        part = np.clip(np.minimum(edge + 1, until) - np.maximum(edge, at), 0, 1)
        days = np.maximum(edge + 0.5 - at, 0) / (A_DAY * fine)
        found: Floats = part * days if self.kind == "slow drift" else part
        return found

    def cells(self) -> npt.NDArray[np.bool_]:
        """Whom it touches, [cells]."""
        if self.where is None:
            return np.ones(len(_CELLS), bool)
        place = {"device": 0, "country": 1, "segment": 2}[self.where[0]]
        names = (_DEVICES, _COUNTRIES, _SEGMENTS)[place]
        return np.array([names[cell[place]] == self.where[1] for cell in _CELLS])


def simulate(
    world: World,
    days: int,
    rng: np.random.Generator,
    faults: Sequence[Fault] = (),
    fine: int = 1,
) -> Mapping[tuple[str, str], Floats]:
    """Counters by slice, [T, C], in buckets of which a quarter of an hour has `fine`. Chance of
    traffic and of people is drawn alike with and without faults only in distribution, not draw by
    draw."""
    size = days * A_DAY * fine
    conversion_lost, value_lost, alive, slower = _effects(faults, size, fine)
    traffic, conversion, value = _levels(world, days, rng, fine)
    share = rng.dirichlet(np.array([6.0, 4.0, 1.2]))
    by_device, by_country = (0.8, 1.3, 1.0), (1.0, 0.9, 1.1)
    weights = np.array(
        [share[d] * (0.7, 0.18, 0.12)[c] * (0.45, 0.2, 0.35)[s] for d, c, s in _CELLS]
    )
    keen = np.array([by_device[d] * by_country[c] * (0.7, 1.9, 1.0)[s] for d, c, s in _CELLS])
    keen /= (keen * weights).sum()
    visits = rng.poisson(np.outer(traffic, weights) * alive)
    chance = np.clip(np.outer(conversion, keen) * conversion_lost, 0, 0.9)
    converted = rng.binomial(visits, chance)
    orders = _ordered(converted, rng, fine)
    tilled = converted + rng.binomial(visits - converted, 0.2)  # who reached the till
    cell: dict[str, Floats] = {
        "visits": visits.astype(np.float64),
        "converted": converted.astype(np.float64),
        "carts": tilled.astype(np.float64),
        "abandoned": (tilled - converted).astype(np.float64),
        "decisions": tilled.astype(np.float64),
        "orders": orders.astype(np.float64),
        "valued": orders.astype(np.float64),
        "decided_orders": orders.astype(np.float64),
    }
    cell["shown"] = 5 * cell["decisions"]
    cell["taken"] = rng.binomial(5 * converted, 0.12).astype(np.float64)
    cell["personal"] = rng.binomial(tilled, 0.6).astype(np.float64)
    cell["rung_full"] = cell["decisions"] - rng.binomial(tilled, 0.002)
    _money(cell, orders, value[:, None] * value_lost, world, rng)
    _times(cell, tilled, traffic, slower, world, rng)
    return _sliced(cell, size)


def _ordered(
    converted: npt.NDArray[np.int64], rng: np.random.Generator, fine: int
) -> npt.NDArray[np.int64]:
    """Orders by their own time, of visits [T, cells] by that of their beginning: some buckets
    later, as a time of up to _TILL after a moment of the bucket makes it."""
    bucket = _QUARTER / fine
    ends = bucket * np.arange(1, math.ceil(_TILL / bucket) + 2)
    # Of the sum of two even draws, by the corner beyond which it can not be.
    corner = (np.maximum(ends - edge, 0) ** 2 for edge in (0, bucket, _TILL, bucket + _TILL))
    first, second, third, fourth = corner
    until = (first - second - third + fourth) / (2 * bucket * _TILL)
    share = np.diff(until, prepend=0.0)
    orders, left = np.zeros_like(converted), converted
    for later in range(len(share) - 1, 0, -1):
        late = rng.binomial(left, share[later] / until[later])
        orders[later:] += late[:-later]
        left = left - late
    return orders + left


def _effects(
    faults: Sequence[Fault], size: int, fine: int
) -> tuple[Floats, Floats, npt.NDArray[np.float64], Floats]:
    conversion, value, alive, slower = (np.ones((size, len(_CELLS))) for _ in range(4))
    for fault in faults:
        strength = fault.strength(size, fine)[:, None] * fault.cells()
        if fault.kind == "value drop":
            value *= 1 - fault.size * strength
        elif fault.kind == "dead slice":
            alive *= 1 - strength
        elif fault.kind == "latency":
            slower *= 1 + (fault.size - 1) * strength
        else:
            conversion *= np.maximum(1 - fault.size * strength, 0.05)
    return conversion, value, alive, slower


def _levels(
    world: World, days: int, rng: np.random.Generator, fine: int
) -> tuple[Floats, Floats, Floats]:
    """Visits a bucket, conversion and the mean order, [T] each."""
    a_day = A_DAY * fine
    size = days * a_day
    day, hour = np.arange(size) // a_day, np.arange(size) % a_day / (4 * fine)
    turn = 0.5 - 0.5 * np.cos((hour - 4) / 24 * 2 * np.pi)
    evening = 0.35 * np.exp(-(((hour - 20.5) / 1.8) ** 2))
    shape = world.night + (1 - world.night) * turn + evening
    weekend = np.where(day % 7 >= 5, world.weekend, 1.0)
    weeks = np.arange(size) / a_day / 7
    promoted = np.repeat(rng.random(days) < world.promotions_a_week / 7, a_day)
    often = shape * weekend * np.exp(world.growth_a_week * weeks)
    often *= np.exp(np.repeat(rng.normal(0, world.daily_traffic, days), a_day))
    often *= np.exp(_wandering(size, world.hourly_traffic, rng, fine)) * np.where(
        promoted, 1.6, 1.0
    )
    keen = 1 + world.conversion_by_hour * np.cos((hour - 20) / 24 * 2 * np.pi)
    keen = keen * np.where(day % 7 >= 5, 0.95, 1.0) * np.exp(world.conversion_a_week * weeks)
    keen *= np.exp(np.repeat(rng.normal(0, world.daily_conversion, days), a_day))
    keen *= np.exp(_wandering(size, world.hourly_conversion, rng, fine)) * np.where(
        promoted, 1.15, 1.0
    )
    value = np.exp(np.repeat(rng.normal(0, 0.012, days), a_day)) * np.where(promoted, 0.93, 1.0)
    a_bucket = world.visits_a_day / a_day
    return often / shape.mean() * a_bucket, keen * world.conversion, 4_000.0 * value


def _wandering(size: int, deviation: float, rng: np.random.Generator, fine: int) -> Floats:
    """Noise that lasts for some hours, [T]."""
    kept = 0.9 ** (1 / fine)
    steps = rng.normal(0, deviation * np.sqrt(1 - kept**2), size)
    found = np.zeros(size)
    for place in range(1, size):
        found[place] = kept * found[place - 1] + steps[place]
    return found


def _money(
    cell: dict[str, Floats],
    orders: npt.NDArray[np.int64],
    value: Floats,
    world: World,
    rng: np.random.Generator,
) -> None:
    """Sums of lognormal orders, by a gamma with their mean and variance."""
    spread2 = float(np.exp(world.order_spread**2) - 1)
    shape = orders / spread2
    total = np.where(orders > 0, rng.gamma(np.maximum(shape, 1e-9)) * value * spread2, 0.0)
    cell["revenue"] = cell["decided_revenue"] = total
    cell["revenue_squares"] = orders * value**2 * (1 + spread2)


def _times(
    cell: dict[str, Floats],
    decisions: npt.NDArray[np.int64],
    traffic: Floats,
    slower: Floats,
    world: World,
    rng: np.random.Generator,
) -> None:
    busy = (traffic / traffic.mean())[:, None] ** world.busy_ms
    median = world.median_ms * busy * slower
    left = decisions.copy()
    beyond = np.ones_like(median)
    cell["timed"] = decisions.astype(np.float64)
    for name, edge in zip(CLASSES, EDGES_MS, strict=True):
        below = _lognormal_above(edge, median, world.ms_spread)
        share = np.where(beyond > 1e-12, 1 - below / np.maximum(beyond, 1e-12), 1.0)
        inside = rng.binomial(left, np.clip(share, 0, 1))
        cell[name] = inside.astype(np.float64)
        left, beyond = left - inside, below
    cell["time_us"] = decisions * median * 1_000 * np.exp(world.ms_spread**2 / 2)
    cell["slow"] = decisions * _lognormal_above(50.0, median, world.ms_spread)


def _lognormal_above(edge: float, median: Floats, spread: float) -> Floats:
    """The share above `edge`: a logistic in place of the normal, with its fatter tail."""
    if not np.isfinite(edge):
        return np.zeros_like(median)
    found: Floats = 1 / (1 + (edge / median) ** (1.7 / spread))
    return found


def _sliced(cell: Mapping[str, Floats], size: int) -> Mapping[tuple[str, str], Floats]:
    counters = np.zeros((size, len(_CELLS), len(COUNTERS)))
    for name, found in cell.items():
        counters[:, :, PLACE[name]] = found
    slices = {("all", ""): counters.sum(axis=1)}
    named = (("device", _DEVICES), ("country", _COUNTRIES), ("segment", _SEGMENTS))
    for place, (cut, values) in enumerate(named):
        for number, value in enumerate(values):
            held = [cell_of[place] == number for cell_of in _CELLS]
            slices[cut, value] = counters[:, held].sum(axis=1)
    return slices
