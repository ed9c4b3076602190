"""What one round of `benchmarks.overload` saw, and the verdict over several: cheaper rungs before
refusals, nothing else, quick for those admitted, and soon normal again."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.generator import LAG_LIMIT_MS, Generator, Samples
from benchmarks.http_client import Exchange

MOST_ADMITTED_MS = 100.0
MOST_RECOVERY_SECONDS = 5.0
LEAST_FULL = 0.99
LEAST_CHEAPER = 0.05  # of what is answered under overload: one shed answer is no cheaper rung
NORMAL_MS = 25.0  # what capacity is measured at; after the overload half as much again as before
WINDOW_SECONDS = 0.5
_RUNG = re.compile(rb'"rung":\s*"(\w+)"')
_RETRY_AFTER = re.compile(rb"\r\nretry-after:\s*[1-9]\d*\r\n", re.IGNORECASE)
FULL, CHEAPER, REFUSED, SILENT, BROKEN = "full", "cheaper", "429", "429 without when", "broken"
KINDS = (FULL, CHEAPER, REFUSED, SILENT, BROKEN)


class Sorting(Generator):
    """Counts apart what was answered full, what cheaper, what was refused, and what broke."""

    def _kind(self, exchange: Exchange, status: int, body: bytes) -> str:
        if status == 429:
            return REFUSED if _RETRY_AFTER.search(exchange.head) else SILENT
        if status != 200:
            return BROKEN
        rung = _RUNG.search(body)
        return FULL if rung is not None and rung.group(1) == b"full" else CHEAPER


@dataclass(frozen=True)
class Round:
    """One passage: normal load, overload, and windows of normal load after it."""

    before: Samples
    overload: Samples
    after: Sequence[Samples]
    bare: Samples

    @property
    def admitted(self) -> Samples:
        """What was answered with 200 under overload."""
        kinds = self.overload.kinds
        return kinds.get(FULL, Samples()).merge(kinds.get(CHEAPER, Samples()))

    @property
    def shares(self) -> dict[str, float]:
        """What became of the checkouts under overload: shares of all that were sent."""
        total = max(self.overload.statuses.total(), 1)
        return {kind: counted(self.overload, kind) / total for kind in KINDS}

    @property
    def cheaper_share(self) -> float:
        """Of the checkouts that were answered 200 under overload, those from a cheaper rung."""
        return counted(self.overload, CHEAPER) / max(self.admitted.statuses.total(), 1)

    @property
    def void(self) -> str | None:
        """Why the round says nothing of overload; None where it does."""
        if self.lag_p99_ms > LAG_LIMIT_MS:
            return f"the generator itself lagged, p99 {self.lag_p99_ms:.2f} ms"
        full = counted(self.before, FULL) / max(self.before.statuses.total(), 1)
        p99 = self.before.latencies.milliseconds(99)
        if full < LEAST_FULL or p99 > NORMAL_MS:
            return f"not healthy before: {full:.1%} full, p99 {p99:.1f} ms"
        return None

    @property
    def lag_p99_ms(self) -> float:
        """How late the generator was, in the worse of its parts."""
        return max(self.before.lag_p99_ms, self.overload.lag_p99_ms)

    def recovery_seconds(self) -> float:
        """From the end of the overload to the beginning of the first window from which on all are
        normal; all of the time that was watched when the last one is not."""
        usual_ms = max(NORMAL_MS, 1.5 * self.before.latencies.milliseconds(99))
        normal = [_is_normal(one, usual_ms) for one in self.after]
        bad = [number for number, good in enumerate(normal, 1) if not good]
        return (bad[-1] if bad else 0) * WINDOW_SECONDS


def _is_normal(seen: Samples, usual_ms: float) -> bool:
    total = seen.statuses.total()
    full = counted(seen, FULL)
    enough = full >= LEAST_FULL * total or total - full <= 1  # one in a small window is no share
    return (
        bool(total) and not seen.failed and enough and seen.latencies.milliseconds(99) <= usual_ms
    )


def counted(seen: Samples, kind: str) -> int:
    """How many of `seen` are of `kind`."""
    return seen.kinds[kind].statuses.total() if kind in seen.kinds else 0


@dataclass(frozen=True)
class Verdict:
    """Over some rounds: sums of counts, the least `cheaper_share`, and medians of the rest."""

    errors_5xx: int
    broken: int
    silent: int
    shares: dict[str, float]
    cheaper_share: float
    admitted_p99_ms: float
    recovery_seconds: float

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> "Verdict":
        """At least one round."""
        statuses = [one.overload.statuses for one in rounds]
        return cls(
            sum(n for one in statuses for status, n in one.items() if status >= 500),
            sum(counted(one.overload, BROKEN) for one in rounds),
            sum(counted(one.overload, SILENT) for one in rounds),
            {kind: statistics.median(one.shares[kind] for one in rounds) for kind in KINDS},
            min(one.cheaper_share for one in rounds),
            statistics.median(one.admitted.latencies.milliseconds(99) for one in rounds),
            statistics.median(one.recovery_seconds() for one in rounds),
        )

    def missed(self) -> list[str]:
        """What is demanded and was not reached, in words."""
        found = {
            f"{self.broken} answers neither 200 nor 429": self.broken,
            f"{self.silent} x 429 without Retry-After": self.silent,
            f"{self.cheaper_share:.1%} of the 200s from cheaper rungs, less than "
            f"{LEAST_CHEAPER:.0%}": self.cheaper_share < LEAST_CHEAPER,
            f"p99 of the admitted {self.admitted_p99_ms:.1f} ms, more than "
            f"{MOST_ADMITTED_MS:g}": self.admitted_p99_ms > MOST_ADMITTED_MS,
            f"normal {self.recovery_seconds:g} s after, later than "
            f"{MOST_RECOVERY_SECONDS:g}": self.recovery_seconds > MOST_RECOVERY_SECONDS,
        }
        return [told for told, wrong in found.items() if wrong]
