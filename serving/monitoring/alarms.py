"""The worker's duty of watching: key figures of the last weeks are fitted once a day, the last
hours looked at every few minutes, and what is found becomes review items."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Gauge

from contract.clock import Clock, from_us, to_us
from contract.reviews import Finding
from serving.monitoring import anomaly_findings
from serving.monitoring.anomaly import BUCKETS_AN_HOUR
from serving.monitoring.anomaly_findings import Recent
from serving.monitoring.anomaly_signals import Counters
from serving.monitoring.anomaly_watch import ALL, Watch, Where
from serving.monitoring.kpis import DAY, HOUR, MINUTES_5, KpiReader, Times
from serving.monitoring.shop_hours import ShopHours
from serving.monitoring.what_went_live import went_live
from serving.state.audit import Actor
from serving.state.control_store import ControlStore

log = logging.getLogger(__name__)

WATCHER: Final = Actor("worker", "worker")
LEARNED_DAYS: Final = 56
_LEAST_DAYS: Final = 15
_QUARTER_US: Final = 3 * MINUTES_5
_ON_ITS_WAY_US: Final = MINUTES_5 // 5
_MOST_OF_A_CUT: Final = 12
_CUTS: Final = frozenset({"device", "country", "segment", "experiment"})


@dataclass(frozen=True)
class _Fitted:
    day_us: int
    origin_us: int
    watch: Watch


class KpiAlarms:
    """Looks at the sums in `file` and tells the control store. `releases`: their folder. Hours of
    the day and days of the week are those of `hours`."""

    def __init__(
        self,
        file: Path,
        control: ControlStore,
        releases: Path,
        clock: Clock,
        registry: CollectorRegistry | None = None,
        hours: ShopHours | None = None,
    ) -> None:
        self._file, self._control, self._releases = file, control, releases
        self._clock, self._hours = clock, hours or ShopHours()
        self._fitted: _Fitted | None = None
        self._open: Gauge | None = None
        self._series: Gauge | None = None
        if registry is not None:
            self._open = Gauge("tillwise_alarms", "Incidents seen now", registry=registry)
            self._series = Gauge("tillwise_alarm_series", "Series watched", registry=registry)

    def look(self) -> list[Finding]:
        """One look; what is off at this moment. Raises StoreError and sqlite3.Error."""
        if not self._file.is_file():
            return []
        with KpiReader.open(self._file) as kpis:
            found = self._found(kpis)
        asyncio.run(self._control.note_findings("kpi", found, by=WATCHER))
        if self._open is not None:
            self._open.set(len(found))
        return found

    def _found(self, kpis: KpiReader) -> list[Finding]:
        as_of = kpis.as_of()
        if as_of is None:
            return []
        # Up to now, not to the last event: that nothing comes any more is what may be wrong. What
        # was done in the last minute may still be on its way.
        end_us = (to_us(self._clock.now()) - _ON_ITS_WAY_US) // MINUTES_5 * MINUTES_5
        watch = self._watch(kpis, end_us)
        if watch is None:
            return []
        # Whole quarters of an hour up to now: half of what is new in a drop's first half hour would
        # wait for the clock's.
        first_us = self._hours.midnight_us(watch.day_us, -1) + (end_us - watch.day_us) % _QUARTER_US
        fitted = (one.where for one in watch.watch.series)
        slices = {
            where: _quarters(kpis, first_us, end_us, where)
            for where in dict.fromkeys((*_latest(kpis, first_us), *fitted))
        }
        begins: Times = np.arange(first_us, end_us, _QUARTER_US, dtype=np.int64)
        places = self._hours.places(begins, watch.origin_us) * BUCKETS_AN_HOUR
        recent = Recent(slices, places, first_us, self._hours)
        lasting = {
            one.finding.key
            for state in ("open", "acknowledged", "closed")
            for one in self._control.reviews(state)
            if one.ended_at is None and one.finding.source == "kpi"
        }
        told = []
        for alarm in anomaly_findings.alarms(watch.watch, recent, lasting):
            others = anomaly_findings.related(alarm, watch.watch, recent)
            made = anomaly_findings.finding(alarm, watch.watch, recent, others)
            before = went_live(
                *(self._control, self._releases, made.since, made.seen_at),
                anomaly_findings.doubt_of(alarm),
            )
            told.append(made.model_copy(update={"before": before}))
        return told

    def _watch(self, kpis: KpiReader, end_us: int) -> _Fitted | None:
        hours = self._hours
        day_us = hours.midnight_us(end_us - 1)
        if self._fitted is not None and self._fitted.day_us == day_us:
            return self._fitted
        began = [one.first_us for one in kpis.slices("all")]
        if not began:
            return None
        # From the first whole day on.
        first_us = hours.midnight_us(min(began) - 1, 1)
        origin_us = max(first_us, hours.midnight_us(day_us, -LEARNED_DAYS))
        days = hours.days_between(origin_us, day_us)
        if days < _LEAST_DAYS:
            return None
        span, grain = (from_us(origin_us), from_us(day_us)), hours.grain_of(origin_us, day_us)
        found = {
            where: hours.by_hour(kpis.sums(*span, grain, where), grain, days)
            for where in _largest(kpis, day_us - 2 * DAY)
        }
        counters = {where: own for where, (own, _) in found.items()}
        self._fitted = _Fitted(day_us, origin_us, Watch.fitted(counters, found[ALL][1]))
        if self._series is not None:
            self._series.set(len(self._fitted.watch.series))
        return self._fitted


def _latest(kpis: KpiReader, since_us: int) -> list[Where]:
    """The whole shop, and of each cut the values that were seen last."""
    by_cut = _seen(kpis, since_us).values()
    return [ALL, *(one for values in by_cut for one in values[:_MOST_OF_A_CUT])]


def _largest(kpis: KpiReader, since_us: int) -> list[Where]:
    """The whole shop, and of each cut the values with the most decisions since then."""
    found, span = [ALL], (from_us(since_us), from_us(since_us + 3 * DAY))
    for values in _seen(kpis, since_us).values():
        if len(values) > _MOST_OF_A_CUT:
            size = {one: kpis.sums(*span, HOUR, one).of("decisions").sum() for one in values}
            values.sort(key=lambda one: -size[one])
        found += values[:_MOST_OF_A_CUT]
    return found


def _seen(kpis: KpiReader, since_us: int) -> dict[str, list[Where]]:
    found: dict[str, list[Where]] = {}
    for one in kpis.slices():
        if one.cut in (*_CUTS, "release") and one.last_us >= since_us:
            found.setdefault(one.cut, []).append((one.cut, one.value))
    return found


def _quarters(kpis: KpiReader, first_us: int, end_us: int, where: Where) -> Counters:
    sums = kpis.sums(from_us(first_us), from_us(end_us), MINUTES_5, where).counters
    found: Counters = sums.reshape(-1, 3, sums.shape[1]).sum(axis=1)
    return found
