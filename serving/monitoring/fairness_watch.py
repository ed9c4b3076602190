"""The worker's duty of watching fairness over time: whether a place or a kind of device is offered
less, or answered less fully, beside all others than in the weeks before. What was fair when it was
audited need not stay so: a new rule, a spent budget or a model can move it.

Read from the daily sums of decisions by what checkouts name themselves; age, income and such are
known to nobody here (`tillwise-train fairness` reads them, for its audit alone). How fair it is at
all is the audit's and the gate's to say; here only what changed is told.

Shapes: D days.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from contract.clock import Clock, from_us, to_us
from contract.reviews import Finding
from serving.monitoring.alarms import WATCHER
from serving.monitoring.kpi_metrics import METRICS
from serving.monitoring.kpis import DAY, KpiReader
from serving.monitoring.what_went_live import went_live
from serving.state.control_store import ControlStore

Floats = npt.NDArray[np.float64]

WEEK_DAYS: Final = 7
BEFORE_DAYS: Final = 28
LEAST_RATIO: Final = 0.8  # of what it was: the four-fifths rule, as the gate has it
LEAST_DECISIONS: Final = 300  # of a group in a week; with fewer it is named by nobody
_LEAST_EVENTS: Final = 30.0  # offers, or full answers, of all groups in either time
_ATTRIBUTES: Final = ("region", "country", "device")
_MEASURES: Final = {"offered": "offered something", "rung_full": "answered in full"}
_UNSURE: Final = 0.01  # of any alarm in a look at which nothing changed


@dataclass(frozen=True)
class Daily:
    """A group's days: how often it happened, [D], of how many decisions, [D]."""

    happened: Floats
    decisions: Floats

    def less(self, other: "Daily") -> "Daily":
        """Everybody but `other`."""
        return Daily(self.happened - other.happened, self.decisions - other.decisions)

    def part(self, days: slice) -> "Daily":
        """Some of the days."""
        return Daily(self.happened[days], self.decisions[days])

    @property
    def rate(self) -> float:
        """How often, over all days; half an event more than there were, so that none at all has a
        logarithm."""
        return float((self.happened.sum() + 0.5) / (self.decisions.sum() + 1.0))

    @property
    def logs(self) -> Floats:
        """[D] the logarithm of each day's rate."""
        told: Floats = np.log((self.happened + 0.5) / (self.decisions + 1.0))
        return told


@dataclass(frozen=True)
class Moved:
    """A group whose ratio to all others moved: `before` to `ratio`."""

    attribute: str
    group: str
    measure: str
    rate: float
    others: float
    ratio: float
    before: float
    decisions: int


def moved(
    groups: Mapping[str, Daily], attribute: str, measure: str, unsure: float
) -> Iterator[Moved]:
    """The groups whose ratio to all others is, in the last week, another than in the days before
    it: by more than `LEAST_RATIO` allows, and by more than chance (`unsure` for each).

    Where one group moves, all others move beside it; so the one that changed most in itself is
    told, and the rest are compared without it.
    """
    left = dict(groups)
    while len(left) > 1:
        found = _moved(left, attribute, measure, unsure)
        if not found:
            return
        most = max(found, key=lambda one: abs(_own_change(left[one.group])))
        yield most
        del left[most.group]


_TIMES: Final = slice(0, BEFORE_DAYS), slice(BEFORE_DAYS, None)


def _moved(groups: Mapping[str, Daily], attribute: str, measure: str, unsure: float) -> list[Moved]:
    days = np.zeros(BEFORE_DAYS + WEEK_DAYS)
    whole = Daily(
        sum((one.happened for one in groups.values()), days),
        sum((one.decisions for one in groups.values()), days),
    )
    if any(whole.part(each).happened.sum() < _LEAST_EVENTS for each in _TIMES):
        return []
    limit = _quantile_of_t(1.0 - unsure / 2, len(days) - 2)
    found = []
    for group, one in groups.items():
        others = whole.less(one)
        parts = [each.part(span) for each in (one, others) for span in _TIMES]
        if any(part.decisions.sum() < LEAST_DECISIONS for part in parts):
            continue
        own_before, own, others_before, others_now = parts
        ratio, before = own.rate / others_now.rate, own_before.rate / others_before.rate
        proven = abs(_change(one.logs - others.logs)) > limit
        if proven and min(ratio / before, before / ratio) < LEAST_RATIO:
            told = (attribute, group, measure, own.rate, others_now.rate, ratio, before)
            found.append(Moved(*told, int(own.decisions.sum())))
    return found


def _own_change(one: Daily) -> float:
    before, week = (one.part(span) for span in _TIMES)
    return log(week.rate / before.rate)


def _change(gap: Floats) -> float:
    """The t statistic of the last week's `gap` [D] to all others against that of the days before.
    Days are the units: people come more than once a day, and a day's weather is everybody's."""
    before, week = gap[:BEFORE_DAYS], gap[BEFORE_DAYS:]
    squares = len(before) * before.var() + len(week) * week.var()
    spread = squares / (len(gap) - 2) * (1 / len(before) + 1 / len(week))
    return float((week.mean() - before.mean()) / max(sqrt(spread), 1e-9))


class FairnessWatch:
    """Looks at the sums in `file` and tells the control store. `releases`: their folder."""

    def __init__(self, file: Path, control: ControlStore, releases: Path, clock: Clock) -> None:
        self._file, self._control, self._releases = file, control, releases
        self._clock = clock

    def look(self) -> list[Finding]:
        """One look; who fell behind or ran ahead. Raises StoreError and sqlite3.Error."""
        if not self._file.is_file():
            return []
        with KpiReader.open(self._file) as kpis:
            found = [self._finding(one) for one in self._moved(kpis)]
        asyncio.run(self._control.note_findings("fairness", found, by=WATCHER))
        return found

    def _moved(self, kpis: KpiReader) -> list[Moved]:
        end_us = to_us(self._clock.now()) // DAY * DAY
        start_us = end_us - (BEFORE_DAYS + WEEK_DAYS) * DAY
        named = {
            attribute: [one.value for one in kpis.slices(attribute) if one.last_us >= start_us]
            for attribute in _ATTRIBUTES
        }
        compared = sum(len(groups) for groups in named.values() if len(groups) > 1)
        unsure = _UNSURE / max(compared * len(_MEASURES), 1)
        found: list[Moved] = []
        for attribute, values in named.items():
            if len(values) < 2:
                continue
            span = from_us(start_us), from_us(end_us)
            sums = {one: kpis.sums(*span, DAY, (attribute, one)) for one in values}
            for measure in _MEASURES:
                of = METRICS[measure].over
                groups = {
                    group: Daily(one.of(of), one.of("decisions")) for group, one in sums.items()
                }
                found += moved(groups, attribute, measure, unsure)
        return found

    def _finding(self, one: Moved) -> Finding:
        now = self._clock.now()
        since = from_us(to_us(now) // DAY * DAY) - timedelta(days=WEEK_DAYS)
        way = "less" if one.ratio < one.before else "more"
        expected = min(one.others * one.before, 1.0)
        return Finding(
            key=f"fairness/{one.measure}/{one.attribute}/{one.group}"[:200],
            source="fairness",
            metric=one.measure,
            title=(
                f"Shoppers of {one.attribute} {one.group} are {_MEASURES[one.measure]} {way} "
                "beside all others than in the four weeks before"
            ),
            slices={one.attribute: one.group},
            expected=round(expected, 4),
            seen=round(one.rate, 4),
            low=round(expected * LEAST_RATIO, 4),
            high=round(min(expected / LEAST_RATIO, 1.0), 4),
            since=since,
            seen_at=now,
            before=went_live(
                *(self._control, self._releases, since, now), timedelta(days=WEEK_DAYS)
            ),
            detail=_detail(one),
        )


def _detail(one: Moved) -> dict[str, JsonValue]:
    return {
        "ratio to all others": round(one.ratio, 4),
        "the same in the four weeks before": round(one.before, 4),
        "all others": round(one.others, 4),
        "decisions of the week": one.decisions,
    }


def _quantile_of_t(share: float, freedom: int) -> float:
    """Of Student's distribution, by the expansion of Cornish and Fisher (Abramowitz and Stegun,
    26.7.5)."""
    z = NormalDist().inv_cdf(share)
    terms: Sequence[float] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1_482 * z**5 - 1_920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))
