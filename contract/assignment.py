"""Who gets which variant: a pure function of a salt and a stable id, so that every replica, every
restart and every later analysis agrees without asking anybody."""

import hashlib
from collections.abc import Callable
from struct import Struct

_SCALE = 2**64
_FIRST_64_BITS = Struct(">Q").unpack_from


def place(salt: str, stable_id: str) -> float:
    """Where `stable_id` lies in 0 <= place < 1, evenly over ids and anew for every `salt`.

    The first 64 bits of SHA-256 over salt, a zero byte and id. `salt` holds no zero byte, so two
    different pairs are never hashed as the same text.
    """
    return placer(salt)(as_bytes(stable_id))


def as_bytes(stable_id: str) -> bytes:
    """What is hashed of an id, for those who hash it more than once."""
    return stable_id.encode("utf-8", "surrogatepass")


def placer(salt: str) -> Callable[[bytes], float]:
    """`place` for one salt, which is hashed once: of ids as `as_bytes` has them."""
    begun = hashlib.sha256(as_bytes(f"{salt}\0"))

    def of(content: bytes) -> float:
        hashed = begun.copy()
        hashed.update(content)
        place: int = _FIRST_64_BITS(hashed.digest())[0]
        return place / _SCALE

    return of


def takes_part(salt: str, stable_id: str, percent: float) -> bool:
    """Whether `stable_id` is among the `percent` (0..100) that get the variant named by `salt`.

    Whoever takes part at one percentage does so at every higher one.
    """
    return place(salt, stable_id) * 100 < percent
