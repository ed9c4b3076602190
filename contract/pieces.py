"""Long work in pieces, so that a thread which does it beside checkouts can let them go first. Where
nobody asked for that, the pieces make no difference."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# A loop over so many ids, paths or strings takes well below a millisecond.
SIZE = 512

Pause = Callable[[], None]


class _OfThread(threading.local):
    pause: Pause | None = None


_own = _OfThread()


@contextmanager
def pausing(pause: Pause) -> Iterator[None]:
    """`pause` is called between the pieces of whatever this thread does in the block."""
    before, _own.pause = _own.pause, pause
    try:
        yield
    finally:
        _own.pause = before


def between_pieces() -> None:
    """Here this thread may be held up for others."""
    if _own.pause is not None:
        _own.pause()


def in_pieces(items: Sequence[T]) -> Iterator[T]:
    """`items` in their order, `between_pieces` after each SIZE of them."""
    return iter(items) if _own.pause is None else _paused(items)


def _paused(items: Sequence[T]) -> Iterator[T]:
    for start in range(0, len(items), SIZE):
        yield from items[start : start + SIZE]
        between_pieces()
