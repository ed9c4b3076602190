"""Key figures over time, read from the sums that the worker keeps. Whoever watches them, draws them
or exports them reads here; nothing here sees an event or a subject.

A *cut* names what is told apart (`device`), a *value* one of it (`mobile`); `ALL` is everything.
Segments overlap: a visit counts in each of its own. Of regions decisions alone are counted.

    with KpiReader.open(state / FILE) as kpis:
        series = kpis.series("conversion", start, end, grain=HOUR)
        series.value     # [T], nan where nothing happened

T buckets.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from contract.clock import MICROSECONDS, from_us, to_us
from serving.monitoring.kpi_metrics import CLASSES, COUNTERS, EDGES_MS, METRICS, Metric
from serving.state.sqlite_writer import connect

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Cut = Literal["all", "device", "country", "region", "release", "experiment", "segment"]
ALL: Final[tuple[Cut, str]] = ("all", "")
FILE: Final = "rollup.sqlite"  # in the state folder

MINUTES_5: Final = 300 * MICROSECONDS
HOUR: Final = 3_600 * MICROSECONDS
DAY: Final = 24 * HOUR
GRAINS: Final = (MINUTES_5, HOUR, DAY)  # microseconds; all are UTC

# Visits that are younger may still become an order, so their conversion only grows.
UNRIPE_US: Final = 30 * 60 * MICROSECONDS


@dataclass(frozen=True)
class Slice:
    """A value of a cut, and the beginning of the first and the last 5 minutes it was seen in."""

    cut: str
    value: str
    first_us: int
    last_us: int


@dataclass(frozen=True)
class Sums:
    """Counters by bucket: `start_us` [T], every bucket of the range, and `counters` [T, C] in the
    order of COUNTERS, zero where nothing happened."""

    start_us: Times
    counters: Floats

    def of(self, name: str) -> Floats:
        """One counter, [T]."""
        column: Floats = self.counters[:, COUNTERS.index(name)]
        return column

    def series(self, metric: str) -> "Series":
        """One metric of METRICS."""
        known = METRICS[metric]
        if known.quantile is not None:
            at, timed = quantile(self.classes(), known.quantile), self.of("timed")
            return Series(metric, self.start_us, np.where(timed > 0, at, 0.0) * timed, timed)
        over = self.of(known.over) * known.scale
        under = np.ones(len(over)) if known.under is None else self.of(known.under)
        if known.needs is not None and not self.of(known.needs).any():
            under = np.zeros(len(over))
        return Series(metric, self.start_us, over, under)

    def classes(self) -> Floats:
        """Decisions by class of time, [T, EDGES_MS]."""
        first = COUNTERS.index(CLASSES[0])
        found: Floats = self.counters[:, first : first + len(CLASSES)]
        return found

    def total(self) -> "Sums":
        """All of it as one bucket."""
        return Sums(self.start_us[:1], self.counters.sum(axis=0, keepdims=True))


@dataclass(frozen=True)
class Series:
    """A metric by bucket: `start_us`, `numerator` and `denominator`, each [T]. A metric without a
    denominator, as revenue, has ones there. Of a quantile the numerator is it times its count."""

    metric: str
    start_us: Times
    numerator: Floats
    denominator: Floats

    @property
    def value(self) -> Floats:
        """[T], nan where the denominator is 0."""
        empty = self.denominator == 0
        value: Floats = np.where(
            empty, np.nan, self.numerator / np.where(empty, 1, self.denominator)
        )
        return value


class KpiReader:
    """The sums in a file; nothing but reading. From the thread that it is used in."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises FileNotFoundError where no worker has made the file yet."""
        if not path.is_file():
            raise FileNotFoundError(path)
        file = connect(path, read_only=True)
        made = "SELECT 1 FROM sqlite_master WHERE name = 'kpi_sums'"
        if file.execute(made).fetchone() is None:  # at this very moment it is made
            file.close()
            raise FileNotFoundError(path)
        return cls(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def slices(self, cut: str | None = None) -> list[Slice]:
        """What there is, the values that were seen last first; of one cut, or of all."""
        found = self._file.execute(
            "SELECT cut, value, first_us, last_us FROM kpi_slices "
            "WHERE cut = coalesce(?, cut) ORDER BY cut, last_us DESC, value",
            (cut,),
        )
        return [Slice(*row) for row in found]

    def as_of(self) -> datetime | None:
        """When what was counted last happened; None: nothing was."""
        row = self._file.execute("SELECT max(last_us) FROM kpi_slices").fetchone()
        (at,) = self._file.execute("SELECT max(latest_us) FROM kpi_latest").fetchone()
        latest = at if at is not None else row[0]
        return None if latest is None else from_us(int(latest))

    def sums(
        self, start: datetime, end: datetime, grain: int = HOUR, where: tuple[str, str] = ALL
    ) -> Sums:
        """The counters of the buckets of `grain` that begin in `start` .. `end` (rounded down to
        whole buckets, the end not included)."""
        first, last = to_us(start) // grain * grain, to_us(end) // grain * grain
        times: Times = np.arange(first, last, grain, dtype=np.int64)
        counters = np.zeros((len(times), len(COUNTERS)))
        rows = self._file.execute(
            f"SELECT start_us, {', '.join(COUNTERS)} FROM kpi_sums "
            "WHERE grain = ? AND cut = ? AND value = ? AND start_us >= ? AND start_us < ?",
            (grain, *where, first, last),
        ).fetchall()
        if rows:
            found = np.array(rows, dtype=np.float64)
            counters[((found[:, 0] - first) // grain).astype(np.int64)] = found[:, 1:]
        return Sums(times, counters)

    def series(
        self,
        metric: str,
        start: datetime,
        end: datetime,
        *,
        grain: int = HOUR,
        where: tuple[str, str] = ALL,
    ) -> Series:
        """A metric of METRICS over time. Raises KeyError for another name."""
        return self.sums(start, end, grain, where).series(metric)

    def totals(self, start: datetime, end: datetime, where: tuple[str, str] = ALL) -> Sums:
        """All of a range as one bucket, from the coarsest buckets that fit; its edges are rounded
        down to 5 minutes."""
        found = np.zeros(len(COUNTERS))
        columns = ", ".join(f"total({name})" for name in COUNTERS)
        begin, until = (to_us(one) // MINUTES_5 * MINUTES_5 for one in (start, end))
        for grain, first, last in _tiles(begin, until):
            row = self._file.execute(
                f"SELECT {columns} FROM kpi_sums "
                "WHERE grain = ? AND cut = ? AND value = ? AND start_us >= ? AND start_us < ?",
                (grain, *where, first, last),
            ).fetchone()
            found += np.array(row, dtype=np.float64)
        return Sums(np.array([begin], dtype=np.int64), found.reshape(1, -1))


def _tiles(
    first: int, last: int, grains: Sequence[int] = (DAY, HOUR, MINUTES_5)
) -> list[tuple[int, int, int]]:
    """(grain, from, to) that cover a range, whole days inside, hours around them, 5 minutes at the
    edges."""
    if first >= last or not grains:
        return []
    grain, *finer = grains
    begin, stop = -(-first // grain) * grain, last // grain * grain
    if begin >= stop:
        return _tiles(first, last, finer)
    return [*_tiles(first, begin, finer), (grain, begin, stop), *_tiles(stop, last, finer)]


def quantile(classes: Floats, share: float) -> Floats:
    """Milliseconds below which `share` of the decisions lie, [T], of their counts by class
    [T, EDGES_MS], linear within a class. 0 where there are none; of the last class its lower edge.
    """
    edges = np.array([0.0, *EDGES_MS])
    edges[-1] = edges[-2]
    upto = classes.cumsum(axis=1)
    wanted = share * upto[:, -1:]
    place = np.minimum((upto < wanted).sum(axis=1), classes.shape[1] - 1)
    row = np.arange(len(classes))
    inside = classes[row, place]
    before = upto[row, place] - inside
    part = np.where(inside > 0, (wanted[:, 0] - before) / np.where(inside > 0, inside, 1), 0.0)
    found: Floats = edges[place] + part * (edges[place + 1] - edges[place])
    return np.where(upto[:, -1] > 0, found, 0.0)


def chosen(metrics: Sequence[str]) -> Mapping[str, Metric]:
    """Those of METRICS, all of them where none is named. Raises KeyError."""
    return {name: METRICS[name] for name in metrics} if metrics else METRICS
