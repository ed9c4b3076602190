"""Who comes to the demo, when and with what: real baskets from the days after the release was
trained, which it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from serving.api.demo_page import Shelf
from serving.commands.held_out import split
from serving.commands.parquet import read_columns

_COLUMNS = ("event_name", "subject_id", "session_id", "occurred_at", "items")
_MOST_LINES = 12


@dataclass(frozen=True)
class Basket:
    """A visit: who, when, what is in the cart and what the rest of the basket held."""

    visitor_id: str
    session_id: str
    at: datetime
    cart: tuple[str, ...]
    rest: frozenset[str]


def baskets(
    source: Path, after: datetime, shelf: Shelf, passed_over: Sequence[str], most: int
) -> list[Basket]:
    """The first `most` baskets after `after`, in the order of time."""
    table = read_columns(source / "subjects.parquet", ("subject_id", "visitor_id"))
    visitors = dict(
        zip(table["subject_id"].to_pylist(), table["visitor_id"].to_pylist(), strict=True)
    )
    late = pa.scalar(after)
    parts = []
    for path in sorted((source / "events").glob("*.parquet")):
        part = read_columns(path, _COLUMNS)
        kept = pc.and_(
            pc.greater_equal(part["occurred_at"], late), pc.equal(part["event_name"], "purchase")
        )
        parts.append(part.filter(kept))
    events = pa.concat_tables(parts).sort_by(
        [("occurred_at", "ascending"), ("session_id", "ascending")]
    )
    found: list[Basket] = []
    left_out = set(passed_over)
    for event in events.to_pylist():
        visitor = visitors.get(event["subject_id"])
        if visitor is None or visitor in left_out:
            continue
        names = [line["item_id"] for line in event["items"] if shelf.item(line["item_id"])]
        cart, rest = split(event["session_id"], list(dict.fromkeys(names)))
        if cart and rest:
            at = event["occurred_at"].replace(tzinfo=event["occurred_at"].tzinfo or UTC)
            found.append(
                Basket(visitor, event["session_id"], at, tuple(cart[:_MOST_LINES]), frozenset(rest))
            )
        if len(found) == most:
            break
    return found
