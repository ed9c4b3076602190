"""The hot route: consent, what is kept, and what is answered when things go wrong."""

import asyncio
import itertools
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from contract.consent import in_effect
from serving.state.sqlite_writer import BUSY_SECONDS, StoreError
from tests.serving.conftest import ALL, Running, Start, checkout, event, purchase

NONE = {"personalization": False, "analytics": False, "offers": False}
PERSONAL = {"personalization": True}
COUNTING = {"analytics": True}


async def subject_of(running: Running, visitor: str = "visitor-raw-1") -> str | None:
    answer = await running.post("/v1/subjects/resolve", {"visitor_id": visitor, "create": False})
    return answer.json()["subject_id"] if answer.status_code == 200 else None


async def test_a_decision_is_answered_and_its_impression_logged(running: Running) -> None:
    answer = await running.decide(consent=ALL)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["rung"] == "full"
    assert body["degraded"] == []
    assert len(body["recommendations"]) == 5
    await running.quiet()
    (logged,) = running.logged()
    assert logged.event_name == "decision"
    assert str(logged.event_id) == body["decision_id"]
    assert [item.item_id for item in logged.items] == [
        one["item_id"] for one in body["recommendations"]
    ]
    assert all("pair_features" in shown for shown in logged.decision["shown"])
    assert str(logged.subject_id) == await subject_of(running)


async def test_without_personalization_the_impression_has_no_features(running: Running) -> None:
    await running.decide(consent=COUNTING, context={"region": "west", "device": "mobile"})
    await running.quiet()
    (logged,) = running.logged()
    assert logged.purposes == ("analytics",)
    assert all("pair_features" not in shown for shown in logged.decision["shown"])
    assert logged.context.region is None
    assert logged.context.device == "mobile"


async def test_personalization_alone_keeps_a_subject_but_no_impression(running: Running) -> None:
    await running.decide(consent=PERSONAL)
    await running.quiet()
    assert running.logged() == []
    assert await subject_of(running) is not None
    metrics = (await running.client.get("/metrics")).text
    assert "tillwise_decisions_without_analytics_total 1.0" in metrics


@pytest.mark.parametrize("consent", [None, NONE, {"offers": True}])
async def test_nothing_is_stored_without_consent(running: Running, consent: Any) -> None:
    answer = await running.decide(consent=consent)
    assert answer.status_code == 200
    await running.quiet()
    assert running.logged() == []
    assert await subject_of(running) is None


@pytest.mark.parametrize("gpc", ["body", "header"])
async def test_global_privacy_control_wins(running: Running, gpc: str) -> None:
    headers = {"Sec-GPC": "1"} if gpc == "header" else {}
    body = checkout(consent=ALL, gpc=gpc == "body")
    assert (await running.post("/v1/checkout/decide", body, headers=headers)).status_code == 200
    await running.quiet()
    assert running.logged() == []
    assert await subject_of(running) is None


WORDS: list[dict[str, bool] | None] = [None, NONE, PERSONAL, COUNTING, ALL]


@pytest.mark.parametrize("gpc", [False, True])
async def test_consent_table(running: Running, gpc: bool) -> None:
    for number, (stored, asked) in enumerate(itertools.product(WORDS, WORDS)):
        await check_consent(running, f"visitor-{number}", stored, asked, gpc=gpc)


async def check_consent(
    running: Running,
    visitor: str,
    stored: dict[str, bool] | None,
    asked: dict[str, bool] | None,
    *,
    gpc: bool,
) -> None:
    case = f"stored {stored}, asked {asked}, gpc {gpc}"
    if stored is not None:
        await bought_and_said(running, visitor, NONE | stored)
    before = len(running.logged())
    answer = await running.decide(visitor_id=visitor, consent=asked, gpc=gpc)
    assert answer.status_code == 200
    await running.quiet()
    granted = None if asked is None else {name for name, said in asked.items() if said}
    held = None if stored is None else {name for name, said in stored.items() if said}
    expected = in_effect(held, granted, gpc=gpc)
    assert len(running.logged()) - before == ("analytics" in expected), case
    if stored is None:
        remembered = bool(expected & {"analytics", "personalization"})
        assert (await subject_of(running, visitor) is not None) == remembered, case
    else:
        codes = {r["code"] for one in answer.json()["recommendations"] for r in one["reasons"]}
        assert ("bought_before" in codes) == ("personalization" in expected), case


async def bought_and_said(running: Running, visitor: str, word: dict[str, bool]) -> None:
    """A history that shows in the reasons where it may be read, then the shopper's word."""
    baskets = [
        purchase("item-20", "item-21", "item-22", "item-23", visitor_id=visitor) for _ in range(3)
    ]
    await running.post("/v1/events", {"events": baskets})
    subject = await subject_of(running, visitor)
    body = {"purposes": word, "source": "banner", "wording_version": "2"}
    put = await running.client.put(f"/v1/consent/{subject}", json=body, headers=running.bearer())
    assert put.status_code == 200, put.text


async def test_the_first_word_is_recorded_and_a_refusal_later_wins(running: Running) -> None:
    await running.decide(consent=ALL)
    subject = await subject_of(running)
    held = await running.client.get(f"/v1/consent/{subject}", headers=running.bearer())
    assert held.json()["purposes"] == ALL
    assert held.json()["source"] == "request"
    word = {"purposes": NONE, "source": "account", "wording_version": "3"}
    await running.client.put(f"/v1/consent/{subject}", json=word, headers=running.bearer())
    await running.quiet()
    before = len(running.logged())
    await running.decide(consent=ALL)
    await running.quiet()
    assert len(running.logged()) == before


@pytest.mark.parametrize("user_known", [False, True])
async def test_history_before_a_login_is_read_at_the_login(
    running: Running, user_known: bool
) -> None:
    if user_known:
        elsewhere = {"visitor_id": "another-device", "user_id": "user-raw-7"}
        await running.post("/v1/subjects/resolve", elsewhere)
    for number in range(3):
        sent = purchase("item-30", "item-31", transaction_id=f"t-{number}")
        await running.post("/v1/events", {"events": [sent]})
    answer = await running.decide(user_id="user-raw-7", consent=ALL)
    codes = {r["code"] for one in answer.json()["recommendations"] for r in one["reasons"]}
    assert "bought_before" in codes


async def test_raw_ids_never_reach_the_disk(running: Running, tmp_path: Path) -> None:
    visitor, user = "visitor-raw-9f3a", "user-raw-77c1"
    await running.decide(visitor_id=visitor, user_id=user, consent=ALL)
    await running.post(
        "/v1/events", {"events": [event(visitor_id=visitor, user_id=user)]}, "checkout"
    )
    await running.post("/v1/subjects/resolve", {"visitor_id": visitor, "user_id": user})
    await running.quiet()
    await running.gateway.features.snapshot()
    files = [path for path in (tmp_path / "state").iterdir() if path.is_file()]
    assert {"events.sqlite", "control.sqlite", "features.npz"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert visitor.encode() not in content, path.name
        assert user.encode() not in content, path.name
    assert running.logged()


async def test_raw_ids_reach_no_log_line(
    running: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG")

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("visitor-raw-1 quoted by an error")

    monkeypatch.setattr(running.gateway.decider, "decide", broken)
    answer = await running.decide()
    assert answer.status_code == 500
    assert "visitor-raw-1" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    from serving.monitoring.http import JsonLines

    lines = [JsonLines().format(record) for record in caplog.records]
    assert any("a request failed" in line for line in lines)
    assert not any("visitor-raw-1" in line for line in lines)


async def test_validate_only_decides_and_keeps_nothing(running: Running) -> None:
    answer = await running.decide(
        validate_only=True, consent=ALL, recent_items=["item-2", "no-such-item"]
    )
    assert answer.json() == {"valid": True, "missing_item_ids": ["no-such-item"]}
    await running.quiet()
    assert running.logged() == []
    assert await subject_of(running) is None
    metrics = (await running.client.get("/metrics")).text
    assert 'tillwise_decisions_total{rung="full"} 0.0' in metrics


async def test_many_at_once_are_each_answered_for_their_own_shopper(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.api.decide.waiting_beside", lambda _: 3)
    visitors = [f"visitor-{number}" for number in range(4)]
    for _ in range(2):  # as strangers, then as shoppers who are known
        answers = await asyncio.gather(
            *(running.decide(visitor_id=one, consent=ALL, deadline_ms=1_000) for one in visitors)
        )
        assert {one.json()["rung"] for one in answers} == {"full"}
        assert [one.json()["degraded"] for one in answers] == [[]] * 4
    await running.quiet()
    subjects = [await subject_of(running, one) for one in visitors]
    assert len(set(subjects)) == 4
    logged = [str(event.subject_id) for event in running.logged()]
    assert sorted(logged) == sorted([one for one in subjects if one is not None] * 2)


@pytest.mark.parametrize("others", [0, 3])  # that were read together with it
async def test_a_control_store_that_fails_costs_history_not_the_answer(
    running: Running, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    def broken(*_: Any) -> None:
        raise StoreError("gone")

    monkeypatch.setattr("serving.api.decide.waiting_beside", lambda _: others)
    monkeypatch.setattr(running.gateway.control, "look_up_all", broken)
    answer = await running.decide(consent=ALL)
    assert answer.status_code == 200
    assert "identity" in answer.json()["degraded"]
    await running.quiet()
    assert running.logged() == []


async def test_a_late_control_store_does_not_hold_the_answer(start: Start, tmp_path: Path) -> None:
    running = await start(identity_wait_ms=5)
    blocker = sqlite3.connect(tmp_path / "state" / "control.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    try:
        answer = await running.decide(consent=PERSONAL)
        waited = time.monotonic() - began
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    assert answer.status_code == 200
    assert answer.json()["degraded"] == ["identity"]
    assert len(answer.json()["recommendations"]) == 5
    assert waited < BUSY_SECONDS / 2  # the store itself would give up after BUSY_SECONDS


async def test_overload_is_a_429(start: Start) -> None:
    running = await start(max_full_decisions=1, max_total_decisions=1)
    with running.gateway.decider.admission.enter():
        answer = await running.decide()
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert (await running.decide()).status_code == 200
