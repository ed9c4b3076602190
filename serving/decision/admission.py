"""How many decisions may be under way at once. Queueing would only make every one of them late, so
above one limit a decision is answered from a cheaper rung, above the next it is refused."""

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Self

from serving.decision.messages import DEFAULT_DEADLINE_MS

RETRY_AFTER_S = 1
# Shares of the usual deadline that a request may wait for its turn. An answer takes some turns of
# the loop, each about as long as the wait for the first was.
_PATIENCE = 0.1  # more is late: longer than the loop is busy with what is in hand while it keeps up
_CROWDED = 0.2  # more leaves no time for an answer where all full places are taken
_HOPELESS = 0.5  # more leaves none at all, whatever the loop is busy with
# One pause of the machine is no overload: what waits because of it is over by then.
_PAUSE_S = 0.050
# Fewer decisions at once do not keep a loop from its turns; something else does, and to refuse
# them would not help it.
_FEW = 8
# A cheaper answer is expected to be given within this share of the usual deadline, or it is refused
# while that costs next to nothing; the rest is for reading it, writing it, and being wrong.
_CHEAPER_ROOM = 0.28
_SOME = 5  # so few are answered whatever the last ones took: one bad moment must refuse nobody
_FIRST_CHEAPER_S = 0.002
_FIRST_DEADLINE_S = DEFAULT_DEADLINE_MS / 1_000
_NEWEST = 0.1  # what the latest one counts in a moving mean


class Overloaded(Exception):  # noqa: N818 - it names what happened
    """Refused without having been looked at; try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__("too many decisions are under way")
        self.retry_after_s = retry_after_s


class Admission:
    """Counts decisions under way. Work that a decision left behind on a thread when its time was up
    still takes that thread, so it keeps the decision's place until it ends."""

    def __init__(
        self,
        max_full: int,
        max_total: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not 0 <= max_full <= max_total or max_total < 1:
            raise ValueError(
                f"limits must be 0 <= max_full <= max_total, not {max_full}, {max_total}"
            )
        self.max_full = max_full
        self.max_total = max_total
        self._active = 0
        self._active_full = 0
        self._late_since = self._late_at = -inf  # when requests began to be late, and were last
        self._usual_s = _FIRST_DEADLINE_S  # a moving mean of what is asked
        # A moving mean of what a cheaper answer takes for each one that it has to wait for, itself
        # included: where they come one by one, the time between two of them.
        self._cheaper_s = _FIRST_CHEAPER_S
        self._clock = clock
        self._lock = threading.Lock()  # threads give places back

    @property
    def active(self) -> int:
        """Decisions under way, those included that were answered but left work behind."""
        return self._active

    @property
    def crowded(self) -> bool:
        """Whether all places of full decisions are taken, so that whatever is late may have queued
        behind others."""
        return self._active_full >= self.max_full

    def note_deadline(self, deadline_ms: float) -> None:
        """A decision was asked for within this time."""
        self._usual_s += _NEWEST * (deadline_ms / 1_000 - self._usual_s)

    def note_wait(self, waited_s: float, now: float) -> None:
        """A request whose caller is known had to wait so long for its turn, until `now` (a
        perf_counter)."""
        if waited_s <= _PATIENCE * self._usual_s:
            return
        if now - self._late_at > _PAUSE_S:
            self._late_since = now
        self._late_at = now

    def keeps_late(self, now: float) -> bool:
        """Whether requests have been late on and on, whatever they were answered: the event loop
        can not keep up, and whatever it begins makes all that it has begun later still."""
        return now - self._late_at <= _PAUSE_S < now - self._late_since

    def is_behind(self, waited_s: float, now: float, waiting: int = 0) -> bool:
        """Whether a request that had to wait so long for its turn should be refused at `now`, while
        `waiting` others wait for theirs: there is no place, or it would not be answered in time.
        Being late alone is no reason, it only calls for cheaper rungs: decisions must be what the
        loop is late with, or the time must be as good as over. Changes nothing."""
        if self._active >= self.max_total:
            return True
        cheaper = self._active_full >= self.max_full or self.keeps_late(now)
        if cheaper and self.is_crowded_out(waited_s):
            return True
        share = waited_s / self._usual_s
        if share <= _PATIENCE:
            return False
        crowded = self._active >= self.max_full
        if not self.keeps_late(now):
            return crowded and share > _CROWDED
        many = self._active + waiting >= min(self.max_full, _FEW)
        return crowded or many or share > _HOPELESS

    def is_crowded_out(self, spent_s: float, *, beside: int = 0) -> bool:
        """Whether a cheaper answer to a request that came `spent_s` ago would be too late, behind
        those under way but for `beside` of them."""
        before = self._active - self._active_full - beside
        expected_s = spent_s + (before + 1) * self._cheaper_s
        return before >= _SOME and expected_s > _CHEAPER_ROOM * self._usual_s

    def enter(self, *, full: bool = True, spent_s: float = 0.0) -> "Place":
        """A place for one decision that came `spent_s` ago, one that may use the models if there is
        such a place and `full`; raises Overloaded when there is none at all, or only one for a
        cheaper answer that would be too late."""
        with self._lock:
            if self._active >= self.max_total:
                raise Overloaded
            # Cheaper decisions do not count here: however many there are, full ones go on.
            full = full and self._active_full < self.max_full
            if not full and self.is_crowded_out(spent_s):
                raise Overloaded
            self._active += 1
            self._active_full += full
            return Place(self, self._active - self._active_full, self._clock(), full=full)

    def leave(self, place: "Place") -> None:
        """Called by a Place when nothing holds it any longer."""
        with self._lock:
            self._active -= 1
            self._active_full -= place.full
            if place.cheaper_before:
                # What hangs says how long it hangs, not how long an answer takes.
                took_s = min(self._clock() - place.began, self._usual_s)
                each_s = took_s / place.cheaper_before
                self._cheaper_s += _NEWEST * (each_s - self._cheaper_s)

    def settled_for_less(self) -> None:
        """Called by a Place whose decision will not use the models after all."""
        with self._lock:
            self._active_full -= 1


class Place:
    """One decision's place, free again when the decision and all work it started have ended.
    `cheaper_before`: of one that began as a cheaper one, how many such there were then with it."""

    def __init__(
        self, admission: Admission, cheaper_before: int, began: float, *, full: bool
    ) -> None:
        self.full = full
        self.cheaper_before = 0 if full else cheaper_before
        self.began = began
        self._admission = admission
        self._holders = 1
        self._lock = threading.Lock()

    def hold(self) -> None:
        """One more piece of work needs the place."""
        with self._lock:
            self._holders += 1

    def drop(self) -> None:
        """A piece of work has ended."""
        with self._lock:
            self._holders -= 1
            free = self._holders == 0
        if free:
            self._admission.leave(self)

    def settle_for_less(self) -> None:
        """The decision is answered from a cheaper rung: somebody else may use the models."""
        if self.full:
            self.full = False
            self._admission.settled_for_less()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.drop()
