"""A circuit breaker: a model that keeps failing is left alone for a while, so that every checkout
does not spend its time on finding out again."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class BreakerSettings:
    """When to stop asking and for how long."""

    failures: int = 5  # in a row
    cool_off_s: float = 5.0
    # A time-out counts against the model only if it had at least this long: callers with a tiny
    # deadline must not be able to switch the model off for everybody else.
    fair_ms: float = 20.0


class Breaker:
    """Closed (asks), open (does not) or, after the cool-off, letting one request try.

    Used from the event loop and from the threads that compute, so that every change is made under
    a lock. `monotonic` is in seconds.
    """

    def __init__(
        self,
        settings: BreakerSettings = BreakerSettings(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0
        self._trying = False
        self._answered_at = monotonic()

    @property
    def is_open(self) -> bool:
        """Whether requests are kept away, the one that tries excepted."""
        return self._failures >= self.settings.failures

    def allows(self) -> bool:
        """Whether to ask now. After a yes, `succeeded`, `failed` or `abandoned` must follow."""
        if not self.is_open:  # what nearly every question finds, and one number to read
            return True
        with self._lock:
            if not self.is_open:  # by now
                return True
            if self._trying or self._monotonic() < self._open_until:
                return False
            self._trying = True
            return True

    def succeeded(self) -> None:
        """The model answered."""
        with self._lock:
            self._failures, self._trying = 0, False
            self._answered_at = self._monotonic()

    def failed(self) -> None:
        """The model failed, or took too long."""
        with self._lock:
            self._failed()

    def late(self, waited_ms: float, *, crowded: bool) -> None:
        """The model did not answer within `waited_ms`. Where requests queue (`crowded`) that is the
        load's doing, unless nobody has had an answer for as long as a cool-off."""
        with self._lock:
            silent_s = self._monotonic() - self._answered_at
            queued = crowded and silent_s < self.settings.cool_off_s
            if waited_ms < self.settings.fair_ms or queued:
                self._trying = False
            else:
                self._failed()

    def abandoned(self) -> None:
        """The question was withdrawn: this says nothing about the model."""
        with self._lock:
            self._trying = False

    def _failed(self) -> None:
        self._failures, self._trying = self._failures + 1, False
        if self.is_open:
            self._open_until = self._monotonic() + self.settings.cool_off_s
