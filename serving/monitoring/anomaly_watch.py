"""All key figures of a shop under watch: a baseline for each figure of each slice, fitted once a
day, and the last hours looked at as often as somebody likes. The threshold is that of all series
together, so that a shop with many slices has no more false alarms than one with few.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from serving.monitoring import anomaly
from serving.monitoring.anomaly import A_DAY, BUCKETS_AN_HOUR, Baseline, Floats, Scan
from serving.monitoring.anomaly_signals import WATCHED, Counters, Watched

Kind = TypeVar("Kind", bound="np.generic[Any]")
Where = tuple[str, str]  # cut and value
ALL: Final[Where] = ("all", "")
# False alarms that all series together may raise in a week, in the looks at hours and at days; half
# of the first is the whole shop's, which has most to lose and the least chance in it.
FAST_A_WEEK, SLOW_A_WEEK = 0.6, 0.1
_WORSE: Final = 2.0  # deviations
RIPE_BUCKETS: Final = 2  # half an hour


@dataclass(frozen=True)
class Series:
    """One figure of one slice, and what is usual for it."""

    watched: Watched
    where: Where
    scale: float
    baseline: Baseline

    @property
    def key(self) -> str:
        """What its alarm is called."""
        cut, value = self.where
        return self.watched.metric if cut == "all" else f"{self.watched.metric}/{cut}={value}"[:200]

    def recent(
        self, slices: Mapping[Where, Counters], places: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """k, n and expected k of buckets at `places` of the fit, [T] each. A slice of which nothing
        was seen is there with nothing in it."""
        whole = slices[ALL]
        own = slices.get(self.where)
        own = np.zeros_like(whole) if own is None else own
        hours = 1 / BUCKETS_AN_HOUR
        signal = self.watched.signal(own, whole, self.scale, self.baseline.phi, hours)
        return signal.k, signal.n, self.baseline.expected(signal.n, places)


@dataclass(frozen=True)
class Looked:
    """What a look at a series has shown: of every bucket, and of the last whole days (z, log ratio,
    days). A bucket's place is that at whose end it was known."""

    series: Series
    scan: Scan
    slow: tuple[float, float, int]


class Watch:
    """Baselines of a day, and the thresholds for them."""

    def __init__(self, series: tuple[Series, ...], of: int = 0) -> None:
        """`of`: how many series there are in all, where these are some of them."""
        self.series = series
        self._by_key = {(one.watched.metric, one.where): one for one in series}
        whole, all_of_them = sum(one.where == ALL for one in series), max(len(series), of)
        half = FAST_A_WEEK / 2
        self._whole = anomaly.critical(half, whole)
        self._slices = anomaly.critical(half, all_of_them - whole)
        self._slow = anomaly.critical(SLOW_A_WEEK, all_of_them, slow=True)

    @classmethod
    def fitted(cls, hours: Mapping[Where, Counters], lasted: float | Floats = 1.0) -> "Watch":
        """From counters by hour, [H, C] for each slice, all from the same midnight on and to the
        end of the last whole day. `lasted` [H]: how many hours each was, where clocks changed."""
        found = []
        whole = hours[ALL]
        for where, own in hours.items():
            for watched in WATCHED.values():
                if where != ALL and where[0] not in watched.cuts:
                    continue
                scale = watched.scaled(own)
                signal = watched.signal(own, whole, scale, watched.phi(own, scale), lasted)
                baseline = anomaly.fit(signal, rare=watched.rare)
                if baseline is not None:
                    found.append(Series(watched, where, scale, baseline))
        return cls(tuple(found))

    def critical(self, series: Series) -> float:
        """The z from which on hours of a series are an alarm."""
        return self._whole if series.where == ALL else self._slices

    @property
    def critical_slow(self) -> float:
        """The same of days."""
        return self._slow

    def look(self, slices: Mapping[Where, Counters], places: Floats) -> list[Looked]:
        """At buckets [T, C] of each slice, which begin at `places` [T]: quarters of an hour by the
        shop's clock from the first hour of the fit on."""
        looked = []
        counts = {
            (one.watched.metric, one.where): one.recent(slices, places) for one in self.series
        }
        day = np.floor(places / A_DAY)
        midnight = np.searchsorted(day, day)
        for one in self.series:
            watched = one.watched
            k, _, expected = counts[watched.metric, one.where]
            scan = anomaly.scan(
                one.baseline, k, expected, watched.direction, watched.least, midnight
            )
            slow = anomaly.slow_look(one.baseline, watched.direction, watched.least)
            excuse = self._by_key.get((watched.excused_by or "", one.where))
            if excuse is not None:
                better_k, _, better = counts[excuse.watched.metric, excuse.where]
                scan = _excused(scan, excuse.baseline, better_k, better)
                if anomaly.slow_look(excuse.baseline, -1, 0.0)[0] < _WORSE:
                    slow = (0.0, 0.0, 0)
            if watched.ripens:
                scan = Scan(_later(scan.z), _later(scan.log_ratio), _later(scan.window))
            looked.append(Looked(one, scan, slow))
        return looked


def _excused(scan: Scan, baseline: Baseline, k: Floats, expected: Floats) -> Scan:
    """Without the windows in which the figure of `k` is not clearly worse."""
    sums_k, sums_e = (np.concatenate([[0.0], np.cumsum(one)]) for one in (k, expected))
    end = np.arange(1, len(k) + 1)
    begin = end - scan.window
    beyond = baseline.tau2_of(scan.window.astype(np.float64)) + baseline.line.variance
    seen, wanted = sums_k[end] - sums_k[begin], sums_e[end] - sums_e[begin]
    z, _ = anomaly.deviation(seen, wanted, baseline.phi, beyond)
    return Scan(np.where(z <= -_WORSE, scan.z, 0.0), scan.log_ratio, scan.window)


def by_hour(buckets: Counters) -> Counters:
    """Counters by hour of those by quarter of an hour, [T, C]."""
    found: Counters = buckets.reshape(-1, BUCKETS_AN_HOUR, buckets.shape[1]).sum(axis=1)
    return found


def _later(found: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
    """What is known of each bucket only once its visits are ripe."""
    held = np.zeros_like(found)
    held[RIPE_BUCKETS:] = found[:-RIPE_BUCKETS]
    return held
