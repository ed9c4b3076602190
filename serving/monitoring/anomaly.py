"""Whether a key figure is what this hour of the week, the trend and chance would make it.

A signal is counts `k` out of exposures `n` by time, so that what chance does is known: of a share
`k` of `n` cases, of money `k` in mean orders. Its baseline is

    expected k = n * rate * season[hour of the week] * level(day)

fitted on earlier weeks so that days of promotions weigh little. What is scattered beyond chance is
measured there too: `phi` from bucket to bucket, `tau` between windows of one length. A window of
the last hours is then a signed root of the deviance (M. Basseville and I. Nikiforov, Detection of
Abrupt Changes, 1993; window-limited generalised likelihood ratio of T. Lai, 1998):

    z = sign * sqrt(2 * (K * log(K / E) - (K - E)) / (phi + E * (tau^2 + level's variance)))

T buckets of a quarter of an hour, H hours, D days. NumPy alone: it runs beside a gateway.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HOURS_A_WEEK: Final = 168
BUCKETS_AN_HOUR: Final = 4
A_DAY: Final = 24 * BUCKETS_AN_HOUR
# Windows that are looked at, in buckets: half an hour to a day.
WINDOWS: Final = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 48, 96)
SLOW_DAYS: Final = (3, 7)
_MORNING: Final = 4  # buckets of a day before its own level is known
_SURE: Final = 8  # and so many until it is known as well as four hours are
_GUARD_DAYS: Final = 9  # the slow look compares with what was before these
_LEAST_DAYS: Final = 14
_LEAST_COUNT: Final = 100.0
# A level forgets half of what it knew in so many days; the slope has a prior of so much a week.
_HALF_LIFE, _SLOW_HALF_LIFE = 10.0, 28.0
_SLOPE_A_WEEK: Final = 0.01
_UNUSUAL: Final = 2.5  # deviations from which on a day weighs less
_ROUNDS, _REWEIGHTED = 4, 2
_RARE_TAU2: Final = 0.25
_LEAST_WEEKLY: Final = 0.008  # a week is never known better than that
# 1 / median of chi-square with one degree of freedom, and of a normal's absolute value.
_BY_MEDIAN, _BY_MAD = 1 / 0.4549, 1.4826


@dataclass(frozen=True)
class Signal:
    """`k` and `n` by hour or bucket, the same length; `phi` is the variance of `k` that chance
    alone gives, as a multiple of its mean."""

    k: Floats
    n: Floats
    phi: float


@dataclass(frozen=True)
class Line:
    """The logarithm of the level: `at` on the day that the baseline is for, `slope` a day, and the
    variance of `at`."""

    at: float
    slope: float
    variance: float


@dataclass(frozen=True)
class Baseline:
    """What to expect from the day `day` on, which is counted from the first hour of the fit.
    `tau2`: variance of windows of one, four and 24 hours beyond chance and phi, and of a week."""

    rate: float
    season: Floats  # [168], by hour of the fit's first week
    line: Line
    slow: Line | None
    phi: float
    tau2: tuple[float, float, float, float]
    day: int
    within2: float  # variance of four hours about their own day's level, beyond chance and phi
    last_k: Floats  # [7] of the last days, oldest first, and what the season alone expects of them
    last_e: Floats

    def expected(self, n: Floats, places: Floats) -> Floats:
        """[T] of exposures `n` [T] in quarters of an hour that begin at `places` [T], counted in
        quarters from the first hour of the fit; they need not begin with one."""
        middle = (places + 0.5) / BUCKETS_AN_HOUR
        place = middle - 0.5  # between hours' middles
        low = np.floor(place).astype(np.int64)
        part = place - low
        # Not across midnight, where another kind of day begins.
        own = np.floor(middle).astype(np.int64)
        low, high = (np.where(one // 24 == own // 24, one, own) for one in (low, low + 1))
        before, after = (self.season[one % HOURS_A_WEEK] for one in (low, high))
        level = self.rate * math.exp(self.line.at)
        found: Floats = n * level * ((1 - part) * before + part * after)
        return found

    def tau2_of(self, buckets: Floats) -> Floats:
        """Of windows of so many buckets, between what was measured."""
        hours = np.log(np.maximum(buckets / BUCKETS_AN_HOUR, 1.0))
        found: Floats = np.interp(hours, np.log([1.0, 4.0, 24.0]), self.tau2[:3])
        return found


def fit(hours: Signal, *, rare: bool = False) -> Baseline | None:
    """The baseline of the whole days of `hours` [H], for the day after them. None where there is
    too little: two weeks, and a hundred counts. Of what is `rare` fewer are enough, and then it is
    expected alike at every hour."""
    days = len(hours.k) // 24
    k, n = (np.maximum(one[: days * 24], 0.0) for one in (hours.k, hours.n))
    seen = n.reshape(days, 24).sum(axis=1) > 0
    if days < _LEAST_DAYS or seen.sum() < _LEAST_DAYS:
        return None
    if k.sum() < _LEAST_COUNT:
        return _flat(float(k.sum()), float(n.sum()), days) if rare else None
    cell: npt.NDArray[np.int64] = np.arange(len(k), dtype=np.int64) % HOURS_A_WEEK
    of_day = np.arange(len(k)) // 24
    rate = float(k.sum() / n.sum())
    level: Floats = np.zeros(days)
    weight: Floats = np.ones(days)
    season: Floats = np.ones(HOURS_A_WEEK)
    phi, day_tau2 = hours.phi, 0.0
    line = Line(0.0, 0.0, 0.0)
    for turn in range(_ROUNDS):
        plain = n * rate * np.exp(level)[of_day]
        # At first all days of the week are alike: else two promotions that fell on a Saturday would
        # be what is usual of Saturdays.
        season = _season(k, plain, cell, weight[of_day], phi, days_alike=turn == 0)
        expected = n * rate * season[cell]
        by_day, k_day = (one.reshape(days, 24).sum(axis=1) for one in (expected, k))
        off = np.log((k_day + 0.5) / (by_day + 0.5))
        chance = phi / np.maximum(by_day, 0.5) + day_tau2
        line, weight = _line(off, chance, seen, days, _HALF_LIFE)
        level = line.at + line.slope * (np.arange(days, dtype=np.float64) - days)
        rest = (off - level)[seen]
        day_tau2 = max(_spread2(rest) - float(np.median((phi / np.maximum(by_day, 0.5))[seen])), 0)
        phi = _phi(k, expected, k_day, by_day, hours.phi)
    slow = _slow_line(off, chance, seen, days)
    fitted = n * rate * season[cell] * np.exp(level)[of_day]
    tau2 = [_tau2(k, fitted, phi, width, weight) for width in (1, 4, 24)]
    weekly = max(tau2[2] / 7, _LEAST_WEEKLY**2)
    beyond = (tau2[0], tau2[1], tau2[2], weekly)
    own_day = fitted * np.repeat(k_day / np.maximum(by_day * np.exp(level), 1e-9), 24)
    within2 = _tau2(k, own_day, phi, 4, weight) * 6 / 5
    last = k_day[-7:], by_day[-7:]
    return Baseline(rate, season, line, slow, phi, beyond, days, within2, *last)


@dataclass(frozen=True)
class Scan:
    """The looks of one signal: `z` [T] is the furthest of all windows that end with that bucket, in
    the direction that was asked for (positive: that way), `log_ratio` [T] its log of seen by
    expected, and `window` [T] its length in buckets."""

    z: Floats
    log_ratio: Floats
    window: npt.NDArray[np.int64]


def scan(
    baseline: Baseline,
    k: Floats,
    expected: Floats,
    direction: int,
    least: float,
    midnight: npt.NDArray[np.int64] | None = None,
) -> Scan:
    """Every window of WINDOWS ending with each bucket of `k`, `expected` [T], which begin with a
    day: against the baseline, and against the baseline at the level of the same day before the
    window, which a promotion has changed since midnight. Windows whose log ratio is below `least`,
    or that begin before the first bucket, are left out. `midnight` [T]: the first bucket of the day
    of each; without it every day has 24 hours."""
    sums_k, sums_e = (np.concatenate([[0.0], np.cumsum(one)]) for one in (k, expected))
    width = np.array(WINDOWS)[:, None]  # windows are [W, T] from here on
    end = np.arange(1, len(k) + 1)
    begin = np.maximum(end - width, 0)
    whole = end >= width
    seen, wanted = sums_k[end] - sums_k[begin], sums_e[end] - sums_e[begin]
    beyond = baseline.tau2_of(width.astype(np.float64)) + baseline.line.variance
    usual = deviation(seen, wanted, baseline.phi, beyond)

    if midnight is None:
        midnight = (end - 1) // A_DAY * A_DAY
    before_k, before_e = sums_k[begin] - sums_k[midnight], sums_e[begin] - sums_e[midnight]
    known = (begin - midnight >= _MORNING) & (before_k >= _LEAST_COUNT) & (width <= A_DAY // 2)
    level = np.where(known, before_k / np.maximum(before_e, 1e-9), 0.0)
    # A level that one hour has told is no better known than an hour is like its day.
    told = np.clip(_SURE / np.maximum(begin - midnight, 1), 0.5, 2.0)
    doubt = (1 + told) * baseline.within2 + baseline.phi / np.maximum(before_k, 1.0)
    own = deviation(seen, wanted * level, baseline.phi, doubt)

    z, ratio = (np.concatenate(pair) for pair in zip(usual, own, strict=True))  # [2 W, T]
    counts = np.concatenate([whole, whole & known]) & (direction * ratio >= least)
    z = np.where(counts, direction * z, 0.0)
    best = np.argmax(z, axis=0)
    furthest, told_ratio = z[best, end - 1], ratio[best, end - 1]
    window = np.array((*WINDOWS, *WINDOWS))[best]
    held = furthest > 0
    return Scan(
        np.maximum(furthest, 0.0), np.where(held, told_ratio, 0.0), np.where(held, window, 0)
    )


def slow_look(baseline: Baseline, direction: int, least: float) -> tuple[float, float, int]:
    """The last whole days before the baseline's own against the trend of the weeks before: z, log
    ratio, and days of the furthest window; z 0 where nothing is as far off as `least`."""
    best = (0.0, 0.0, 0)
    if baseline.slow is None:
        return best
    for days in SLOW_DAYS:
        wanted = baseline.last_e[-days:].sum() * math.exp(baseline.slow.at)
        beyond = max(baseline.tau2[2] / days, baseline.tau2[3]) + baseline.slow.variance
        z, ratio = deviation(baseline.last_k[-days:].sum(), wanted, baseline.phi, beyond)
        if direction * ratio >= least and direction * z > best[0]:
            best = (float(direction * z), float(ratio), days)
    return best


def deviation(seen: Any, wanted: Any, phi: float, tau2: Any) -> tuple[Any, Any]:
    """(z, log of seen by wanted) of counts; 0 where nothing was expected."""
    held, sure = np.maximum(seen, 0.0), np.maximum(wanted, 1e-9)
    twice = 2 * (held * np.log(np.maximum(held, 1e-9) / sure) - (held - sure))
    z = np.sign(held - sure) * np.sqrt(np.maximum(twice, 0.0) / (phi + sure * tau2))
    ratio = np.log((held + 0.5) / (sure + 0.5))
    return np.where(np.asarray(wanted) > 0, z, 0.0), np.where(np.asarray(wanted) > 0, ratio, 0.0)


def since_bucket(baseline: Baseline, k: Floats, expected: Floats, direction: int) -> int:
    """The bucket with which the change most likely began, of `k`, `expected` [T]: the beginning of
    the window up to now that is furthest off."""
    seen, wanted = (np.cumsum(one[::-1])[::-1] for one in (k, expected))
    widths = np.arange(len(k), 0, -1).astype(np.float64)
    z, _ = deviation(seen, wanted, baseline.phi, baseline.tau2_of(widths) + baseline.line.variance)
    return int(np.argmax(direction * z))


def critical(alarms_a_week: float, series: int, *, slow: bool = False) -> float:
    """The z that chance exceeds `alarms_a_week` times over that many series: windows of one length
    make about four independent looks for each length of time (they overlap)."""
    week = 7 * A_DAY
    looks = 7.0 * len(SLOW_DAYS) if slow else sum(4.0 * week / width for width in WINDOWS)
    return NormalDist().inv_cdf(1 - min(alarms_a_week / (looks * max(series, 1)), 0.5))


def _flat(k: float, n: float, days: int) -> Baseline | None:
    if n < _LEAST_COUNT:
        return None
    none, line = np.zeros(7), Line(0.0, 0.0, 0.0)
    beyond = (_RARE_TAU2,) * 4
    return Baseline(
        (k + 1) / n, np.ones(HOURS_A_WEEK), line, None, 1.0, beyond, days, _RARE_TAU2, none, none
    )


def _season(
    k: Floats,
    expected: Floats,
    cell: npt.NDArray[np.int64],
    weight: Floats,
    phi: float,
    *,
    days_alike: bool,
) -> Floats:
    """[168], shrunk from the cell to hour of the day times day of the week, and those to one."""
    seen, wanted = (
        np.bincount(cell, weight * one, HOURS_A_WEEK).astype(np.float64) for one in (k, expected)
    )
    grid_k, grid_e = seen.reshape(7, 24), wanted.reshape(7, 24)
    hour = _shrunk(grid_k.sum(axis=0), grid_e.sum(axis=0), phi)
    if days_alike:
        return np.tile(hour, 7)
    day = _shrunk(grid_k.sum(axis=1), (grid_e * hour).sum(axis=1), phi)
    product = np.outer(day, hour)
    own = _shrunk(grid_k.ravel(), (grid_e * product).ravel(), phi)
    season = product.ravel() * own
    total = float((wanted * season).sum())
    return season * (seen.sum() / total) if total > 0 else np.ones(HOURS_A_WEEK)


def _shrunk(seen: Floats, wanted: Floats, phi: float) -> Floats:
    """Ratios of seen by wanted, each drawn to 1 as far as it may be chance (a gamma prior whose
    variance is that of the ratios beyond phi)."""
    held = wanted > 0
    if held.sum() < 2:
        return np.ones(len(seen))
    off = seen[held] / wanted[held] - 1
    own = float(np.average(off**2 - phi / wanted[held], weights=wanted[held]))
    prior = phi / max(own, 1e-8)
    found: Floats = (seen + prior) / (wanted + prior)
    return found


def _line(
    off: Floats, chance: Floats, seen: npt.NDArray[np.bool_], day: int, half_life: float
) -> tuple[Line, Floats]:
    """A robust weighted line through `off` [D], told for `day`, and how much each day counts."""
    x = (np.arange(len(off)) - day).astype(np.float64)
    remembered = 0.5 ** (-x / half_life) * seen
    weight = np.ones(len(off))
    line = Line(float(np.median(off[seen])), 0.0, 0.0)
    scale = max(_spread2(off[seen] - np.median(off[seen])), 1e-12)
    for _ in range(_REWEIGHTED):
        rest = off - line.at - line.slope * x
        z2 = rest**2 / np.maximum(chance, 0.25 * scale)
        weight = np.minimum(1.0, _UNUSUAL**2 / np.maximum(z2, 1e-12))
        precision = remembered * weight / np.maximum(chance, 1e-12)
        by_x = precision * x
        a, b, c = precision.sum(), by_x.sum(), (by_x * x).sum() + (7 / _SLOPE_A_WEEK) ** 2
        p, q = (precision * off).sum(), (by_x * off).sum()
        whole = a * c - b * b
        at, slope = (c * p - b * q) / whole, (a * q - b * p) / whole
        line = Line(float(at), float(slope), float(c / whole))
        scale = max(_spread2(rest[seen]), 1e-12)
    return line, weight


def _slow_line(off: Floats, chance: Floats, seen: npt.NDArray[np.bool_], days: int) -> Line | None:
    before = days - _GUARD_DAYS
    if before < _LEAST_DAYS or seen[:before].sum() < _LEAST_DAYS:
        return None
    # Told for the middle of the week that it is compared with.
    middle = days - SLOW_DAYS[-1] // 2
    line, _ = _line(off[:before], chance[:before], seen[:before], middle, _SLOW_HALF_LIFE)
    return line


def _phi(k: Floats, expected: Floats, k_day: Floats, by_day: Floats, least: float) -> float:
    """Scatter within days: a day's own level is not counted."""
    own = expected * np.repeat(k_day / np.maximum(by_day, 1e-9), 24)
    held = own >= 5
    if held.sum() < 100:
        return least
    z, _ = deviation(k[held], own[held], 1.0, 0.0)
    return max(least, float(np.median(z**2)) * _BY_MEDIAN * 24 / 23)


def _tau2(k: Floats, fitted: Floats, phi: float, width: int, weight: Floats) -> float:
    """Variance of the log ratio of windows of `width` hours beyond what `phi` explains."""
    seen, wanted = (one.reshape(-1, width).sum(axis=1) for one in (k, fitted))
    held = (wanted >= 10) & np.repeat(weight > 0.5, 24 // width)
    if held.sum() < 10:
        return 0.0
    rest = np.log((seen[held] + 0.5) / (wanted[held] + 0.5))
    beyond = _spread2(rest) - float(np.median(phi / wanted[held]))
    return max(beyond, 0.0)


def _spread2(rest: Floats) -> float:
    return float((_BY_MAD * np.median(np.abs(rest - np.median(rest)))) ** 2)
