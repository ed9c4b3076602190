"""Shoppers for the demo: their first baskets after a release was trained, which it never saw, cut
into a cart and the rest exactly as the basket-completion protocol does it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import UserError
from contract.held_out import hash_order
from serving.api.demo_page import STRANGER, DemoItem, DemoShopper, Shelf
from serving.commands.parquet import read_columns

_COLUMNS = ("event_name", "subject_id", "session_id", "occurred_at", "items")
_KNOWN = 5
_SIZES = range(8, 17)  # baskets that fit on a page
_AGREED = {"personalization": True, "analytics": True, "offers": True}
_REFUSED = {"personalization": False, "analytics": False, "offers": False}


def choose_shoppers(
    source: Path, after: datetime, shelf: Shelf, is_known: Callable[[str], bool]
) -> list[DemoShopper]:
    """A handful of shoppers of the import in `source`, always the same ones for one import, and one
    who is new to the shop and agreed to nothing. Visitors whom the shop does not know any more,
    because they were erased, are passed over. Raises UserError when there is none."""
    visitors = _visitors(source / "subjects.parquet")
    chosen: list[DemoShopper] = []
    for subject_id, event in _first_baskets(source, after):
        if subject_id not in visitors or not is_known(visitors[subject_id]):
            continue
        items = {line["item_id"]: shelf.item(line["item_id"]) for line in event["items"]}
        cart, rest = split(event["session_id"], [name for name, item in items.items() if item])
        if len(cart) + len(rest) not in _SIZES:
            continue
        lines, bought = _items(items, cart), _items(items, rest)
        chosen.append(_shopper(visitors[subject_id], event["session_id"], lines, bought))
        if len(chosen) > _KNOWN:
            break
    if not chosen:
        raise UserError(f"{source} holds no basket after {after:%Y-%m-%d} of a known shopper")
    return [*chosen[:_KNOWN], _stranger(chosen[-1])]


def split(basket_id: str, item_ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cart and rest of a basket: by SHA-256 of basket and item, the first half, rounded down."""
    ordered = hash_order(basket_id, item_ids)
    half = len(ordered) // 2
    return ordered[:half], ordered[half:]


def _visitors(file: Path) -> dict[str, str]:
    table = read_columns(file, ("subject_id", "visitor_id"))
    return dict(zip(table["subject_id"].to_pylist(), table["visitor_id"].to_pylist(), strict=True))


def _first_baskets(source: Path, after: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every subject's first purchase from `after` on; the subjects in the order of a digest."""
    files = sorted((source / "events").glob("*.parquet"))
    parts = [read_columns(path, _COLUMNS) for path in files]
    table = pa.concat_tables(
        part.filter(
            pc.and_(
                pc.greater_equal(part["occurred_at"], pa.scalar(after)),
                pc.equal(part["event_name"], "purchase"),
            )
        )
        for part in parts
    )
    table = table.sort_by([("occurred_at", "ascending"), ("session_id", "ascending")])
    first: dict[str, int] = {}
    for row, subject_id in enumerate(table["subject_id"].to_pylist()):
        first.setdefault(subject_id, row)
    for subject_id in sorted(first, key=lambda one: hashlib.sha256(one.encode()).hexdigest()):
        yield subject_id, table.slice(first[subject_id], 1).to_pylist()[0]


def _items(items: dict[str, DemoItem | None], names: list[str]) -> tuple[DemoItem, ...]:
    return tuple(item for name in names if (item := items[name]) is not None)


def _shopper(
    visitor_id: str, session_id: str, cart: tuple[DemoItem, ...], rest: tuple[DemoItem, ...]
) -> DemoShopper:
    label = visitor_id.replace("-", " ").capitalize()
    return DemoShopper(
        visitor_id=visitor_id,
        label=f"{label}, known here",
        session_id=session_id,
        consent=_AGREED,
        cart=cart,
        bought_too=rest,
    )


def _stranger(like: DemoShopper) -> DemoShopper:
    """Somebody nobody knows, with the cart of a real basket."""
    return like.model_copy(
        update={
            "visitor_id": STRANGER,
            "label": "Somebody new, who agreed to nothing",
            "consent": _REFUSED,
        }
    )
