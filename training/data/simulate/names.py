"""The random ids under which shoppers, visits and events appear."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from training.data.simulate.draws import Generator

_DASHES = (8, 13, 18, 23)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class Names:
    """UUIDs as text. Shapes: N shoppers with a trace, S visits."""

    subjects: pa.Array  # [N]
    sessions: pa.Array  # [S]
    transactions: pa.Array  # [S]


def name_all(rng: Generator, num_shoppers: int, num_visits: int) -> Names:
    """Random ids for shoppers and visits."""
    return Names(uuids(rng, num_shoppers), uuids(rng, num_visits), uuids(rng, num_visits))


def uuids(rng: Generator, size: int) -> pa.Array:
    """`size` version 4 UUIDs as text."""
    octets = rng.integers(0, 256, (size, 16), dtype=np.uint8)
    octets[:, 6] = octets[:, 6] & 0x0F | 0x40
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    digits = _HEX[np.stack([octets >> 4, octets & 0x0F], axis=2).reshape(size, 32)]
    text = np.full((size, 36), ord("-"), np.uint8)
    text[:, [place for place in range(36) if place not in _DASHES]] = digits
    offsets = np.arange(size + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(size, pa.py_buffer(offsets), pa.py_buffer(text))
