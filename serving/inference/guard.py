"""The guard: whether a release that was just promoted, or is on trial, does worse than the one that
it replaces or stands beside, over a sliding window of their latest decisions.

It says worse only where the difference matters to a shop and is more than chance would bring: the
threshold alone would roll back for one unlucky decision in a quiet hour, the test alone for a
difference that nobody minds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from contract.drift import excess, psi

Measure = Literal["errors", "latency", "rung", "score"]
MEASURES: tuple[Measure, ...] = ("errors", "latency", "rung", "score")
_CAPACITY = 16_384  # decisions that a window remembers at most
_PERCENTILE = 99.0


@dataclass(frozen=True)
class GuardLimits:
    """How much worse a release may be. Shares are fractions 0..1."""

    window_s: float = 600.0
    min_decisions: int = 300  # of each of the two, before anything is said
    watch_s: float = 1_800.0  # how long a promoted release is compared with the one before
    error_share: float = 0.01  # more decisions with a failed stage than the other's, at most
    p99_ratio: float = 1.5  # one in a hundred may take longer than the other's p99 times this
    full_share: float = 0.05  # fewer decisions on the rung `full`, at most
    score_psi: float = 0.25  # drift of the best suggestion's lead
    standard_errors: float = 4.0  # how far beyond chance a difference must be


@dataclass(frozen=True)
class Comparison:
    """One measure of both: `base` and `trial` as shares, seconds or an index; whether it is bad."""

    measure: Measure
    base: float
    trial: float
    bad: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Recent:
    """Decisions of one release, [n] each, oldest first."""

    seconds: npt.NDArray[np.float64]
    failed: npt.NDArray[np.bool_]
    full: npt.NDArray[np.bool_]
    lead: npt.NDArray[np.float64]  # NaN where the ranker did not answer

    def __len__(self) -> int:
        return len(self.seconds)


class Window:
    """The latest decisions of one release; adding one costs a microsecond."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._at = np.full(capacity, -np.inf)
        self._seconds = np.zeros(capacity)
        self._failed = np.zeros(capacity, bool)
        self._full = np.zeros(capacity, bool)
        self._lead = np.full(capacity, np.nan)
        self._next = 0

    def add(self, at: float, seconds: float, lead: float, *, failed: bool, full: bool) -> None:
        """A decision ended at `at`; `lead` NaN where the ranker did not answer."""
        place = self._next % len(self._at)
        self._at[place], self._seconds[place], self._lead[place] = at, seconds, lead
        self._failed[place], self._full[place] = failed, full
        self._next += 1

    def since(self, at: float) -> Recent:
        """Those that ended at `at` or later, as far as they are remembered."""
        held = min(self._next, len(self._at))
        order = (np.arange(held) + self._next - held) % len(self._at)
        order = order[self._at[order] >= at]
        columns: list[Any] = [self._seconds, self._failed, self._full, self._lead]
        return Recent(*(column[order] for column in columns))


def compare(base: Recent, trial: Recent, limits: GuardLimits) -> list[Comparison]:
    """Every measure; none where either has too few decisions to say anything."""
    if min(len(base), len(trial)) < limits.min_decisions:
        return []
    return [
        _errors(base, trial, limits),
        _latency(base, trial, limits),
        _rung(base, trial, limits),
        *_score(base, trial, limits),
    ]


def _errors(base: Recent, trial: Recent, limits: GuardLimits) -> Comparison:
    was, now = float(base.failed.mean()), float(trial.failed.mean())
    beyond = excess(int(trial.failed.sum()), len(trial), int(base.failed.sum()), len(base))
    bad = now - was > limits.error_share and beyond > limits.standard_errors
    said = f"{now:.1%} of its decisions had a failed stage, {was:.1%} of the other's"
    return Comparison("errors", was, now, bad, said)


def _latency(base: Recent, trial: Recent, limits: GuardLimits) -> Comparison:
    """A p99 of a few hundred decisions is one decision; how many lie beyond a bound is not."""
    was, now = (float(np.percentile(one.seconds, _PERCENTILE)) for one in (base, trial))
    bound = was * limits.p99_ratio
    slow, slow_before = (int(np.count_nonzero(one.seconds > bound)) for one in (trial, base))
    # The other's own share beyond its p99 is what a sound release may have.
    allowed = max(slow_before, round(len(base) * (1 - _PERCENTILE / 100)))
    bad = now > bound and excess(slow, len(trial), allowed, len(base)) > limits.standard_errors
    said = f"p99 {now * 1_000:.1f} ms, the other's {was * 1_000:.1f} ms"
    return Comparison("latency", was, now, bad, said)


def _rung(base: Recent, trial: Recent, limits: GuardLimits) -> Comparison:
    was, now = float(base.full.mean()), float(trial.full.mean())
    beyond = excess(int((~trial.full).sum()), len(trial), int((~base.full).sum()), len(base))
    bad = was - now > limits.full_share and beyond > limits.standard_errors
    said = f"{now:.1%} of its decisions were on rung full, {was:.1%} of the other's"
    return Comparison("rung", was, now, bad, said)


def _score(base: Recent, trial: Recent, limits: GuardLimits) -> list[Comparison]:
    was, now = (one.lead[np.isfinite(one.lead)] for one in (base, trial))
    if min(len(was), len(now)) < limits.min_decisions:
        return []
    found = psi(was, now)
    medians = float(np.median(was)), float(np.median(now))
    said = (
        f"its scores drifted: PSI {found:.2f}, median lead {medians[1]:.3g} after {medians[0]:.3g}"
    )
    return [Comparison("score", 0.0, found, found > limits.score_psi, said)]


class Guard:
    """The windows of the releases that matter now, and what they say. Used from one event loop."""

    def __init__(
        self,
        limits: GuardLimits = GuardLimits(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._monotonic = monotonic
        self._windows: dict[str, Window] = {}
        self._before: tuple[str, Recent, float] | None = None  # of what was promoted, until when

    def add(
        self, release_id: str, seconds: float, lead: float, *, failed: bool, full: bool
    ) -> None:
        """A decision with `release_id` ended."""
        window = self._windows.get(release_id)
        if window is not None:  # else: the last ones of a release that is gone
            window.add(self._monotonic(), seconds, lead, failed=failed, full=full)

    def follow(self, live: str, candidate: str | None) -> None:
        """Whose decisions matter from now on."""
        wanted = (live, *([] if candidate is None else [candidate]))
        self._windows = {name: self._windows.get(name) or Window() for name in wanted}

    def promoted(self, old: str, new: str) -> None:
        """`new` took the place of `old`, whose last decisions it will be compared with. What `new`
        did on trial before does not count: only few saw it, and they are the same few."""
        now = self._monotonic()
        window = self._windows.get(old)
        if window is not None:
            recent = window.since(now - self.limits.window_s)
            self._before = (new, recent, now + self.limits.watch_s)
        self._windows[new] = Window()

    def watched(self, live: str) -> bool:
        """Whether `live` is still compared with what was live before it."""
        before = self._before
        return before is not None and before[0] == live and self._monotonic() < before[2]

    def about_live(self, live: str) -> list[Comparison]:
        """The live release against the one before it, while it is watched."""
        if self._before is None or not self.watched(live):
            return []
        return compare(self._before[1], self._recent(live), self.limits)

    def about_candidate(self, live: str, candidate: str) -> list[Comparison]:
        """The release on trial against the live one in the same time."""
        return compare(self._recent(live), self._recent(candidate), self.limits)

    def _recent(self, release_id: str) -> Recent:
        window = self._windows.get(release_id) or Window(1)
        return window.since(self._monotonic() - self.limits.window_s)
