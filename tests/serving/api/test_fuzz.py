"""Whatever is sent, the answer is one that the documentation names, and never a 5xx."""

import json
import os
import string
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.events import ClientEvent
from contract.offers import Offer
from serving.api import documentation
from serving.api.coupons import RedemptionRequest, ReservationRequest
from serving.api.offers import WrittenOffers
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
MANY = 4_000 if os.environ.get("TILLWISE_PROVE") else 150
FUZZ = settings(
    max_examples=MANY,
    deadline=None,
    # The gateway is not reset between examples: an earlier one must not harm a later one either.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def changes(fields: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields with values that they were not meant for."""
    return st.dictionaries(st.sampled_from([*fields, "unknown"]), JSON | DATED, max_size=3)


async def check(
    running: Running, path: str, body: bytes, method: str = "POST", **named: str
) -> None:
    described = documentation.document(running.app)["paths"][path][method.lower()]
    headers = {"content-type": "application/json"} | running.bearer("admin")
    answer = await running.client.request(
        method, path.format(**named), content=body, headers=headers
    )
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


OFFER = {
    "offer_id": "ten",
    "title": "10 % off",
    "discount": {"kind": "percent", "percent": 10},
    "currency": "USD",
    "unconditional": True,
}
# Names as a path may hold them, percent-encoded.
NAMED = st.text(max_size=40).map(lambda text: quote(text, safe="")) | st.uuids().map(str)


@FUZZ
@given(changed=changes(list(Offer.model_fields)), book=changes(list(WrittenOffers.model_fields)))
async def test_offers_with_odd_fields(
    running: Running, changed: dict[str, Any], book: dict[str, Any]
) -> None:
    body = {"offers": [OFFER | changed]} | book
    await check(running, "/v1/offers", json.dumps(body).encode(), "PUT")
    await check(running, "/v1/checkout/decide", json.dumps(checkout(consent=ALL)).encode())


@FUZZ
@given(
    named=NAMED.filter(lambda name: name not in {"", ".", ".."}),
    reserving=changes(list(ReservationRequest.model_fields)),
    redeeming=changes(list(RedemptionRequest.model_fields)),
)
async def test_coupons_with_odd_fields(
    running: Running, named: str, reserving: dict[str, Any], redeeming: dict[str, Any]
) -> None:
    plain = checkout()
    body = {"offer_token": "a.b.c", "visitor_id": "visitor-raw-1"} | reserving
    path = "/v1/offers/{offer_id}/reservations"
    await check(running, path, json.dumps(body).encode(), offer_id=named)
    paid = {"transaction_id": "order-1", "cart": plain["cart"], "total": 101} | redeeming
    path = "/v1/reservations/{reservation_id}/redeem"
    await check(running, path, json.dumps(paid).encode(), reservation_id=named)
    path = "/v1/reservations/{reservation_id}/release"
    await check(running, path, b"{}", reservation_id=named)
    await check(running, "/v1/redemptions/{redemption_id}/rollback", b"[", redemption_id=named)


@FUZZ
@given(body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50))
@pytest.mark.parametrize("path", ["/v1/checkout/decide", "/v1/events", "/v1/subjects/resolve"])
async def test_any_body_at_all(running: Running, path: str, body: bytes) -> None:
    await check(running, path, body)


# Of every operation there is: what may stand in its address and, as a body, anything.
SAID = st.text(max_size=20) | st.integers().map(str) | st.sampled_from(["null", "true", "", "0"])
NAMES = NAMED.filter(lambda name: name not in {"", ".", ".."})


@FUZZ
@given(data=st.data())
async def test_every_operation_with_odd_parameters(running: Running, data: st.DataObject) -> None:
    described = documentation.document(running.app)["paths"]
    operations = sorted((path, method) for path, methods in described.items() for method in methods)
    path, method = data.draw(st.sampled_from(operations))
    operation, named, said = described[path][method], {}, {"unknown": "1"}
    for one in operation.get("parameters", ()):
        if one["in"] == "path":
            named[one["name"]] = data.draw(NAMES)
        elif one["in"] == "query":
            said[one["name"]] = data.draw(SAID)
    headers = running.bearer("admin") | {"content-type": "application/json"}
    body = data.draw(JSON) if "requestBody" in operation else None
    content = b"" if body is None else json.dumps(body).encode()
    answer = await running.client.request(
        method, path.format(**named), params=said, content=content, headers=headers
    )
    assert str(answer.status_code) in operation["responses"], (path, said, answer.text)
    assert answer.status_code < 500, (path, said, body, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", (path, said)


async def test_what_stands_in_an_address_is_not_repeated(running: Running) -> None:
    card = "4111111111111111"
    answer = await running.client.get(
        "/v1/rules", params={"version": f"x{card}"}, headers=running.bearer("admin")
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] == "version"
    assert card not in answer.text
