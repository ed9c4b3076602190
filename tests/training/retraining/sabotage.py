"""Ways in which fresh events go bad, each as a change to a table of events. `start` is the moment
the fresh window begins."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.frames import EVENT_SCHEMA
from training.data.storage import (
    CHECKOUTS_SCHEMA,
    EVENTS_FOLDER,
    events_writer,
    read_events,
    write_parquet,
)

Sabotage = Callable[[Path, datetime], None]
Made = Callable[[dict[str, Any], int, str, bool], dict[str, Any]]


def poisoned_labels(folder: Path, start: datetime) -> None:
    """In the week before the window and in it baskets are dealt out anew: everybody is said to have
    bought what somebody else did."""
    _each(folder, start - timedelta(days=7), _dealt_anew)


def empty_week(folder: Path, start: datetime) -> None:
    """The feed of purchases breaks off as the window begins; pages are still seen."""
    events = read_events(folder)
    fresh = pc.greater_equal(events["occurred_at"], pa.scalar(start))
    names = pc.if_else(fresh, "page_view", events["event_name"])
    _written(folder, _with(events, event_name=names))


def shifted_features(folder: Path, start: datetime) -> None:
    """Prices come in other units, and clocks in another zone."""

    def shifted(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["items"] = [{**one, "price": (one["price"] or 0) * 100} for one in row["items"]]
            row["value"] = (row["value"] or 0) * 100

    _each(folder, start, shifted)


def leaked_target(folder: Path, start: datetime) -> None:
    """Views are filled in from orders: each shopper has looked, a second before, at what they then
    bought, as was found out an hour later."""
    events, views = read_events(folder), []
    for row in events.filter(pc.equal(events["event_name"], "purchase")).to_pylist():
        at = row["occurred_at"] - timedelta(seconds=1)
        views += [
            {
                **row,
                "event_id": str(uuid5(NAMESPACE_URL, f"{row['event_id']}-{place}")),
                "event_name": "view_item",
                "occurred_at": at,
                "received_at": row["received_at"] + timedelta(hours=1),
                "items": [one],
                "transaction_id": None,
                "value": None,
            }
            for place, one in enumerate(row["items"])
        ]
    _written(folder, pa.concat_tables([events, pa.Table.from_pylist(views, schema=EVENT_SCHEMA)]))


def broken_tokenisation(folder: Path, start: datetime) -> None:
    """Ids went through a spreadsheet: a fifth of them end in `.0`."""

    def broken(rows: list[dict[str, Any]]) -> None:
        for place, row in enumerate(rows):
            row["items"] = [
                {**one, "item_id": f"{one['item_id']}.0"} if (place + at) % 5 == 0 else one
                for at, one in enumerate(row["items"])
            ]

    _each(folder, start, broken)


def unfair_offers(folder: Path, start: datetime) -> None:
    """A log of checkouts in the window: who lives in the west is offered half as much."""
    rows = _unfair(read_events(folder), start, _checkout)
    table = pa.Table.from_pylist(rows, schema=CHECKOUTS_SCHEMA)
    write_parquet(table, folder / "checkouts.parquet")


def unfair_export(folder: Path, start: datetime) -> None:
    """The same in an export of a gateway, whose decisions stand in its events."""
    events = read_events(folder)
    made = pa.Table.from_pylist(_unfair(events, start, _decision), schema=EVENT_SCHEMA)
    _written(folder, pa.concat_tables([events, made]))


SABOTAGES: dict[str, tuple[Sabotage, str]] = {
    "poisoned labels": (poisoned_labels, "drift"),
    "empty week": (empty_week, "data_health"),
    "shifted features": (shifted_features, "drift"),
    "leaked target": (leaked_target, "leakage"),
    "broken tokenisation of ids": (broken_tokenisation, "data_health"),
    "unfair offer policy": (unfair_offers, "fairness"),
    "unfair offer policy of an export": (unfair_export, "fairness"),
}


def copied(folder: Path, to: Path) -> Path:
    """A folder of events with its catalogue, to be spoilt."""
    (to / EVENTS_FOLDER).mkdir(parents=True)
    for path in sorted(folder.glob("events/*.parquet")):
        pq.write_table(pq.read_table(path), to / EVENTS_FOLDER / path.name)
    (to / "catalogue.parquet").write_bytes((folder / "catalogue.parquet").read_bytes())
    return to


def _unfair(events: pa.Table, start: datetime, made: Made) -> list[dict[str, Any]]:
    """Three rows that `made` makes of each purchase from `start` on."""
    fresh = events.filter(pc.field("occurred_at") >= pa.scalar(start))
    rng, rows = np.random.default_rng(0), []
    for row in fresh.filter(pc.field("event_name") == "purchase").to_pylist():
        west = int(row["subject_id"][:8], 16) % 2 == 0
        for number in range(3):
            offered = rng.random() < (0.3 if west else 0.6)
            rows.append(made(row, number, "west" if west else "east", offered))
    return rows


def _each(folder: Path, start: datetime, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the purchases from `start` on."""
    events = read_events(folder)
    marked = pc.and_(
        pc.greater_equal(events["occurred_at"], pa.scalar(start)),
        pc.equal(events["event_name"], "purchase"),
    )
    rows = events.filter(marked).to_pylist()
    change(rows)
    changed = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    _written(folder, pa.concat_tables([events.filter(pc.invert(marked)), changed]))


def _dealt_anew(rows: list[dict[str, Any]]) -> None:
    order = np.random.default_rng(0).permutation(len(rows))
    dealt = [rows[place]["items"] for place in order]
    for row, items in zip(rows, dealt, strict=True):
        row["items"] = items


def _checkout(row: dict[str, Any], number: int, region: str, offered: bool) -> dict[str, Any]:
    return {
        "session_id": f"{row['session_id']}-{number}",
        "subject_id": row["subject_id"],
        "decided_at": row["occurred_at"],
        "context": {**(row["context"] or {}), "region": region},
        "items": row["items"],
        "value": row["value"] or 0,
        "margin": (row["value"] or 0) // 3,
        "arms": ["none", "ten"],
        "propensities": [0.5, 0.5],
        "reductions": [0, 100],
        "arm": "ten" if offered else "none",
        "purchased": True,
        "payment_methods": [],
        "shipping_options": [],
    }


def _decision(row: dict[str, Any], number: int, region: str, offered: bool) -> dict[str, Any]:
    """A policy that is sure of what it does: nothing in it is chance."""
    ten = {
        "offer_id": "ten",
        "amount": 100,
        "discount": {"kind": "percent", "percent": 10.0},
        "propensity": float(offered),
        "shown": offered,
    }
    offers = {"no_offer_propensity": 1.0 - offered, "value": 1_000, "margin": 300, "arms": [ten]}
    return {
        **row,
        "event_id": str(uuid5(NAMESPACE_URL, f"{row['event_id']}-decision-{number}")),
        "event_name": "decision",
        "session_id": f"{row['session_id']}-{number}",
        "purposes": ["analytics", "offers", "personalization"],
        "context": {**(row["context"] or {}), "region": region},
        "items": [],
        "value": None,
        "transaction_id": None,
        "decision": json.dumps({"cart": [], "offers": offers}),
    }


def _with(events: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        place = events.column_names.index(name)
        events = events.set_column(place, EVENT_SCHEMA.field(name), values)
    return events


def _written(folder: Path, events: pa.Table) -> None:
    with events_writer(folder) as writer:
        writer.write(events.sort_by([("occurred_at", "ascending"), ("event_id", "ascending")]))
