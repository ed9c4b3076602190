"""A page that is being left can send no header: its collect key stands in the address."""

import json
from typing import Any

from tests.serving.conftest import Running, event, purchase


async def beacon(running: Running, key: str, *events: dict[str, Any], **headers: str) -> Any:
    body = json.dumps({"events": events})
    sent = {"content-type": "text/plain;charset=UTF-8"} | headers
    return await running.client.post(f"/v1/events?key={key}", content=body, headers=sent)


async def test_a_beacon_is_taken_like_any_other_request(running: Running) -> None:
    sent = event()
    for status in ("accepted", "duplicate"):
        answer = await beacon(running, running.keys["collect"], sent)
        assert answer.status_code == 202
        assert answer.json()["results"][0]["status"] == status
    (logged,) = running.logged()
    assert logged.session_id == sent["session_id"]


async def test_privacy_control_holds_for_it(running: Running) -> None:
    answer = await beacon(running, running.keys["collect"], event(), **{"sec-gpc": "1"})
    assert answer.json()["results"][0]["reason"] == "no_consent"
    assert running.logged() == []


async def test_no_other_key_may_stand_in_an_address(running: Running) -> None:
    for role in ("checkout", "admin"):
        answer = await beacon(running, running.keys[role], event())
        assert answer.status_code == 403
        assert "exposed" in answer.json()["detail"]
    for key in ("", "x", "tw_collect_" + "A" * 43, "a.b.c"):
        assert (await beacon(running, key, event())).status_code in {401, 403}
    assert running.logged() == []


async def test_it_forges_neither_purchase_nor_user(running: Running) -> None:
    key = running.keys["collect"]
    for forged in (purchase("item-1"), event(user_id="somebody")):
        answer = await beacon(running, key, forged, event())
        assert [one["status"] for one in answer.json()["results"]] == ["rejected", "accepted"]
        assert (await beacon(running, key, forged)).status_code == 403


async def test_a_key_in_an_address_opens_nothing_else(running: Running) -> None:
    key = running.keys["checkout"]
    for path in ("/v1/checkout/decide", "/v1/subjects/resolve"):
        answer = await running.client.post(f"{path}?key={key}", json={})
        assert answer.status_code == 401, path


async def test_text_is_taken_from_beacons_alone(running: Running) -> None:
    headers = running.bearer("collect") | {"content-type": "text/plain"}
    for path in ("/v1/events", f"/v1/events?key={running.keys['collect']}"):
        body = json.dumps({"events": [event()]})
        answer = await running.client.post(path, content=body, headers=headers)
        assert answer.status_code == 415
