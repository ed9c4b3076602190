"""Whatever is sent, the answer is one that the documentation names, and never a 5xx."""

import json
import os
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.events import ClientEvent
from serving.api import documentation
from serving.api.schemas import DecideRequest
from tests.serving.conftest import ALL, Running, checkout, event

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["item-1", "USD", "2017-11-20T00:00:00Z", "personalization", "west"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_lowercase + "_", max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
DECIDE_FIELDS = list(DecideRequest.model_fields)
EVENT_FIELDS = list(ClientEvent.model_fields)
DATED = st.datetimes().map(lambda moment: moment.isoformat() + "Z")
MANY = 2_000 if os.environ.get("TILLWISE_PROVE") else 150
FUZZ = settings(
    max_examples=MANY,
    deadline=None,
    # The gateway is not reset between examples: an earlier one must not harm a later one either.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def changes(fields: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields with values that they were not meant for."""
    return st.dictionaries(st.sampled_from([*fields, "unknown"]), JSON | DATED, max_size=3)


async def check(running: Running, path: str, body: bytes) -> None:
    described = documentation.document(running.app)["paths"][path]["post"]
    answer = await running.post(path, body)
    assert answer.status_code < 500, (body, answer.text)
    assert str(answer.status_code) in described["responses"], (body, answer.text)
    kind = "application/json" if answer.status_code < 300 else "application/problem+json"
    assert answer.headers["content-type"] == kind
    json.loads(answer.content)


@FUZZ
@given(changed=changes(DECIDE_FIELDS), cart=changes(["cart_id", "currency", "items"]))
async def test_decide_with_odd_fields(
    running: Running, changed: dict[str, Any], cart: dict[str, Any]
) -> None:
    body = checkout(consent=ALL)
    body["cart"] |= cart
    await check(running, "/v1/checkout/decide", json.dumps(body | changed).encode())


@FUZZ
@given(changed=changes(EVENT_FIELDS), item=changes(["item_id", "quantity", "price", "index"]))
async def test_events_with_odd_fields(
    running: Running, changed: dict[str, Any], item: dict[str, Any]
) -> None:
    odd = event(items=[{"item_id": "item-1"} | item]) | changed
    await check(running, "/v1/events", json.dumps({"events": [odd, event()]}).encode())


@FUZZ
@given(body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50))
@pytest.mark.parametrize("path", ["/v1/checkout/decide", "/v1/events", "/v1/subjects/resolve"])
async def test_any_body_at_all(running: Running, path: str, body: bytes) -> None:
    await check(running, path, body)
