"""Labels are what was kept: an item that came back was not bought, for models and tables alike."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from contract.errors import UserError
from contract.frames import EVENT_SCHEMA
from training.data.baskets import Baskets, read_baskets

DAY = datetime(2024, 3, 1, tzinfo=UTC)


def _event(name: str, order: str, items: dict[str, int], days: int = 0) -> dict[str, Any]:
    return {
        "event_id": f"{name}-{order}-{days}",
        "event_name": name,
        "occurred_at": DAY + timedelta(days=days),
        "received_at": DAY + timedelta(days=days),
        "subject_id": "s",
        "session_id": order,
        "purposes": ["personalization"],
        "transaction_id": order,
        "items": [{"item_id": one, "quantity": count} for one, count in items.items()],
    }


def _held(*rows: dict[str, Any]) -> Baskets:
    return read_baskets(pa.Table.from_pylist(list(rows), schema=EVENT_SCHEMA))


def _told(found: Baskets) -> dict[str, list[str]]:
    return {
        name: [found.item_ids[one] for one in found.item[found.offsets[n] : found.offsets[n + 1]]]
        for n, name in enumerate(found.basket_id)
    }


ORDERS = (
    _event("purchase", "one", {"tea": 2, "soap": 1}),
    _event("purchase", "two", {"tea": 1, "bread": 1}, days=1),
    _event("purchase", "three", {"bread": 1}, days=2),
)


def test_an_item_that_came_back_in_full_is_no_label() -> None:
    assert _told(_held(*ORDERS)) == {
        "one": ["soap", "tea"],
        "two": ["bread", "tea"],
        "three": ["bread"],
    }
    found = _held(
        *ORDERS,
        _event("refund", "one", {"tea": 1, "soap": 1}, days=3),  # one of two teas is kept
        _event("refund", "two", {"tea": 1}, days=3),  # of this order, not of the first
        _event("refund", "three", {"bread": 1}, days=4),
    )
    assert _told(found) == {"one": ["tea"], "two": ["bread"]}
    assert len(found) == len(found.contexts) == len(found.subject) == 2
    assert found.offsets.tolist() == [0, 1, 2]
    more = _event("refund", "one", {"tea": 1}, days=5)
    twice = _held(*ORDERS, _event("refund", "one", {"tea": 1}, days=3), more)
    assert _told(twice)["one"] == ["soap"]


def test_a_refund_that_names_no_item_is_of_the_whole_order_or_of_an_amount() -> None:
    whole = {"two": ["bread", "tea"], "three": ["bread"]}
    assert _told(_held(*ORDERS, _event("refund", "one", {}, days=3))) == whole
    paid = [ORDERS[0] | {"value": 500}, *ORDERS[1:]]
    parts = [_event("refund", "one", {}, days=day) | {"value": 250} for day in (3, 4)]
    assert len(_held(*paid, parts[0])) == 3
    assert _told(_held(*paid, *parts)) == whole


def test_a_shop_where_everything_came_back_has_nothing_to_learn_from() -> None:
    with pytest.raises(UserError, match="given back"):
        _held(ORDERS[2], _event("refund", "three", {"bread": 1}, days=4))
