"""What a checkout may send, and the one line that it gets when it sends something else."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from serving.api.schemas import DecideRequest
from tests.serving.decision.setting import request

SMALLEST: dict[str, Any] = {
    "visitor_id": "v",
    "session_id": "s",
    "cart": {"cart_id": "c", "currency": "USD"},
}


def line(**changed: Any) -> dict[str, Any]:
    return {**SMALLEST["cart"], "items": [{"item_id": "a", "quantity": 1, "price": 5} | changed]}


def test_the_smallest_request() -> None:
    asked = DecideRequest.model_validate_json(json.dumps(SMALLEST))
    assert (asked.num_results, asked.deadline_ms, asked.cart.items) == (5, 100, ())
    assert asked.placements == ("recommendations", "offers", "payment", "shipping")
    assert not asked.gpc


@pytest.mark.parametrize(
    ("where", "changed"),
    [
        ("cart.items.0.price", {"cart": line(price=-1)}),
        ("cart.items.0.price", {"cart": line(price=1.5)}),
        ("cart.items.0.quantity", {"cart": line(quantity=0)}),
        ("cart.items.0.quantity", {"cart": line(quantity=True)}),
        ("cart.items.0.item_id", {"cart": line(item_id="")}),
        ("cart.items.0.colour", {"cart": line(colour="red")}),
        ("cart.items", {"cart": {**SMALLEST["cart"], "items": [{"item_id": "a"}] * 10_000}}),
        ("cart.currency", {"cart": {"cart_id": "c", "currency": "usd"}}),
        ("num_results", {"num_results": 6}),
        ("num_results", {"num_results": 0}),
        ("deadline_ms", {"deadline_ms": 1_001}),
        ("deadline_ms", {"deadline_ms": 0}),
        ("placements", {"placements": []}),
        ("placements", {"placements": ["offers", "offers"]}),
        ("placements.0", {"placements": ["banner"]}),
        ("filter.max_price", {"filter": {"max_price": -5}}),
        ("context.occurred_at", {"context": {"occurred_at": "2017-11-20T10:00:00"}}),
        ("context.country", {"context": {"country": "Germany"}}),
        ("consent.marketing.[key]", {"consent": {"marketing": True}}),
        ("consent.offers", {"consent": {"offers": "yes"}}),
        ("search_terms.0", {"search_terms": ["4111 1111 1111 1111"]}),
        ("colour", {"colour": "red"}),
    ],
)
def test_each_fault_is_one_line_that_names_the_field(where: str, changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        DecideRequest.model_validate_json(json.dumps(SMALLEST | changed))
    errors = caught.value.errors()
    assert [".".join(map(str, error["loc"])) for error in errors] == [where]


def test_raw_ids_do_not_reach_the_event_context() -> None:
    asked = request("item-1", context={"country": "US", "first_order": True})
    assert asked.context.event_context().model_dump(exclude_none=True) == {"country": "US"}
