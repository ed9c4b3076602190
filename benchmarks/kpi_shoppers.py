"""Events of simulated shoppers for the rollup, in the order of time, made quickly: what they hold
is valid by construction."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from contract.events import SCHEMA_VERSION, Event, EventContext, EventItem, unchecked

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
PER_VISIT: Final = 8  # events of a visit, on average
_ITEMS, _SEGMENTS, _RELEASES = 5_000, 12, 13
_DEVICES = ("mobile", "mobile", "mobile", "desktop", "desktop", "tablet")
_COUNTRIES = ("US", "US", "US", "US", "CA", "MX", "GB", "DE")
_RUNGS = ("full",) * 95 + ("no_ranker",) * 3 + ("session_knn", "popular")
_PURPOSES = ("analytics", "personalization")
_NOTHING: Final = {
    **dict.fromkeys(Event.model_fields),
    "items": (),
    "schema_version": SCHEMA_VERSION,
    "synthetic": True,
    "purposes": _PURPOSES,
}
COSTS: Final = {f"i{n}": 40 + n % 60 for n in range(_ITEMS)}


def batches(
    visits: int, days: int, subjects: int, seed: int, a_batch: int
) -> Iterator[list[tuple[str, Event]]]:
    """Visits spread over `days`, about `a_batch` events at once, each with its subject's name."""
    draw = random.Random(seed)
    items = [EventItem(item_id=f"i{n}", price=100 + n % 900) for n in range(_ITEMS)]
    found: list[tuple[str, Event]] = []
    for number in range(visits):
        at = START + timedelta(days=days) * (number / visits)
        subject = draw.randrange(subjects)
        name = f"{subject:064x}"
        found += [(name, one) for one in _visit(number, subject, at, days, draw, items)]
        if len(found) >= a_batch:
            yield found
            found = []
    if found:
        yield found


def _visit(
    number: int,
    subject: int,
    at: datetime,
    days: int,
    draw: random.Random,
    items: list[EventItem],
) -> Iterator[Event]:
    device, country = draw.choice(_DEVICES), draw.choice(_COUNTRIES)
    shared = {
        **_NOTHING,
        "session_id": f"s{number}",
        "subject_id": UUID(int=subject + 1),
        "context": EventContext(device=device, country=country),  # type: ignore[arg-type]
    }

    def event(name: str, minutes: float, **said: Any) -> Event:
        when = at + timedelta(minutes=minutes)
        told = {"event_name": name, "occurred_at": when, "received_at": when}
        event_id = UUID(int=draw.getrandbits(128))
        return unchecked(Event, shared | told | {"event_id": event_id} | said)

    cart = tuple(draw.sample(items, 3))
    yield event("page_view", 0)
    for place in range(draw.randrange(1, 5)):
        yield event("view_item", place, items=(draw.choice(items),))
    if draw.random() < 0.15:
        return
    for place, one in enumerate(cart):
        yield event("add_to_cart", 5 + place, items=(one,))
    shown = draw.sample(items, 5)
    passed = (at - START) / timedelta(days=days)
    body = {
        "release_id": f"release-{int(passed * _RELEASES):02}",
        "rung": draw.choice(_RUNGS),
        "degraded": [],
        "total_ms": draw.lognormvariate(2.0, 0.4),
        "offers": None,
        "experiments": [{"key": "test", "variant": "new" if subject % 2 else "old"}],
        "segments": [f"segment-{n}" for n in draw.sample(range(_SEGMENTS), 2)],
    }
    yield event("decision", 9, items=tuple(shown), decision=body)
    yield event("begin_checkout", 9.5, items=cart)
    if draw.random() < 0.35:
        bought = (*cart, *(shown[:1] if draw.random() < 0.2 else ()))
        yield event("purchase", 12, items=bought, transaction_id=f"t{number}")
        if draw.random() < 0.03:
            yield event("refund", 600, items=cart[:1], transaction_id=f"t{number}", value=100)
