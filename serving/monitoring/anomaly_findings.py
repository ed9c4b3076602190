"""Alarms as findings that a person can act on: what changed and by how much, in which slices, since
when. Figures of one family that are off together are one finding, and so are slices of which one is
the whole: somebody who is woken up wants to know of one incident, not of eighty series.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from contract.clock import from_us
from contract.reviews import Contribution, Finding
from serving.monitoring import anomaly
from serving.monitoring.anomaly import A_DAY, BUCKETS_AN_HOUR, Floats
from serving.monitoring.anomaly_signals import OPPOSITE, Counters, latency_edge_ms
from serving.monitoring.anomaly_watch import ALL, RIPE_BUCKETS, Looked, Series, Watch, Where
from serving.monitoring.kpi_metrics import METRICS
from serving.monitoring.shop_hours import ShopHours

_LASTING: Final = 0.6  # of the threshold: what is in alarm already stays so until it is below
_QUARTER_US: Final = 900_000_000
_MOST_SLICES: Final = 8
_LEAST_SHARE: Final = 0.1
_IN_ONE: Final = 1.96
_MONEY: Final = frozenset({"order_value", "revenue_per_decision"})


@dataclass(frozen=True)
class Recent:
    """The last two days of every slice by quarter of an hour, [T, C], from `first_us` on; the last
    bucket is whole, and ends at any five minutes. `places` [T]: where in the fit they begin, by the
    shop's clock."""

    slices: Mapping[Where, Counters]
    places: Floats
    first_us: int
    hours: ShopHours

    def at(self, bucket: int) -> datetime:
        """When that bucket begins; that after the last one may be asked too."""
        return from_us(self.first_us + bucket * _QUARTER_US)

    def before_today(self, days: int) -> datetime:
        """When the day that lies so many days before the last bucket's began."""
        last_us = self.first_us + (len(self.places) - 1) * _QUARTER_US
        return from_us(self.hours.midnight_us(last_us, -days))


@dataclass(frozen=True)
class Alarm:
    """A series that is off now: how strongly, by its threshold, over how many buckets, and whether
    days are meant rather than hours."""

    looked: Looked
    strength: float
    window: int
    slow: bool

    @property
    def series(self) -> Series:
        """Which."""
        return self.looked.series


def alarms(watch: Watch, recent: Recent, lasting: Collection[str]) -> list[Alarm]:
    """The incidents of this moment, the strongest of each family first. `lasting`: keys of those
    that there were before."""
    off = [one for each in watch.look(recent.slices, recent.places) if (one := _off(watch, each))]
    kept = [one for one in off if one.strength >= _needed(one, lasting)]
    found = []
    for family in dict.fromkeys(one.series.watched.family for one in kept):
        ranked = sorted(
            (one for one in kept if one.series.watched.family == family),
            key=lambda one: (one.series.key in lasting, one.strength),
            reverse=True,
        )
        whole = [one for one in ranked if one.series.where == ALL]
        found += whole[:1] or _apart(ranked)
    return found


def finding(alarm: Alarm, watch: Watch, recent: Recent, others: Sequence[Alarm] = ()) -> Finding:
    """What is known of `alarm`; `others` are of the same family and time."""
    series, watched = alarm.series, alarm.series.watched
    k, n, expected = series.recent(recent.slices, recent.places)
    end = len(k) - (RIPE_BUCKETS if watched.ripens else 0)
    since = anomaly.since_bucket(series.baseline, k[:end], expected[:end], watched.direction)
    began = recent.at(since)
    if alarm.slow:
        began = recent.before_today(alarm.window // A_DAY)
        seen_k = float(series.baseline.last_k[-(alarm.window // A_DAY) :].sum())
        sure = float(seen_k / math.exp(alarm.looked.slow[1]))
        exposed = float("nan")
    else:
        since = min(since, end - 1)
        seen_k, exposed = float(k[since:end].sum()), float(n[since:end].sum())
        sure = float(expected[since:end].sum())
    width = math.sqrt(_beyond(alarm, end - since) + series.baseline.phi / max(sure, 1e-9))
    said = {"expected": sure, "seen": seen_k}
    said |= {"low": sure * math.exp(-_IN_ONE * width), "high": sure * math.exp(_IN_ONE * width)}
    told = {name: _in_unit(series, value, exposed, sure) for name, value in said.items()}
    if watched.metric in OPPOSITE:
        told["low"], told["high"] = told["high"], told["low"]
    ratio = seen_k / sure if sure else 0.0
    detail: dict[str, Any] = {
        "strength": round(alarm.strength, 2),
        "hours": round((end - since) / BUCKETS_AN_HOUR, 2),
        "also": [one.series.key for one in others if one is not alarm][:_MOST_SLICES],
    }
    if watched.metric == "latency_ms":
        detail["slower_than_ms"] = latency_edge_ms(series.scale)
    return Finding(
        key=series.key,
        source="kpi",
        metric=watched.metric,
        title=_title(series, ratio, slow=alarm.slow),
        slices={} if series.where == ALL else dict([series.where]),
        since=began,
        seen_at=recent.at(len(k)),
        contributions=() if alarm.slow else _contributions(series, watch, recent, since, end),
        detail=detail,
        expected=told["expected"],
        seen=told["seen"],
        low=told["low"],
        high=told["high"],
    )


def related(alarm: Alarm, watch: Watch, recent: Recent) -> list[Alarm]:
    """All series of the family that are off at this moment."""
    looked = watch.look(recent.slices, recent.places)
    off = [one for each in looked if (one := _off(watch, each)) and one.strength >= 1]
    family = alarm.series.watched.family
    held = [one for one in off if one.series.watched.family == family]
    return sorted(held, key=lambda one: -one.strength)


def _off(watch: Watch, looked: Looked) -> Alarm | None:
    fast = float(looked.scan.z[-1]) / watch.critical(looked.series)
    slow = looked.slow[0] / watch.critical_slow
    if max(fast, slow) <= 0:
        return None
    if slow > fast and fast < 1:
        return Alarm(looked, slow, looked.slow[2] * A_DAY, slow=True)
    return Alarm(looked, fast, int(looked.scan.window[-1]), slow=False)


def _needed(alarm: Alarm, lasting: Collection[str]) -> float:
    return _LASTING if alarm.series.key in lasting else 1.0


def _apart(ranked: Sequence[Alarm]) -> list[Alarm]:
    """Of slices those that are of other people: other values of the cut of the strongest one."""
    cut = ranked[0].series.where[0]
    values: dict[Where, Alarm] = {}
    for one in ranked:
        if one.series.where[0] == cut:
            values.setdefault(one.series.where, one)
    return list(values.values()) if cut != "segment" else [ranked[0]]


def _beyond(alarm: Alarm, buckets: int) -> float:
    base = alarm.series.baseline
    if alarm.slow and base.slow is not None:
        return base.tau2[3] + base.slow.variance
    return float(base.tau2_of(np.array([float(buckets)]))[0]) + base.line.variance


def _in_unit(series: Series, k: float, n: float, expected: float) -> float | None:
    """`k` in the unit of the figure; of slow looks, whose exposures are not kept, what it would be
    at the usual rate."""
    watched, base = series.watched, series.baseline
    if watched.by_time:
        return round(k, 1)
    if not math.isfinite(n):
        n = expected / max(base.rate * math.exp(base.line.at), 1e-12)
    if n <= 0 or watched.metric == "latency_ms":
        return None
    value = k / n
    if watched.metric in _MONEY:
        return round(value * series.scale, 2)
    return round(1 - value if watched.metric in OPPOSITE else value, 6)


def _title(series: Series, ratio: float, *, slow: bool) -> str:
    watched = series.watched
    name, where = METRICS[watched.metric].title, ""
    if series.where != ALL:
        cut, value = series.where
        where = f" for {cut} {value[:60]}"
    if watched.metric == "latency_ms":
        edge = latency_edge_ms(series.scale)
        return f"{ratio:.1f} times as many decisions as expected took over {edge:g} ms{where}"
    if watched.metric in OPPOSITE:
        name = (
            "Completed carts" if watched.metric == "abandonment" else "Answers from cheaper rungs"
        )
    if watched.metric == "decisions" and ratio < 0.05:
        return f"Hardly any decisions{where}: the checkout may not ask any more"
    how = f"{abs(1 - ratio):.0%} {'lower' if ratio < 1 else 'higher'} than expected"
    slowly = " over the last days" if slow else ""
    return f"{name}: {how}{slowly}{where}"


def _contributions(
    series: Series, watch: Watch, recent: Recent, since: int, end: int
) -> tuple[Contribution, ...]:
    """How much of what is missing, or too much, each slice has: its own counts against what its own
    baseline expects or, where it has none as a new release, what everybody's does."""
    k, n, expected = series.recent(recent.slices, recent.places)
    gap = float(k[since:end].sum() - expected[since:end].sum())
    if abs(gap) < 1e-9 or series.where != ALL or series.watched.by_time:
        return ()
    usual = float(expected[since:end].sum()) / max(float(n[since:end].sum()), 1e-9)
    own = {one.where: one for one in watch.series if one.watched.metric == series.watched.metric}
    found = []
    for where in recent.slices:
        if where == ALL:
            continue
        held = own.get(where)
        if held is not None:
            part_k, part_n, part_e = held.recent(recent.slices, recent.places)
            seen, wanted = float(part_k[since:end].sum()), float(part_e[since:end].sum())
            scale = held.scale / series.scale
            seen, wanted = seen * scale, wanted * scale
        else:
            whole = recent.slices[ALL]
            part = series.watched.signal(recent.slices[where], whole, series.scale, 1.0)
            seen, part_n = float(part.k[since:end].sum()), part.n
            wanted = usual * float(part_n[since:end].sum())
        share = (seen - wanted) / gap
        exposed = float(part_n[since:end].sum())
        if abs(share) >= _LEAST_SHARE and exposed > 0 and abs(share) < 10:
            found.append((abs(share), where, share, wanted / exposed, seen / exposed))
    scale = series.scale if series.watched.metric in _MONEY else 1.0
    return tuple(
        Contribution(
            dimension=cut,
            value=value[:200],
            share=round(share, 3),
            expected=_plain(series, wanted, scale),
            seen=_plain(series, seen, scale),
        )
        for _, (cut, value), share, wanted, seen in sorted(found, reverse=True)[:_MOST_SLICES]
    )


def _plain(series: Series, rate: float, scale: float) -> float | None:
    if series.watched.metric == "latency_ms":
        return None
    return round(1 - rate if series.watched.metric in OPPOSITE else rate * scale, 6)


def doubt_of(alarm: Alarm) -> timedelta:
    """How far the beginning of an alarm may be off."""
    return timedelta(days=2) if alarm.slow else timedelta(minutes=45)
