"""How the frozen protocol takes a basket apart, for evaluation and for replaying a checkout."""

import hashlib
from collections.abc import Iterable


def hash_order(basket_id: str, item_ids: Iterable[str]) -> list[str]:
    """`item_ids` by sha256(basket:item): the first half is the cart, the rest is to be found."""
    return sorted(
        item_ids, key=lambda item_id: hashlib.sha256(f"{basket_id}:{item_id}".encode()).digest()
    )
