"""Who gets which variant: a pure function of a salt and a stable id, so that every replica, every
restart and every later analysis agrees without asking anybody."""

import hashlib

_SCALE = 2**64


def place(salt: str, stable_id: str) -> float:
    """Where `stable_id` lies in 0 <= place < 1, evenly over ids and anew for every `salt`.

    The first 64 bits of SHA-256 over salt, a zero byte and id. `salt` holds no zero byte, so two
    different pairs are never hashed as the same text.
    """
    content = f"{salt}\0{stable_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / _SCALE


def takes_part(salt: str, stable_id: str, percent: float) -> bool:
    """Whether `stable_id` is among the `percent` (0..100) that get the variant named by `salt`.

    Whoever takes part at one percentage does so at every higher one.
    """
    return place(salt, stable_id) * 100 < percent
