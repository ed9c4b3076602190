"""The events, logs and shops that the contract's tests are made of."""

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st

from contract.clock import to_us
from contract.events import FEEDBACK_CODE, NEEDS_ITEMS, Event, EventItem
from contract.features import Feature
from contract.frames import EVENT_SCHEMA, EventFrame, event_row, explode
from contract.rows import Rows

PROVE = bool(os.environ.get("TILLWISE_PROVE"))
many = settings(max_examples=1_000 if PROVE else 50, deadline=None)

BEGIN = datetime(2017, 11, 20, tzinfo=UTC)
ITEM_IDS = ("milk", "bread", "eggs", "soap", "tea")
PERSONAL = ("analytics", "personalization")
NAMES = (
    *("purchase", "purchase", "refund", "view_item", "add_to_cart", "click", "search", "hover"),
    *("select_item", "view_promotion", "select_promotion", "feedback"),
    *("remove_from_cart", "begin_checkout"),
)


def on_day(day: float) -> datetime:
    """`day` days after `BEGIN`."""
    return BEGIN + timedelta(days=day)


def us(day: float) -> int:
    return to_us(on_day(day))


def event(
    number: int,
    name: str = "purchase",
    *,
    day: float = 0.0,
    items: Iterable[str | tuple[str, int] | EventItem] = ("milk",),
    **changed: Any,
) -> Event:
    """Event `number` of subject 1; an item is an id, or an id with its quantity."""
    lines = tuple(_line(line) for line in items)
    fields: dict[str, Any] = {
        "event_id": UUID(int=number),
        "event_name": name,
        "occurred_at": on_day(day),
        "received_at": on_day(day),
        "session_id": "session-1",
        "subject_id": UUID(int=1),
        "purposes": PERSONAL,
        "items": lines,
        "transaction_id": f"t-{number}" if name in {"purchase", "refund"} else None,
    }
    return Event(**(fields | changed))


def _line(line: str | tuple[str, int] | EventItem) -> EventItem:
    if isinstance(line, EventItem):
        return line
    item_id, quantity = (line, 1) if isinstance(line, str) else line
    return EventItem(item_id=item_id, quantity=quantity)


@st.composite
def _events(draw: st.DrawFn, number: int) -> Event:
    name = draw(st.sampled_from(NAMES))
    lines = st.builds(
        EventItem,
        item_id=st.sampled_from(ITEM_IDS),
        quantity=st.integers(1, 3),
        price=st.sampled_from((None, 0, 150, 10**12)),
        item_category=st.sampled_from((None, "", "FOOD/DAIRY", "HOME/BATH")),
    )
    said = draw(st.sampled_from((None, *FEEDBACK_CODE))) if name == "feedback" else None
    least = int(name in NEEDS_ITEMS or said is not None)
    items = draw(st.lists(lines, min_size=least, max_size=5))
    return event(
        number,
        name,
        day=draw(st.integers(0, 4)) / 8,  # few moments, so that many events share one
        items=tuple(items),
        value=draw(st.sampled_from((None, None, 0, 100, 1_000))),
        currency=draw(st.sampled_from((None, "USD", "USD", "EUR"))),
        coupon=draw(st.sampled_from((None, None, "", "SAVE10"))),
        transaction_id=draw(st.sampled_from(("t-1", "t-2", f"t-{number}"))),
        subject_id=UUID(int=draw(st.integers(1, 2))),
        session_id=draw(st.sampled_from(("session-1", "session-2"))),
        purposes=draw(st.sampled_from((PERSONAL, PERSONAL, PERSONAL, ("analytics",)))),
        feedback=said,
        search_term=draw(st.sampled_from(("oat milk", "a b c d e f g h i j", "!", None))),
    )


@st.composite
def logs(draw: st.DrawFn, max_size: int = 10) -> list[Event]:
    """Distinct events of two subjects; many at the same moment, some without items or consent."""
    return [draw(_events(number)) for number in range(1, 1 + draw(st.integers(0, max_size)))]


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """A log, and the same events in another order with some of them twice or more."""
    log = draw(logs())
    repeated = draw(st.lists(st.sampled_from(log), max_size=4)) if log else []
    return log, draw(st.permutations(log + repeated))


def folded(feature: Feature, events: Iterable[Event]) -> Rows:
    """The state after `events`, one `update` after the other."""
    state = feature.nothing
    for one in events:
        state = feature.update(state, one)
    return state


def frame_of(events: Sequence[Event]) -> EventFrame:
    return explode(pa.Table.from_pylist([event_row(one) for one in events], EVENT_SCHEMA))


def same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    """Equal to the byte; the rows of the contract have no padding between their fields."""
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()
