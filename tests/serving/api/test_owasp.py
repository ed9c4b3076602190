"""The OWASP API Security Top 10 of 2023, one test for each risk; other tests go deeper."""

import socket
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute

from contract.manifest import RANKER
from serving.inference.embedded import EmbeddedBackend
from tests.serving.api.test_auth import page_token
from tests.serving.conftest import ALL, Running, Start, checkout, event, purchase


async def resolved(running: Running, visitor: str) -> str:
    answer = await running.post("/v1/subjects/resolve", {"visitor_id": visitor})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["subject_id"])


async def test_1_object_level_authorization(running: Running) -> None:
    """An id that leaked opens nothing with the keys that shops and pages use."""
    subject = await resolved(running, "victim")
    for role in ("checkout", "collect"):
        for method in ("GET", "DELETE"):
            answer = await running.client.request(
                method, f"/v1/subjects/{subject}", headers=running.bearer(role)
            )
            assert answer.status_code == 403
    unknown = await running.client.get(f"/v1/subjects/{uuid4()}", headers=running.bearer("admin"))
    assert unknown.status_code == 404


async def test_2_authentication(running: Running) -> None:
    """Nothing but a whole key in force counts, and a revoked one no longer does."""
    key = running.keys["checkout"]
    for wrong in (key[:-1], key + "A", key.upper(), "tw_admin_" + key.rpartition("_")[2]):
        headers = {"Authorization": f"Bearer {wrong}"}
        answer = await running.client.post("/v1/checkout/decide", json=checkout(), headers=headers)
        assert answer.status_code == 401
    held = await running.decide()
    assert held.status_code == 200
    listed = running.gateway.control.list_keys()
    (own,) = (one for one in listed if one.role == "checkout")
    await running.gateway.control.revoke_key(own.key_id, running.clock.now())
    assert (await running.decide()).status_code == 401


async def test_3_object_property_level_authorization(running: Running) -> None:
    """No field that the server owns can be written, and none that callers need not see is told."""
    forged: dict[str, Any] = {"subject_id": str(uuid4()), "purposes": ["offers"], "decision": {}}
    for name, value in forged.items():
        answer = await running.post("/v1/events", {"events": [event(**{name: value})]})
        assert answer.json()["results"][0]["reason"] == "invalid"
    answer = await running.decide(consent=ALL)
    assert not {"pair_features", "subject_id", "purposes", "query_vector"} & set(answer.json())


@pytest.mark.usefixtures("one_minute")
async def test_4_resource_consumption(start: Start) -> None:
    """Size, number and rate are bounded before any work is done for them."""
    running = await start(body_limit_bytes=2_000, page_requests_per_minute=3)
    large = checkout(search_terms=["x" * 3_000])
    assert (await running.post("/v1/checkout/decide", large)).status_code == 413
    many = checkout(recent_items=["i"] * 101)
    assert (await running.post("/v1/checkout/decide", many)).status_code == 422
    assert (await running.decide(deadline_ms=60_000)).status_code == 422
    codes = []
    for _ in range(5):
        answer = await running.client.post(
            "/v1/events", json={"events": [event()]}, headers=running.bearer("collect")
        )
        codes.append(answer.status_code)
    assert codes == [202, 202, 202, 429, 429]


async def test_5_function_level_authorization(running: Running) -> None:
    """Every route that is not meant for everybody refuses whoever has no key for it."""
    described = (await running.client.get("/openapi.json")).json()
    guarded = 0
    for path, methods in described["paths"].items():
        if not path.startswith("/v1/"):
            continue
        for method in methods:
            url = path.replace("{subject_id}", str(uuid4()))
            bare = await running.client.request(method, url, json={})
            assert bare.status_code == 401, (method, path)
            if path != "/v1/events":
                public = await running.client.request(
                    method, url, json={}, headers=running.bearer("collect")
                )
                assert public.status_code == 403, (method, path)
            guarded += 1
    assert guarded >= 8


async def test_6_sensitive_business_flows(running: Running) -> None:
    """What stands in a page can neither make a purchase up nor speak for a user, so nobody can
    teach the models with sales that never were."""
    headers = running.bearer("collect")
    for forged in (purchase("item-1"), event(user_id="somebody")):
        answer = await running.client.post("/v1/events", json={"events": [forged]}, headers=headers)
        assert answer.status_code == 403
    token = {"Authorization": f"Bearer {page_token(running)}"}
    answer = await running.client.post(
        "/v1/checkout/decide", json=checkout(user_id="somebody"), headers=token
    )
    assert answer.status_code == 403
    assert running.logged() == []


async def test_7_server_side_request_forgery(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word of a caller makes the gateway open a connection."""
    opened: list[Any] = []
    monkeypatch.setattr(
        socket.socket, "connect", lambda _, address: opened.append(address), raising=True
    )
    url = "http://169.254.169.254/latest/meta-data"
    words = {"search_terms": [url], "session_id": url[:60], "context": {"region": url[:60]}}
    answer = await running.decide(**words)
    assert answer.status_code == 200
    sent = event(attribution_token=url, search_term=url, event_name="search")
    assert (await running.post("/v1/events", {"events": [sent]})).status_code == 202
    assert opened == []


async def test_8_security_misconfiguration(running: Running) -> None:
    """Browsers are told to be careful, other origins get nothing, and no error shows its inside."""
    answer = await running.client.options(
        "/v1/checkout/decide",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert "access-control-allow-origin" not in answer.headers
    answer = await running.post("/v1/checkout/decide", {"visitor_id": 1})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
    assert "Traceback" not in answer.text
    assert (await running.client.get("/demo")).status_code == 404
    assert (await running.client.get("/v1/../master.key")).status_code == 404


async def test_9_inventory(running: Running) -> None:
    """Every route is documented, but for pages and files; there is no older version beside."""
    described = (await running.client.get("/openapi.json")).json()
    included = (getattr(held, "original_router", None) for held in running.app.routes)
    made = [one for router in included if router is not None for one in router.routes]
    routes = {
        (method, one.path)
        for one in made
        if isinstance(one, APIRoute) and one.include_in_schema
        for method in one.methods or ()
    }
    documented = {
        (method.upper(), path) for path, methods in described["paths"].items() for method in methods
    }
    assert len(routes) > 8
    assert routes == documented
    hidden = {one.path for one in made if isinstance(one, APIRoute) and not one.include_in_schema}
    assert all(not path.startswith("/v1/") for path in hidden)


async def test_10_unsafe_consumption_of_apis(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model answers is checked like any stranger's word, and costs a rung, not an answer."""
    models = running.gateway.live.current.models
    assert isinstance(models, EmbeddedBackend)
    inner = models.sessions[RANKER].infer

    def garbage(batch: Any) -> Any:
        return {name: np.full_like(tensor, np.nan) for name, tensor in inner(batch).items()}

    monkeypatch.setattr(models.sessions[RANKER], "infer", garbage)
    answer: httpx.Response = await running.decide()
    assert answer.status_code == 200
    assert (answer.json()["rung"], answer.json()["degraded"]) == ("no_ranker", [RANKER])
