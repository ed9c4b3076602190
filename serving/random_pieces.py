"""Random bytes, drawn from the system many at a time: to draw them one by one gives the
interpreter's lock away each time, and the event loop has to win it back."""

import os
from uuid import UUID

_BYTES = 16
_AT_ONCE = 256
_left: list[bytes] = []
os.register_at_fork(after_in_child=_left.clear)  # or both would draw the same


def random_piece() -> bytes:
    """16 random bytes that nobody else is given. From any thread."""
    try:
        return _left.pop()
    except IndexError:
        drawn = os.urandom(_BYTES * _AT_ONCE)
        pieces = [drawn[at : at + _BYTES] for at in range(0, len(drawn), _BYTES)]
        last = pieces.pop()
        _left.extend(pieces)
        return last


def random_id() -> UUID:
    """A random UUID, as `uuid4` makes them."""
    return UUID(bytes=random_piece(), version=4)
