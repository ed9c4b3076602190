"""Latencies in an HDR histogram: every one is counted, to three digits, in memory that does not
grow with the load; parts of a run add up exactly, which percentiles of parts never do."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader, HistogramLogWriter

from contract.errors import UserError

PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p99.9_ms": 99.9, "max_ms": 100.0}
_MOST_US = 3_600 * 1_000_000
_DIGITS = 3


class Latencies:
    """How often each latency was seen. What it tells is the upper end of the class that a value
    fell into: at most 0.1 % too much, never too little."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts = HdrHistogram(1, _MOST_US, _DIGITS)
        self.extend(seconds)

    def __len__(self) -> int:
        return int(self._counts.get_total_count())

    def add(self, seconds: float) -> None:
        """Count one."""
        microseconds = min(max(round(seconds * 1e6), 0), _MOST_US - 1)
        self._counts.record_value(microseconds)

    def extend(self, seconds: Iterable[float]) -> None:
        """Count each."""
        for one in seconds:
            self.add(one)

    def merged(self, other: Self) -> "Latencies":
        """Both together."""
        both = Latencies()
        both._counts.add(self._counts)
        both._counts.add(other._counts)
        return both

    def milliseconds(self, percent: float) -> float:
        """The smallest value that is not below `percent` of all; 0 without any."""
        return float(self._counts.get_value_at_percentile(percent)) / 1_000 if len(self) else 0.0

    def percentiles(self) -> dict[str, float]:
        """Milliseconds by the names of `PERCENTILES`."""
        if not len(self):
            return dict.fromkeys(PERCENTILES, 0.0)
        found = self._counts.get_percentile_to_value_dict(list(PERCENTILES.values()))
        return {name: float(found[percent]) / 1_000 for name, percent in PERCENTILES.items()}

    def mean_ms(self) -> float:
        """The mean in milliseconds; 0 without any."""
        return float(self._counts.get_mean_value()) / 1_000 if len(self) else 0.0

    def longer_than(self, seconds: float) -> int:
        """How many took longer."""
        limit = round(seconds * 1e6)
        return sum(
            int(step.count_added_in_this_iter_step)
            for step in self._counts.get_recorded_iterator()
            if step.value_iterated_to > limit
        )


def write_log(path: Path, intervals: Sequence[tuple[float, float, Latencies]]) -> None:
    """Write (begin, end, latencies) of each interval, in seconds since the first, as an HDR
    histogram log, which other tools read; values are microseconds. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            writer = HistogramLogWriter(file)
            writer.output_log_format_version()
            writer.output_comment("latencies in microseconds, from the scheduled time")
            writer.output_legend()
            for begin, end, seen in intervals:
                # A begin of 0 would be taken for "not given".
                writer.output_interval_histogram(seen._counts, begin or 1e-9, end, 1.0)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def read_log(path: Path) -> list[Latencies]:
    """The intervals of a log of `write_log`."""
    reader = HistogramLogReader(str(path), HdrHistogram(1, _MOST_US, _DIGITS))
    found = []
    while (counts := reader.get_next_interval_histogram()) is not None:
        one = Latencies()
        one._counts.add(counts)
        found.append(one)
    reader.close()
    return found
