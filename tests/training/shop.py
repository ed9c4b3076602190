"""A small shop with real structure: favourites of a kind that repeat, pairs, and a few staples.
Enough for every model to learn something in seconds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pyarrow as pa

from contract.frames import EVENT_SCHEMA
from training.data.storage import events_writer, write_catalogue, write_split, write_subjects

NUM_ITEMS, NUM_SHOPPERS, NUM_DAYS = 80, 60, 120
START = datetime(2024, 1, 1, tzinfo=UTC)
WINDOW = {"validate_from": "2024-04-01", "train_until": "2024-04-10", "test_until": "2024-04-30"}


def item_id(number: int) -> str:
    return f"item-{number:03d}"


def subject_id(number: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"shopper-{number}"))


def build_shop(folder: Path, seed: int = 0) -> Path:
    """Write events, catalogue, subjects and split into `folder` and return it."""
    rng = np.random.default_rng(seed)
    rows = []
    for shopper in range(NUM_SHOPPERS):
        kinds = rng.choice(8, 2, replace=False)  # narrow categories repeat every eight items
        shelf = [number for number in range(NUM_ITEMS) if number % 8 in kinds]
        favourites = rng.choice(shelf, 6, replace=False)
        for visit in range(24):
            day = 5 * visit + int(rng.integers(0, 4))
            basket = set(rng.choice(favourites, 3, replace=False).tolist())
            anchor = int(rng.integers(0, NUM_ITEMS // 2)) * 2
            basket |= {anchor, anchor + 1}  # even and odd neighbours are bought together
            basket |= {int(rng.integers(0, 5))}  # staples
            at = START + timedelta(days=day, hours=int(rng.integers(8, 20)), minutes=shopper)
            rows.append(_purchase(shopper, visit, at, sorted(basket)))
    rows.sort(key=lambda row: row["occurred_at"])
    with events_writer(folder) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA))
    write_catalogue(pa.Table.from_pylist([_item(number) for number in range(NUM_ITEMS)]), folder)
    write_subjects(
        [f"shopper-{number}" for number in range(NUM_SHOPPERS)],
        [subject_id(number) for number in range(NUM_SHOPPERS)],
        folder,
    )
    write_split(folder, WINDOW)
    return folder


def _purchase(shopper: int, visit: int, at: datetime, basket: list[int]) -> dict[str, Any]:
    name = f"{shopper}-{visit}"
    items = [
        {"item_id": item_id(number), "quantity": 1, "price": 100 + number, "index": None}
        for number in basket
    ]
    return {
        "schema_version": 1,
        "event_id": str(uuid5(NAMESPACE_URL, name)),
        "event_name": "purchase",
        "occurred_at": at,
        "received_at": at,
        "subject_id": subject_id(shopper),
        "session_id": name,
        "purposes": ["analytics", "personalization"],
        "items": items,
        "value": sum(100 + number for number in basket),
        "currency": "USD",
        "transaction_id": name,
        "context": {"device": "mobile", "country": "US", "region": None, "timezone": "UTC"},
        "synthetic": True,
    }


def _item(number: int) -> dict[str, Any]:
    kind = ("tea", "bread", "soap", "fruit")[number % 4]
    return {
        "item_id": item_id(number),
        "title": f"{kind.title()} {number}",
        "brand": f"brand-{number % 7}",
        "category_path": ["shop", kind, f"{kind}-{number % 8}"],
        "text": f"{kind} number {number}",
        "price": 100 + number,
        "currency": "USD",
        "available": True,
        "regions": [],
        "synthetic": True,
    }
