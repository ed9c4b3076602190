"""Random event logs, and what the ETL must make of them, in plain Python."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.encoding import FIRST_ITEM, OOV
from contract.events import EVENT_TYPE
from contract.frames import EVENT_SCHEMA
from training.data.etl import By

Event = dict[str, Any]
NAMES = ("view_item", "add_to_cart", "page_view", "purchase", "search")
START = datetime(2024, 3, 30, 22, tzinfo=UTC)  # clocks change in this night, where clocks do


def random_events(chance: Random, size: int) -> list[Event]:
    """Few subjects, sessions, items and times, so that everything happens twice."""
    return [
        event(
            event_id=f"event-{n:04d}",
            event_name=chance.choice(NAMES),
            occurred_at=START
            + timedelta(minutes=chance.choice((0, 1, 30, 31, 61, 200)))
            # Gaps of 30 minutes and one microsecond are away, those of 30 minutes are not.
            + timedelta(hours=chance.randrange(3), microseconds=chance.randrange(2)),
            subject_id=f"subject-{chance.randrange(3)}",
            session_id=f"session-{chance.randrange(2)}",
            purposes=chance.choice((["analytics", "personalization"], ["personalization"], ["x"])),
            search_term=chance.choice((None, "red shoes", "hat")),
            items=[f"item-{chance.randrange(6)}" for _ in range(chance.randrange(3))],
        )
        for n in chance.sample(range(size), size)
    ]


def event(**told: Any) -> Event:
    """An event of EVENT_SCHEMA; `items` are ids."""
    items = [{"item_id": i, "quantity": 1, "price": None, "index": None} for i in told["items"]]
    return {"schema_version": 1, "received_at": told["occurred_at"]} | told | {"items": items}


def write(folder: Path, events: list[Event], parts: int = 2) -> Path:
    """`events` as an import in `parts` files."""
    (folder / "events").mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        table = pa.Table.from_pylist(events[part::parts], EVENT_SCHEMA)
        pq.write_table(table, folder / "events" / f"part-{part}.parquet")
    return folder


def expected(
    events: list[Event], by: By, names: tuple[str, ...] | None, min_item_count: int
) -> tuple[list[str], dict[tuple[Any, ...], list[tuple[int, int, datetime]]]]:
    """The vocabulary's ids, and by key the (item, event_type, occurred_at) in order."""
    units = defaultdict(list)
    for one in events:
        if "personalization" in one["purposes"]:
            session = (one["session_id"],) if by == "session" else ()
            units[(one["subject_id"], *session)].append(one)
    held: dict[tuple[Any, ...], list[tuple[str, int, datetime]]] = defaultdict(list)
    for unit, its_events in units.items():
        part, before = 0, None
        for one in sorted(its_events, key=lambda e: (e["occurred_at"], e["event_id"])):
            if before and one["occurred_at"] - before > timedelta(minutes=30):
                part += 1
            before = one["occurred_at"]
            if names is None or one["event_name"] in names:
                key = (*unit, part) if by == "session" else unit
                held[key] += [
                    (item["item_id"], EVENT_TYPE[one["event_name"]], one["occurred_at"])
                    for item in one["items"]
                ]
    held = {key: rows for key, rows in held.items() if rows}
    count: dict[str, int] = defaultdict(int)
    for rows in held.values():
        for item_id in {row[0] for row in rows}:
            count[item_id] += 1
    ids = sorted((i for i in count if count[i] >= min_item_count), key=lambda i: (-count[i], i))
    index = {item_id: FIRST_ITEM + place for place, item_id in enumerate(ids)}
    return ids, {
        key: [(index.get(row[0], OOV), row[1], row[2]) for row in held[key]] for key in sorted(held)
    }
