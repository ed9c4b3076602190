"""Who may call what, by key and by page token."""

import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest

from serving.api.auth import PAGE_TOKEN_AUDIENCE, page_token_secret
from serving.state.control_records import Role
from serving.state.sqlite_writer import StoreError
from tests.serving.conftest import Running, checkout, event, purchase

OPEN = ("/healthz", "/readyz", "/metrics", "/openapi.json")
CALLS: dict[str, tuple[str, str, Any, set[Role]]] = {
    "decide": ("POST", "/v1/checkout/decide", checkout(), {"checkout", "admin"}),
    "resolve": ("POST", "/v1/subjects/resolve", {"visitor_id": "v"}, {"checkout", "admin"}),
    "read consent": ("GET", f"/v1/consent/{uuid4()}", None, {"checkout", "admin"}),
    "write consent": ("PUT", f"/v1/consent/{uuid4()}", {}, {"checkout", "admin"}),
    "events": ("POST", "/v1/events", {"events": [event()]}, {"checkout", "collect", "admin"}),
    "export": ("GET", f"/v1/subjects/{uuid4()}", None, {"admin"}),
    "erase": ("DELETE", f"/v1/subjects/{uuid4()}", None, {"admin"}),
    "catalogue": ("PATCH", "/v1/catalogue/items", {"items": [{"item_id": "i"}]}, {"admin"}),
}


@pytest.mark.parametrize("role", ["checkout", "collect", "admin", None])
@pytest.mark.parametrize("call", CALLS)
async def test_roles(running: Running, call: str, role: Role | None) -> None:
    method, path, body, allowed = CALLS[call]
    answer = await running.client.request(method, path, json=body, headers=running.bearer(role))
    if role is None:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    elif role in allowed:
        assert answer.status_code not in {401, 403}, answer.text
    else:
        assert answer.status_code == 403
        assert role in answer.json()["detail"]


@pytest.mark.parametrize("path", OPEN)
async def test_open_paths_need_no_key(running: Running, path: str) -> None:
    assert (await running.client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer tw_admin_" + "A" * 43,
        "Bearer x' OR 1=1 --",
        "Bearer " + "a" * 5_000,
        "Bearer a.b.c",
        "Bearer \x80\xff",
    ],
)
async def test_other_credentials_are_refused(running: Running, credential: str) -> None:
    headers = [(b"authorization", credential.encode("latin-1"))]
    answer = await running.client.post("/v1/checkout/decide", json=checkout(), headers=headers)
    assert answer.status_code == 401, answer.text


async def test_a_revoked_key_ends_at_once(running: Running) -> None:
    assert (await running.decide()).status_code == 200
    for key in running.gateway.control.list_keys():
        await running.gateway.control.revoke_key(key.key_id, running.clock.now())
    assert (await running.decide()).status_code == 401


async def test_only_digests_of_keys_are_stored(running: Running, tmp_path: Any) -> None:
    content = (tmp_path / "state" / "control.sqlite-wal").read_bytes()
    content += (tmp_path / "state" / "control.sqlite").read_bytes()
    for api_key in running.keys.values():
        assert api_key.encode() not in content
        assert page_token_secret(api_key) not in content


@pytest.mark.parametrize(
    "sent",
    [
        purchase("item-1"),
        event(event_name="refund", transaction_id="t"),
        event(user_id="user-raw-1"),
        event(event_name="decision"),
    ],
)
async def test_a_collect_key_writes_behaviour_only(running: Running, sent: Any) -> None:
    alone = await running.post("/v1/events", {"events": [sent]}, "collect")
    assert alone.status_code == 403
    both = await running.post("/v1/events", {"events": [sent, event()]}, "collect")
    assert both.status_code == 202
    refused, kept = both.json()["results"]
    assert (refused["status"], refused["reason"]) == ("rejected", "forbidden")
    assert kept["status"] == "accepted"
    assert len(running.logged()) == 1


async def test_nobody_writes_decisions(running: Running) -> None:
    sent = {"events": [event(event_name="decision"), event()]}
    answer = await running.post("/v1/events", sent, "admin")
    assert answer.json()["results"][0]["reason"] == "forbidden"


def page_token(running: Running, *, role: Role = "checkout", **changed: Any) -> str:
    """A token as the shop's server would sign it."""
    keys = running.gateway.control.list_keys()
    key_id = next(key.key_id for key in keys if key.role == role)
    expires = running.clock.now() + changed.pop("life", timedelta(minutes=15))
    secret = changed.pop("secret", page_token_secret(running.keys[role]))
    claims = {"aud": PAGE_TOKEN_AUDIENCE, "exp": expires.timestamp()} | changed
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": key_id})


async def decide_with(running: Running, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    answer = await running.client.post("/v1/checkout/decide", json=checkout(), headers=headers)
    return answer.status_code


async def test_a_page_token_decides_and_nothing_else(running: Running) -> None:
    token = page_token(running)
    assert await decide_with(running, token) == 200
    headers = {"Authorization": f"Bearer {token}"}
    sent = {"events": [event()]}
    assert (await running.client.post("/v1/events", json=sent, headers=headers)).status_code == 403


async def test_a_page_token_is_judged_by_the_injected_clock(running: Running) -> None:
    token = page_token(running, life=timedelta(minutes=1))
    running.clock.at += timedelta(seconds=59)
    assert await decide_with(running, token) == 200
    running.clock.at += timedelta(seconds=1)
    assert await decide_with(running, token) == 401


@pytest.mark.parametrize(
    "changed",
    [
        {"life": timedelta(minutes=15, seconds=1)},
        {"life": timedelta(seconds=0)},
        {"aud": "attribution"},
        {"aud": None},
        {"exp": None},
        {"exp": float("inf")},
        {"exp": True},
        {"exp": "soon"},
        {"secret": b"\0" * 32},
        {"role": "collect"},
    ],
)
async def test_other_page_tokens_are_refused(running: Running, changed: Any) -> None:
    assert await decide_with(running, page_token(running, **changed)) == 401


async def test_a_page_speaks_only_for_the_user_its_token_names(running: Running) -> None:
    for sub, user, status in [("u-1", "u-1", 200), ("u-1", "u-2", 403), (None, "u-1", 403)]:
        headers = {"Authorization": f"Bearer {page_token(running, sub=sub)}"}
        body = checkout(user_id=user)
        answer = await running.client.post("/v1/checkout/decide", json=body, headers=headers)
        assert answer.status_code == status, (sub, user)


async def test_a_key_known_before_counts_while_the_store_is_gone(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await running.decide()).status_code == 200

    def broken(*_: Any) -> None:
        raise StoreError("gone")

    monkeypatch.setattr(running.gateway.control, "key_by_digest", broken)
    monkeypatch.setattr(running.gateway.control, "look_up", broken)
    answer = await running.decide()
    assert answer.status_code == 200
    assert answer.json()["degraded"] == ["identity"]
    stranger = await running.post("/v1/checkout/decide", checkout(), "admin")
    assert stranger.status_code == 503


@pytest.mark.parametrize("met", ["key", "token"])
async def test_so_does_the_page_token_of_such_a_key(
    running: Running, monkeypatch: pytest.MonkeyPatch, met: str
) -> None:
    token = page_token(running)
    assert (await running.decide()).status_code == 200 if met == "key" else True
    assert met == "key" or await decide_with(running, token) == 200

    def broken(*_: Any) -> None:
        raise StoreError("gone")

    for name in ("key_by_digest", "key_by_id", "look_up"):
        monkeypatch.setattr(running.gateway.control, name, broken)
    assert await decide_with(running, token) == 200
    other = page_token(running, role="collect")
    assert await decide_with(running, other) == 503


async def test_a_page_token_ends_with_its_key(running: Running) -> None:
    token = page_token(running)
    key_id = jwt.get_unverified_header(token)["kid"]
    await running.gateway.control.revoke_key(key_id, running.clock.now())
    assert await decide_with(running, token) == 401


async def test_an_unsigned_page_token_is_refused(running: Running) -> None:
    key_id = jwt.get_unverified_header(page_token(running))["kid"]
    claims = {"aud": PAGE_TOKEN_AUDIENCE, "exp": time.time()}
    token = jwt.encode(claims, "", algorithm="none", headers={"kid": key_id})
    assert await decide_with(running, token) == 401
