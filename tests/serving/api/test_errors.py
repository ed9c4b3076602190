"""What is refused, and that it is refused with one line a person can act on."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from contract.encoding import Vocabulary
from serving.api.item_ids import first_like_card
from tests.serving.conftest import ALL, Running, Start, checkout, event

DECIDE = "/v1/checkout/decide"
ITEMS = "/v1/catalogue/items"


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert "\n" not in body["detail"]
    return dict(body)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"nonsense": 1}, "nonsense: unknown field"),
        ({"cart": {"cart_id": "c", "currency": "USD", "sku": []}}, "cart.sku: unknown field"),
        ({"visitor_id": ""}, "visitor_id"),
        ({"num_results": 6}, "num_results"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"context": {"occurred_at": "2017-11-20T00:00:00"}}, "context.occurred_at"),
        ({"consent": {"marketing": True}}, "consent.marketing"),
    ],
)
async def test_invalid_fields_are_named(
    running: Running, changed: dict[str, Any], named: str
) -> None:
    found = problem(await running.post(DECIDE, checkout(**changed)), 422)
    assert named in found["detail"]
    assert found["errors"][0]["field"] == found["detail"].partition(":")[0]


async def test_a_negative_price_is_refused(running: Running) -> None:
    lines = [{"item_id": "item-1", "price": 5}, {"item_id": "item-2", "price": -1}]
    body = checkout(cart={"cart_id": "c", "currency": "USD", "items": lines})
    assert problem(await running.post(DECIDE, body), 422)["detail"].startswith(
        "cart.items[1].price: "
    )


async def test_ten_thousand_cart_lines_are_one_error(running: Running) -> None:
    lines = [{"item_id": f"i{number}"} for number in range(10_000)]
    body = checkout(cart={"cart_id": "c", "currency": "USD", "items": lines})
    found = problem(await running.post(DECIDE, body), 422)
    assert found["detail"].startswith("cart.items: ")
    assert "500" in found["detail"]


async def test_an_unknown_item_is_reported_not_refused(running: Running) -> None:
    lines = [{"item_id": "item-1"}, {"item_id": "no-such-item"}]
    answer = await running.decide(cart={"cart_id": "c", "currency": "USD", "items": lines})
    assert answer.status_code == 200
    assert answer.json()["missing_item_ids"] == ["no-such-item"]


HOSTILE: list[tuple[bytes, set[int]]] = [
    (b"", {400}),
    (b"{", {400}),
    (b"null", {422}),
    (b"[]", {422}),
    (b"\xff\xfe", {400}),
    (b"[" * 100_000, {400}),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, {400}),
    (b'{"visitor_id": "\\ud800"}', {400}),
    (b'{"visitor_id": NaN}', {400, 422}),
    (b'{"deadline_ms": Infinity}', {400, 422}),
    (b'{"deadline_ms": ' + b"9" * 10_000 + b"}", {400, 422}),
    (b'{"deadline_ms": 1e999}', {400, 422}),
    (b'{"\\ud83d": 1}', {400}),
    (b'{"visitor_id": "a", "visitor_id": "b"}', {422}),
]


@pytest.mark.parametrize(("body", "statuses"), HOSTILE, ids=[str(n) for n in range(len(HOSTILE))])
@pytest.mark.parametrize("path", [DECIDE, "/v1/events", "/v1/subjects/resolve"])
async def test_hostile_bodies(running: Running, path: str, body: bytes, statuses: set[int]) -> None:
    answer = await running.post(path, body)
    if path != "/v1/subjects/resolve" or answer.status_code != 200:
        allowed = statuses | ({400, 422} if path != DECIDE else set())
        assert answer.status_code in allowed, answer.text
        problem(answer, answer.status_code)


async def test_hostile_values_inside_an_otherwise_good_checkout(running: Running) -> None:
    raw = json.dumps(checkout()).encode()
    for before, after in [
        (b'"price": 101', b'"price": NaN'),
        (b'"price": 101', b'"price": 1' + b"0" * 400),
        (b'"price": 101', b'"price": 1.5'),
        (b'"price": 101', b'"price": true'),
        (b'"session-1"', b'"\\udc00"'),
    ]:
        assert before in raw
        answer = await running.post(DECIDE, raw.replace(before, after))
        assert answer.status_code in {400, 422}, (after[:20], answer.text)


async def test_a_body_over_the_limit_is_refused_while_it_is_read(start: Start) -> None:
    running = await start(body_limit_bytes=10_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            sent += 1_000
            yield b"x" * 1_000

    headers = running.bearer() | {"content-type": "application/json"}
    answer = await running.client.post(DECIDE, content=endless(), headers=headers)
    assert "10000 bytes" in problem(answer, 413)["detail"]
    assert sent < 20_000
    declared = await running.post(DECIDE, b"x" * 10_001)
    problem(declared, 413)


async def test_another_content_type_is_refused(running: Running) -> None:
    headers = running.bearer() | {"content-type": "text/plain"}
    answer = await running.client.post(DECIDE, content=b"{}", headers=headers)
    assert "application/json" in problem(answer, 415)["detail"]


async def test_unknown_paths_and_methods(running: Running) -> None:
    problem(await running.client.get("/v1/nothing-of-the-kind"), 404)
    answer = await running.client.get(DECIDE)
    problem(answer, 405)
    assert answer.headers["allow"] == "POST"


async def test_whole_request_errors_of_events(running: Running) -> None:
    for body, detail in [
        ({"events": []}, "1 to 500"),
        ({"events": [event()] * 501}, "not 501"),
        ({"events": {}}, "events"),
        ({"events": [event()], "extra": 1}, "extra: unknown field"),
        ([event()], "events"),
    ]:
        assert detail in problem(await running.post("/v1/events", body), 422)["detail"]


async def test_every_answer_carries_security_headers(running: Running) -> None:
    for answer in (await running.client.get("/healthz"), await running.client.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


async def test_cors_is_off_until_an_origin_is_allowed(start: Start, running: Running) -> None:
    ask = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    closed = await running.client.options(DECIDE, headers=ask)
    assert "access-control-allow-origin" not in closed.headers
    await running.stop()
    opened = await start(cors_origins=("https://shop.example",))
    allowed = await opened.client.options(DECIDE, headers=ask)
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    stranger = await opened.client.options(DECIDE, headers=ask | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    assert stranger.status_code == 400
    assert stranger.headers["content-type"] == "application/problem+json"
    assert stranger.headers["vary"].startswith("Origin")
    assert stranger.json()["detail"].startswith("Disallowed CORS origin")
    assert int(stranger.headers["content-length"]) == len(stranger.content)
    for method in ("DELETE", "PATCH"):  # an admin key belongs in no page
        wrong = await opened.client.options(
            DECIDE, headers=ask | {"Access-Control-Request-Method": method}
        )
        assert wrong.status_code == 400
    assert wrong.json()["title"] == "Bad request"
    counted = (await opened.client.get("/metrics")).text
    for status, number in ((200, 1), (400, 3)):
        labels = f'method="OPTIONS",route="preflight",status="{status}"'
        assert f"tillwise_http_requests_total{{{labels}}} {number}.0" in counted
    assert 'route="unmatched"' not in counted


async def test_nobody_is_sent_elsewhere(running: Running) -> None:
    for path in (DECIDE + "/", "/healthz/"):
        answer = await running.post(path, {}, headers={"Host": "evil.example"})
        assert answer.status_code == 404
        assert "location" not in answer.headers


async def test_a_card_number_is_never_repeated(running: Running) -> None:
    card = "4111 1111 1111 1111"
    refused = await running.decide(**{card: 1})
    assert refused.status_code == 422
    assert "4111" not in refused.text
    batch = await running.post("/v1/events", {"events": [], card: 1})
    assert batch.status_code == 422
    assert "4111" not in batch.text


NUMBER = "5555555555554444"
LINE = {"quantity": 1, "price": 1}


@pytest.mark.parametrize(
    ("method", "path", "role", "body", "field"),
    [
        ("PUT", "/v1/rules", "admin", {"rules": [], "note": f"card {NUMBER}"}, "note"),
        ("PUT", "/v1/offers", "admin", {"offers": [], "note": f"card {NUMBER}"}, "note"),
        ("PUT", "/v1/experiments/one", "admin", {"note": f"card {NUMBER}"}, "note"),
        ("PATCH", ITEMS, "admin", {"items": [{"item_id": NUMBER}]}, "items[0].item_id"),
        (
            *("PATCH", ITEMS, "admin"),
            *({"items": [{"item_id": "item-1", "regions": [NUMBER]}]}, "items[0].regions[0]"),
        ),
        (
            *("POST", DECIDE, "checkout"),
            checkout(
                cart={"cart_id": "c", "currency": "USD", "items": [LINE | {"item_id": NUMBER}]}
            ),
            "cart.items[0].item_id",
        ),
        ("POST", DECIDE, "checkout", checkout(recent_items=[NUMBER]), "recent_items[0]"),
    ],
)
async def test_a_card_number_gets_in_nowhere(
    running: Running, method: str, path: str, role: Any, body: dict[str, Any], field: str
) -> None:
    answer = await running.client.request(
        method, path, json=body, headers=running.bearer(role), timeout=60
    )
    told = problem(answer, 422)
    assert field in [one["field"] for one in told["errors"]]
    assert NUMBER not in answer.text
    assert NUMBER not in str([line.text for line in running.gateway.control.audit_log()[0]])


async def test_a_consent_is_proven_without_a_card_number(running: Running) -> None:
    found = await running.post("/v1/subjects/resolve", {"visitor_id": "visitor-raw-1"})
    path = f"/v1/consent/{found.json()['subject_id']}"
    for field in ("source", "wording_version"):
        word = {"purposes": ALL, "source": "banner", "wording_version": "1"} | {field: NUMBER}
        answer = await running.client.put(path, json=word, headers=running.bearer())
        assert problem(answer, 422)["detail"].startswith(field)


async def test_an_event_carries_no_card_number_as_an_item(running: Running) -> None:
    items = [{"item_id": "item-1"}, {"item_id": NUMBER}]
    answer = await running.post("/v1/events", {"events": [event(items=items, consent=ALL)]})
    (told,) = answer.json()["results"]
    assert (told["status"], told["reason"]) == ("rejected", "invalid")
    assert told["detail"].startswith("items[1].item_id: looks like a payment card number")


def test_a_number_that_the_release_knows_is_an_item() -> None:
    assert first_like_card(["item-1", NUMBER], Vocabulary((NUMBER,))) is None
    assert first_like_card(["item-1", NUMBER], Vocabulary(("item-1",))) == 1


async def test_a_cart_that_is_too_long_is_told_in_lines(running: Running) -> None:
    lines = [{"item_id": "item-1", "quantity": 1, "price": 1}] * 501
    refused = await running.decide(cart={"cart_id": "c", "currency": "USD", "items": lines})
    assert refused.json()["detail"] == "cart.items: at most 500 lines"
