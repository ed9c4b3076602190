"""What a shopper may ask for: to read everything, and that it is gone."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from contract.clock import FixedClock
from serving.ingest.retention import enforce
from serving.retention import Retention
from serving.state.audit import COMMAND_LINE, GATEWAY, first_fault
from serving.state.control_records import Export
from serving.state.exports import erase_from, narrow, row_of
from serving.state.feature_store import MemoryFeatureStore
from serving.state.parquet_parts import export as export_log
from serving.state.parquet_parts import open_parts
from serving.state.receipts import InvalidReceipt, ReceiptSigner, verify
from tests.serving.api.test_subjects_and_consent import resolve, say
from tests.serving.conftest import ALL, NOON, Running, Start, event, purchase
from tests.serving.traces import found_in, opened_by_any, sealed_events

EVERYTHING = dict.fromkeys(ALL, True)


async def read(running: Running, subject: str, status: int = 200) -> dict[str, Any]:
    answer = await running.client.get(f"/v1/subjects/{subject}", headers=running.bearer("admin"))
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def erase(running: Running, subject: str, **headers: str) -> dict[str, Any]:
    answer = await running.client.delete(
        f"/v1/subjects/{subject}", headers=running.bearer("admin") | headers
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def shopped(running: Running, visitor: str, user: str | None = None) -> str:
    """A shopper with consent, events, a decision and, logged in, a link."""
    who = {"visitor_id": visitor, "user_id": user}
    await running.post("/v1/events", {"events": [event(visitor_id=visitor) for _ in range(3)]})
    sent = {"events": [purchase("item-3", "item-4", **who), event(**who)]}
    assert (await running.post("/v1/events", sent)).status_code == 202
    decided = await running.decide(consent=ALL, **who)
    assert decided.status_code == 200
    await running.quiet()
    subject = await resolve(running, visitor, user)
    await say(running, subject, **EVERYTHING)
    return subject


async def test_everything_that_is_held_can_be_read(running: Running) -> None:
    user = await shopped(running, "raw-visitor", "raw-user")
    await shopped(running, "somebody-else")
    held = await read(running, user)
    assert len(held["subjects"]) == 2
    (visitor,) = [one["subject_id"] for one in held["subjects"] if one["subject_id"] != user]
    assert [one["linked_to"] for one in held["subjects"] if one["subject_id"] == visitor] == [user]
    names = sorted(one["event_name"] for one in held["events"])
    assert names == ["purchase"] + ["view_item"] * 4
    assert {one["subject_id"] for one in held["events"]} == {user, visitor}
    assert [one["event_name"] for one in held["decisions"]] == ["decision"]
    assert held["decisions"][0]["decision"]["shown"]
    consents = [one for part in held["subjects"] for one in part["consent"]]
    assert any(one["source"] == "banner" and one["wording_version"] == "v7" for one in consents)
    assert {row["item_id"] for row in held["features"][user]["purchases"]} == {"item-3", "item-4"}
    assert held["segments"] == ["first_time_buyers"]
    actions = [one["action"] for part in held["subjects"] for one in part["audit"]]
    assert "consent.recorded" in actions
    assert "raw-" not in json.dumps(held)
    # that it was read is known from then on
    again = await read(running, user)
    assert "subject.exported" in str([part["audit"] for part in again["subjects"]])
    # the visitor's own id leads to the same person
    assert len((await read(running, visitor))["subjects"]) == 2


@pytest.mark.parametrize("role", ["checkout", "collect", None])
async def test_only_an_admin_reads_or_erases(running: Running, role: Any) -> None:
    subject = await resolve(running, "a")
    path, headers = f"/v1/subjects/{subject}", running.bearer(role)
    status = 401 if role is None else 403
    assert (await running.client.get(path, headers=headers)).status_code == status
    assert (await running.client.delete(path, headers=headers)).status_code == status
    assert await resolve(running, "a", create=False) == subject


async def test_an_unknown_subject_is_404(running: Running) -> None:
    for subject in (str(uuid4()), "nonsense"):
        for method in ("GET", "DELETE"):
            answer = await running.client.request(
                method, f"/v1/subjects/{subject}", headers=running.bearer("admin")
            )
            assert answer.status_code == 404


async def exported(running: Running, folder: Path) -> Export:
    """Begun, or gone on with."""
    control, log = running.gateway.control, running.gateway.event_log
    known = [one for one in control.exports() if one.folder == str(folder)]
    export = Export(str(uuid4()), str(folder), running.clock.now(), uuid4().bytes * 2)
    if known:
        (export,) = known
    else:
        await control.add_export(export)

    def agreed(subject_id: str) -> frozenset[str]:
        consent = control.consent_of(subject_id)
        return frozenset() if consent is None else consent.purposes

    with open_parts(folder, log.log_id) as parts:
        narrow(export, control.subject_ids(), agreed)
        export_log(log, parts, row=row_of(export, agreed))
    return export


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((folder / "events").glob("**/*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def remembered(running: Running) -> int:
    features = running.gateway.features
    assert isinstance(features, MemoryFeatureStore)
    return len(features)


async def test_after_an_erasure_nothing_is_left_anywhere(running: Running, tmp_path: Path) -> None:
    state = tmp_path / "state"
    names = ["visitor-who-goes", "user-who-goes", "visitor-who-stays"]
    gone = await shopped(running, names[0], names[1])
    stays = await shopped(running, names[2])
    gateway = running.gateway
    person = gateway.control.person_of(gone)
    assert len(person) == 2
    key = f"{uuid4()}"
    await running.post(
        "/v1/subjects/resolve",
        {"visitor_id": names[0], "user_id": names[1]},
        headers={"Idempotency-Key": key},
    )
    await gateway.features.snapshot()
    await exported(running, tmp_path / "export")
    rows = rows_of(tmp_path / "export")
    assert len({row["subject_id"] for row in rows}) == 3
    assert {row["subject_id"] for row in rows}.isdisjoint({*person, stays})
    await gateway.control.scrub(())  # so that all lies in the main files as well
    control_file = state / "control.sqlite"
    assert found_in(state, person), "the test must be able to find what is still there"
    bodies = sealed_events(state / "events.sqlite")
    assert opened_by_any(gateway.control, control_file, bodies) == len(bodies)

    signed = await erase(running, gone, **{"Idempotency-Key": "again"})

    receipt = verify(signed, ReceiptSigner(gateway.control.service_key("receipt")).public_key)
    assert sorted(receipt["subject_ids"]) == sorted(person)
    assert (receipt["events_removed"], receipt["control_store_clean"]) == (6, True)
    assert receipt["export_rows_removed"] == 6
    left = sealed_events(state / "events.sqlite")
    others = len(bodies) - 6
    assert len(left) == others
    # the copies that somebody may have made of the sealed rows open no more
    assert opened_by_any(gateway.control, control_file, bodies) == others
    assert await gateway.features.read(gone) == {}
    assert len({row["subject_id"] for row in rows_of(tmp_path / "export")}) == 1
    assert found_in(tmp_path, [*person, *names]) == []
    await read(running, gone, status=404)
    await running.stop()  # the next snapshot, and whatever is flushed at the end
    assert found_in(tmp_path, [*person, *names]) == []


async def test_a_returning_shopper_is_somebody_new(start: Start, tmp_path: Path) -> None:
    running = await start()
    gone = await shopped(running, "v", "u")
    await erase(running, gone)
    answer = await running.decide(visitor_id="v", user_id="u")
    assert answer.status_code == 200
    body = {"visitor_id": "v", "user_id": "u", "create": False}
    assert (await running.post("/v1/subjects/resolve", body)).status_code == 404
    again = await shopped(running, "v", "u")
    assert again != gone
    assert len((await read(running, again))["events"]) == 5
    await running.stop()
    running = await start()
    assert await resolve(running, "v", "u", create=False) == again


async def test_a_repeated_erasure_gives_the_receipt_again(running: Running) -> None:
    subject = await shopped(running, "v")
    first = await erase(running, subject, **{"Idempotency-Key": "k"})
    assert await erase(running, subject, **{"Idempotency-Key": "k"}) == first
    answer = await running.client.delete(
        f"/v1/subjects/{subject}", headers=running.bearer("admin") | {"Idempotency-Key": "other"}
    )
    assert answer.status_code == 404


async def test_a_changed_receipt_is_refused(running: Running) -> None:
    signed = await erase(running, await shopped(running, "v"))
    key = ReceiptSigner(running.gateway.control.service_key("receipt")).public_key
    changed = signed | {"receipt": signed["receipt"] | {"events_removed": 0}}
    other = ReceiptSigner(b"o" * 32)
    for wrong, with_key in (
        (changed, key),
        (signed, other.public_key),
        (other.sign(signed["receipt"]), key),
        ({}, key),
        (signed | {"signature": "?"}, key),
    ):
        with pytest.raises(InvalidReceipt):
            verify(wrong, with_key)
    lines, _ = running.gateway.control.audit_log()
    assert {"number": lines[-1].number, "mac": lines[-1].mac} == signed["receipt"]["audit_line"]


async def test_the_audit_log_names_nobody_and_stays_whole(running: Running) -> None:
    subject = await shopped(running, "raw-visitor", "raw-user")
    person = running.gateway.control.person_of(subject)
    await read(running, subject)
    await erase(running, subject)
    control = running.gateway.control
    lines, head = control.audit_log()
    assert first_fault(lines, head, control.service_key("audit")) is None
    text = "\n".join(line.text for line in lines)
    assert not any(name in text for name in (*person, "raw-visitor", "raw-user"))
    actions = [json.loads(line.text)["action"] for line in lines]
    assert actions[:4] == ["log.begun"] + ["key.created"] * 3
    assert {"consent.recorded", "subject.exported", "subject.erased"} <= set(actions)
    said = next(json.loads(one.text) for one in lines if '"consent.recorded"' in one.text)
    assert said["detail"] == {"purposes": ["analytics", "offers", "personalization"]}
    erased = json.loads(lines[-1].text)
    assert erased["by"]["role"] == "admin"


async def test_the_second_user_of_a_device_takes_nothing_of_the_first(running: Running) -> None:
    first = await shopped(running, "shared", "first-user")
    second = await shopped(running, "shared", "second-user")
    device = next(one for one in running.gateway.control.person_of(first) if one != first)
    await erase(running, second)
    held = await read(running, first)
    assert {one["subject_id"] for one in held["subjects"]} == {first, device}
    # who comes with the device alone is recognised as neither of them
    body = {"visitor_id": "shared", "create": False}
    assert (await running.post("/v1/subjects/resolve", body)).status_code == 404
    await erase(running, first)
    await read(running, device, status=404)


async def test_events_under_way_are_not_stored(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = await shopped(running, "v")
    log = running.gateway.event_log
    held, append = asyncio.Event(), log.append

    async def late(events: Any) -> Any:
        await held.wait()
        return await append(events)

    monkeypatch.setattr(log, "append", late)
    sending = asyncio.create_task(running.post("/v1/events", {"events": [event(visitor_id="v")]}))
    shown = asyncio.create_task(running.decide(visitor_id="v", consent=ALL))
    for _ in range(20):
        await asyncio.sleep(0.01)
    erasing = asyncio.create_task(erase(running, subject))
    while running.gateway.control.exists(subject):
        await asyncio.sleep(0.01)
    held.set()
    await erasing
    assert (await sending).json()["results"][0]["reason"] == "no_consent"
    await shown
    await running.quiet()
    assert running.logged() == []
    assert remembered(running) == 0


async def test_an_erasure_cut_short_is_finished_at_the_next_start(
    start: Start, tmp_path: Path
) -> None:
    running = await start()
    subject = await shopped(running, "v")
    await shopped(running, "other")
    await running.gateway.control.erase(subject, COMMAND_LINE)  # and then the power went
    await running.stop()
    held = len(sealed_events(tmp_path / "state" / "events.sqlite"))
    running = await start()
    assert len(sealed_events(tmp_path / "state" / "events.sqlite")) == held / 2
    assert running.gateway.control.unfinished_erasures() == ()
    assert remembered(running) == 1


async def test_a_moved_export_is_told_in_the_receipt(running: Running, tmp_path: Path) -> None:
    subject = await shopped(running, "v")
    await exported(running, tmp_path / "export")
    (tmp_path / "export").rename(tmp_path / "elsewhere")
    signed = await erase(running, subject)
    assert signed["receipt"]["exports_not_found"] == 1


async def test_what_is_no_longer_agreed_to_is_not_exported(
    running: Running, tmp_path: Path
) -> None:
    subject = await shopped(running, "v")
    await shopped(running, "w")
    await say(running, subject, analytics=True)
    await exported(running, tmp_path / "one")
    purposes = {tuple(row["purposes"]) for row in rows_of(tmp_path / "one")}
    assert ("analytics",) in purposes
    assert any("personalization" in one for one in purposes)
    await say(running, subject)
    await exported(running, tmp_path / "two")
    assert len(rows_of(tmp_path / "two")) == len(rows_of(tmp_path / "one")) / 2
    names = [{row["subject_id"] for row in rows_of(tmp_path / one)} for one in ("one", "two")]
    assert names[0].isdisjoint(names[1])
    # An export that was made before says no more, once it is gone on with.
    await exported(running, tmp_path / "one")
    again = rows_of(tmp_path / "one")
    assert {row["event_id"] for row in again} == {
        row["event_id"] for row in rows_of(tmp_path / "two")
    }
    assert {tuple(row["purposes"]) for row in again} == {
        tuple(row["purposes"]) for row in rows_of(tmp_path / "two")
    }


async def test_erasures_at_once_do_not_undo_one_another(running: Running, tmp_path: Path) -> None:
    people = [await shopped(running, f"v-{n}") for n in range(8)]
    export = await exported(running, tmp_path / "export")
    assert len({row["subject_id"] for row in rows_of(tmp_path / "export")}) == 8
    await asyncio.gather(*(asyncio.to_thread(erase_from, [export], [one]) for one in people[:7]))
    assert len({row["subject_id"] for row in rows_of(tmp_path / "export")}) == 1


async def test_nothing_computed_of_the_erased_is_kept_whoever_erases(running: Running) -> None:
    gateway = running.gateway
    cache = gateway.decider.query_vectors.of(gateway.live.current)
    first, second, third = [await shopped(running, f"v-{n}") for n in range(3)]

    async def held() -> int:
        assert (await running.decide()).json()["rung"] == "full"
        return len(cache)

    assert await held() > 0
    assert await gateway.rights.erase(first, GATEWAY) is not None  # as the retention job does
    assert len(cache) == 0
    assert await held() > 0
    await erase(running, second)
    assert len(cache) == 0
    gateway.follow_erasures()
    assert await held() > 0
    gateway.follow_erasures()
    assert len(cache) > 0  # nothing new
    await gateway.control.erase(third, GATEWAY)  # by another process on the store
    gateway.follow_erasures()
    assert len(cache) == 0


async def test_each_kind_of_data_goes_after_its_time(running: Running, tmp_path: Path) -> None:
    gateway = running.gateway
    await shopped(running, "old")
    await exported(running, tmp_path / "export")
    running.clock.at += timedelta(days=20)
    recent = await shopped(running, "recent")
    counts = len(running.logged())
    periods = Retention(behaviour=30, decisions=25, subjects=40, exports=10, audit=15)

    async def run() -> Any:
        return await enforce(periods, gateway.stores, gateway.rights, gateway.clock)

    first = await run()
    assert (first.behaviour, first.decisions, first.subjects, first.exports) == (0, 0, 0, 1)
    assert not (tmp_path / "export" / "events").exists()
    assert first.audit > 0
    running.clock.at += timedelta(days=6)  # 26 days after the first shopper
    second = await run()
    assert (second.behaviour, second.decisions, second.states) == (0, 1, 0)
    running.clock.at += timedelta(days=6)
    third = await run()
    # Both shoppers' events say that they happened on the first day, which features go by.
    assert (third.behaviour, third.states, third.subjects) == (5, 2, 0)
    running.clock.at += timedelta(days=10)  # 42
    fourth = await run()
    assert fourth.subjects == 1
    assert len(running.logged()) == counts - 6
    assert await resolve(running, "recent", create=False) == recent
    lines, head = gateway.control.audit_log()
    assert first_fault(lines, head, gateway.control.service_key("audit")) is None


async def test_the_daily_job_runs_though_the_gateway_is_started_anew_every_night(
    start: Start,
) -> None:
    async def settled(running: Running) -> None:
        for _ in range(500):
            if running.gateway.control.last_run("retention") == running.clock.now():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the job did not run")

    clock = FixedClock(NOON)
    periods = Retention(behaviour=10, decisions=10)
    running = await start(clock, retention=periods)
    await settled(running)  # a new store is due after its first day
    await shopped(running, "v")
    assert len(running.logged()) == 6
    for _ in range(11):
        await running.stop()
        clock.at += timedelta(hours=23)
        running = await start(clock, retention=periods)
        await asyncio.sleep(0.05)
    assert len(running.logged()) == 6  # 253 hours: the day is not over yet
    await running.stop()
    clock.at += timedelta(hours=23)
    running = await start(clock, retention=periods)
    await settled(running)
    assert running.logged() == []
