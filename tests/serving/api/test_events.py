"""Events over HTTP: each answered for itself, durable when accepted, never more than agreed to."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from contract.events import SCHEMA_VERSION
from serving.state.control_records import Role
from serving.state.sqlite_writer import StoreError
from tests.serving.conftest import ALL, NOON, Running, event, purchase


async def test_each_event_is_answered_for_itself(running: Running) -> None:
    good, repeated = event(), event()
    sent = [
        good,
        event(items=[{"item_id": "item-1", "price": -1}]),
        repeated,
        repeated,
        {"event_id": 7},
        "not an event",
        event(consent=None),
        event(search_term="4111 1111 1111 1111", event_name="search"),
    ]
    answer = await running.post("/v1/events", {"events": sent})
    assert answer.status_code == 202
    results = answer.json()["results"]
    said = [(one["status"], one.get("reason")) for one in results]
    assert said == [
        ("accepted", None),
        ("rejected", "invalid"),
        ("accepted", None),
        ("duplicate", None),
        ("rejected", "invalid"),
        ("rejected", "invalid"),
        ("accepted", None),  # its own word is silent, but the visitor's is stored by now
        ("rejected", "invalid"),
    ]
    assert "items[0].price" in results[1]["detail"]
    assert "41111111" not in answer.text.replace(" ", "")
    assert len(running.logged()) == 3


async def test_without_consent_nothing_is_written(running: Running) -> None:
    sent = [event(consent=None), event(consent={"offers": True}), event(gpc=True)]
    answer = await running.post("/v1/events", {"events": sent}, "collect")
    assert {one["reason"] for one in answer.json()["results"]} == {"no_consent"}
    assert running.logged() == []
    by_header = await running.post("/v1/events", {"events": [event()]}, headers={"Sec-GPC": "1"})
    assert by_header.json()["results"][0]["reason"] == "no_consent"
    assert running.logged() == []


async def test_a_repeat_in_a_later_request_is_a_duplicate(running: Running) -> None:
    sent = {"events": [event()]}
    first = await running.post("/v1/events", sent)
    second = await running.post("/v1/events", sent)
    assert first.json()["results"][0]["status"] == "accepted"
    assert second.json()["results"][0]["status"] == "duplicate"
    assert len(running.logged()) == 1


async def test_a_time_in_the_future_counts_as_now(running: Running) -> None:
    later = (NOON + timedelta(days=2)).isoformat()
    earlier = (NOON - timedelta(days=2)).isoformat()
    sent = [event(occurred_at=later), event(occurred_at=earlier)]
    await running.post("/v1/events", {"events": sent})
    assert [one.occurred_at for one in running.logged()] == [NOON, NOON - timedelta(days=2)]
    assert all(one.received_at == NOON for one in running.logged())


async def test_events_for_counting_never_reach_features(running: Running) -> None:
    sent = [purchase("item-5", consent={"analytics": True})]
    await running.post("/v1/events", {"events": sent})
    (stored,) = running.logged()
    assert stored.purposes == ("analytics",)
    state = await running.gateway.features.read(str(stored.subject_id))
    assert all(len(rows) == 0 for rows in state.values())
    personal = purchase("item-5", visitor_id="visitor-2")
    await running.post("/v1/events", {"events": [personal]})
    state = await running.gateway.features.read(str(running.logged()[-1].subject_id))
    assert len(state["purchases"]) == 1


async def test_counting_events_lose_their_hints_at_a_person(running: Running) -> None:
    sent = event(
        event_name="search",
        search_term="oat milk",
        context={"region": "west", "country": "US"},
        consent={"analytics": True},
    )
    await running.post("/v1/events", {"events": [sent]})
    (stored,) = running.logged()
    assert stored.search_term is None
    assert stored.context.region is None
    assert stored.context.country == "US"


async def test_an_event_is_in_effect_for_the_next_decision(running: Running) -> None:
    baskets = [purchase("item-30", "item-31") for _ in range(3)]
    await running.post("/v1/events", {"events": baskets})
    answer = await running.decide(consent=ALL)
    codes = {r["code"] for one in answer.json()["recommendations"] for r in one["reasons"]}
    assert "bought_before" in codes


async def test_a_log_that_fails_loses_nothing_that_was_accepted(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(running.gateway.event_log, "append", broken)
        answer = await running.post("/v1/events", {"events": [event()]})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await running.post("/v1/events", {"events": [event()]})).status_code == 202


async def test_a_batch_of_five_hundred(running: Running) -> None:
    sent = [event(visitor_id=f"visitor-{n % 20}") for n in range(500)]
    answer = await running.post("/v1/events", {"events": sent})
    assert {one["status"] for one in answer.json()["results"]} == {"accepted"}
    assert len(running.logged()) == 500


async def test_idempotency_key(running: Running) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    sent = {"events": [event()]}
    first = await running.post("/v1/events", sent, headers=key)
    again = await running.post("/v1/events", sent, headers=key)
    assert again.json() == first.json()
    assert again.json()["results"][0]["status"] == "accepted"
    assert again.status_code == 202
    assert again.headers["idempotent-replay"] == "true"
    other = await running.post("/v1/events", {"events": [event()]}, headers=key)
    assert other.status_code == 409
    assert len(running.logged()) == 1
    running.clock.at += timedelta(hours=24, seconds=1)
    late = await running.post("/v1/events", {"events": [event()]}, headers=key)
    assert late.status_code == 202
    long_key = {"Idempotency-Key": "k" * 256}
    assert (await running.post("/v1/events", sent, headers=long_key)).status_code == 400


async def test_one_idempotency_key_sent_many_times_at_once(running: Running) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    bodies = [{"events": [event()]} for _ in range(6)]
    answers = await asyncio.gather(
        *(running.post("/v1/events", body, headers=key) for body in [*bodies, bodies[0]])
    )
    assert sorted(one.status_code for one in answers[:6]) == [202, 409, 409, 409, 409, 409]
    assert len(running.logged()) == 1
    if answers[0].status_code == 202:
        assert answers[6].json() == answers[0].json()
        assert answers[6].headers["idempotent-replay"] == "true"
    assert not running.gateway.answering


async def test_a_string_is_no_number(running: Running) -> None:
    sent = event(items=[{"item_id": "item-3", "quantity": "2"}])
    answer = await running.post("/v1/events", {"events": [sent, event()]})
    assert [one["status"] for one in answer.json()["results"]] == ["rejected", "accepted"]


async def test_every_version_that_there_was_is_taken_and_a_newer_one_is_told(
    running: Running,
) -> None:
    scrolled = event(event_name="scroll", items=[], percent_scrolled=70)
    sent = [
        event(),  # the first clients said nothing
        event(schema_version=1),
        scrolled | {"schema_version": 2, "event_id": str(uuid4())},
        scrolled | {"schema_version": 1, "event_id": str(uuid4())},
        event(event_name="feedback", schema_version=2),
        event(event_name="feedback", schema_version=2, feedback="hidden"),
        event(event_name="feedback", schema_version=3, feedback="hidden"),
        event(schema_version=4),
        event(schema_version="4111111111111111"),
    ]
    answer = await running.post("/v1/events", {"events": sent})
    results = answer.json()["results"]
    assert [(one["status"], one.get("reason")) for one in results] == [
        ("accepted", None),
        ("accepted", None),
        ("accepted", None),
        ("rejected", "invalid"),
        ("accepted", None),
        ("rejected", "invalid"),
        ("accepted", None),
        ("rejected", "version"),
        ("rejected", "version"),
    ]
    assert "percent_scrolled" in results[3]["detail"]
    assert "feedback: unknown before" in results[5]["detail"]
    assert f"1 to {SCHEMA_VERSION}" in results[7]["detail"]
    assert "41111111" not in answer.text.replace(" ", "")
    kept = running.logged()
    assert {stored.schema_version for stored in kept} == {SCHEMA_VERSION}
    assert [stored.percent_scrolled for stored in kept] == [None, None, 70, None, None]
    assert [stored.feedback for stored in kept] == [None, None, None, None, "hidden"]


async def test_a_page_says_what_its_shopper_pressed_and_a_server_what_came_back(
    running: Running,
) -> None:
    sent = [
        event(event_name="feedback", schema_version=3, feedback=kind)
        for kind in ("not_for_me", "hidden", "returned")
    ]
    answer = await running.post("/v1/events", {"events": sent}, "collect")
    results = answer.json()["results"]
    assert [one["status"] for one in results] == ["accepted", "accepted", "rejected"]
    assert results[2]["reason"] == "forbidden"
    assert "feedback" in results[2]["detail"]
    answer = await running.post("/v1/events", {"events": sent[2:]})
    assert answer.json()["results"][0]["status"] == "accepted"
    assert [stored.feedback for stored in running.logged()] == ["not_for_me", "hidden", "returned"]


async def test_a_wrong_event_harms_none_that_is_validated_with_it(running: Running) -> None:
    sent: list[object] = [event() for _ in range(100)]
    wrong = {3: {"event_id": 7}, 40: "text", 41: event(schema_version=99), 99: event(items=[])}
    for place, odd in wrong.items():
        sent[place] = odd
    results = (await running.post("/v1/events", {"events": sent})).json()["results"]
    for place, (one, result) in enumerate(zip(sent, results, strict=True)):
        assert result["status"] == ("rejected" if place in wrong else "accepted")
        if place not in wrong:
            assert isinstance(one, dict)
            assert result["event_id"] == one["event_id"]
    assert [results[place]["reason"] for place in wrong] == [
        *("invalid", "invalid", "version", "invalid")
    ]
    assert len(running.logged()) == len(sent) - len(wrong)


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        ("0001-01-01T00:00:00+14:00", "no time"),
        ("9999-12-31T23:59:59-14:00", "no time"),
        ("0001-01-01T00:00:00Z", "before 1970"),
        ("1969-12-31T23:59:59Z", "before 1970"),
    ],
)
async def test_a_time_that_nobody_could_read_later_is_refused(
    running: Running, moment: str, why: str
) -> None:
    sent = {"events": [event(occurred_at=moment), event(occurred_at="2017-11-20T12:30:00+02:00")]}
    answer = await running.post("/v1/events", sent, "collect")
    assert answer.status_code == 202
    refused, taken = answer.json()["results"]
    assert (refused["status"], refused["reason"]) == ("rejected", "invalid")
    assert why in refused["detail"]
    assert taken["status"] == "accepted"
    (stored,) = running.logged()
    assert stored.occurred_at.isoformat() == "2017-11-20T10:30:00+00:00"


@pytest.mark.parametrize(
    ("role", "told"), [("checkout", "gateway only"), ("collect", "collect key")]
)
async def test_a_refusal_of_all_is_told_in_words_for_that_key(
    running: Running, role: Role, told: str
) -> None:
    answer = await running.post("/v1/events", {"events": [event(event_name="decision")]}, role)
    assert answer.status_code == 403
    assert told in answer.json()["detail"]
