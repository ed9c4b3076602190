"""How many decisions may be under way at once. Queueing would only make every one of them late, so
above one limit a decision is answered from a cheaper rung, above the next it is refused."""

import threading
from math import inf
from types import TracebackType
from typing import Self

RETRY_AFTER_S = 1
# Longer than the event loop is ever busy with what is in hand while it keeps up; a tenth of the
# usual deadline, so that what is let in still has its time.
_PATIENCE_S = 0.010
# One pause of the machine is no overload: what waits because of it is over by then.
_PAUSE_S = 0.100


class Overloaded(Exception):  # noqa: N818 - it names what happened
    """Refused without having been looked at; try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__("too many decisions are under way")
        self.retry_after_s = retry_after_s


class Admission:
    """Counts decisions under way. Work that a decision left behind on a thread when its time was up
    still takes that thread, so it keeps the decision's place until it ends."""

    def __init__(self, max_full: int, max_total: int) -> None:
        if not 0 <= max_full <= max_total or max_total < 1:
            raise ValueError(
                f"limits must be 0 <= max_full <= max_total, not {max_full}, {max_total}"
            )
        self.max_full = max_full
        self.max_total = max_total
        self._active = 0
        self._active_full = 0
        self._late_since = self._late_at = -inf  # when requests began to wait, and did last
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

    def is_behind(self, waited_s: float, now: float) -> bool:
        """Whether a request that had to wait so long for its turn should be refused at `now` (a
        perf_counter): there is no place, or the event loop can not keep up, and whatever it begins
        makes everything that it has begun later still. It can not when requests wait although all
        full places are taken, or have been waiting on and on, whatever they were answered."""
        if self._active >= self.max_total:
            return True
        if waited_s <= _PATIENCE_S:
            return False
        if now - self._late_at > _PAUSE_S:
            self._late_since = now
        self._late_at = now
        return self._active >= self.max_full or now - self._late_since > _PAUSE_S

    def enter(self) -> "Place":
        """A place for one decision; raises Overloaded when there is none."""
        with self._lock:
            if self._active >= self.max_total:
                raise Overloaded
            # Cheaper decisions do not count here: however many there are, full ones go on.
            full = self._active_full < self.max_full
            self._active += 1
            self._active_full += full
            return Place(self, full=full)

    def leave(self, *, full: bool) -> None:
        """Called by a Place when nothing holds it any longer."""
        with self._lock:
            self._active -= 1
            self._active_full -= full

    def settled_for_less(self) -> None:
        """Called by a Place whose decision will not use the models after all."""
        with self._lock:
            self._active_full -= 1


class Place:
    """One decision's place, free again when the decision and all work it started have ended."""

    def __init__(self, admission: Admission, *, full: bool) -> None:
        self.full = full
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
            self._admission.leave(full=self.full)

    def settle_for_less(self) -> None:
        """The decision is answered from a cheaper rung: somebody else may use the models."""
        if self.full:
            self.full = False
            self._admission.settled_for_less()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drop()
