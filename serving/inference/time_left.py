"""The time that the work under way has left, carried beside it, so that a model server is told when
its answer comes too late to be of use. Whoever sets a limit says so once; nothing in between passes
it on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ends_at: ContextVar[float | None] = ContextVar("tillwise_ends_at", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block, and whatever it calls or starts, has `seconds` from now, or less if an outer block
    ends sooner. This only tells: to end the work is the caller's part."""
    ends_at, outer = time.monotonic() + seconds, _ends_at.get()
    token = _ends_at.set(ends_at if outer is None else min(ends_at, outer))
    try:
        yield
    finally:
        _ends_at.reset(token)


def time_left() -> float | None:
    """Seconds left, never below zero; None where nobody set a limit."""
    ends_at = _ends_at.get()
    return None if ends_at is None else max(ends_at - time.monotonic(), 0.0)
