"""Stored events for tests, made at random from a seed."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from contract.events import Event, EventItem

BEGIN = datetime(2017, 6, 1, tzinfo=UTC)
NAMES = ("purchase", "purchase", "view_item", "search", "refund", "add_to_cart", "page_view")
PERSONAL = ("analytics", "personalization")


def stored_event(number: int, **changed: Any) -> Event:
    """A purchase of one item by subject 1, told apart by `number`."""
    fields: dict[str, Any] = {
        "event_id": UUID(int=number),
        "event_name": "purchase",
        "occurred_at": BEGIN + timedelta(minutes=number),
        "received_at": BEGIN + timedelta(minutes=number),
        "session_id": f"session-{number}",
        "subject_id": UUID(int=1),
        "purposes": PERSONAL,
        "items": (EventItem(item_id=f"item-{number % 7}"),),
        "transaction_id": f"t-{number}",
    }
    return Event(**(fields | changed))


def random_events(seed: int, count: int, subjects: int = 4) -> list[Event]:
    """Events of several kinds and subjects; times may be equal, some are for counting only."""
    chance = random.Random(seed)
    return [_random_event(chance, number, subjects) for number in range(1, count + 1)]


def _random_event(chance: random.Random, number: int, subjects: int) -> Event:
    name = chance.choice(NAMES)
    items = tuple(
        EventItem(item_id=f"item-{chance.randrange(12)}", quantity=chance.randrange(1, 4))
        for _ in range(chance.randrange(1, 5))
    )
    return stored_event(
        number,
        event_name=name,
        occurred_at=BEGIN + timedelta(minutes=chance.randrange(500)),
        subject_id=UUID(int=1 + chance.randrange(subjects)),
        purposes=PERSONAL if chance.random() < 0.8 else ("analytics",),
        items=items,
        search_term=chance.choice(("oat milk", "bread")) if name == "search" else None,
    )
