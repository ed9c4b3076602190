"""Erasures that something stood in the way of: nothing is forgotten, and they can be asked for
again."""

import asyncio
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from serving.commands.export import _brought_up
from serving.decision.messages import DecideRequest
from serving.decision.outcome import SubjectContext
from serving.ingest import rights
from serving.ingest.retention import enforce
from serving.state.audit import COMMAND_LINE
from serving.state.receipts import ReceiptSigner, verify
from serving.state.sqlite_writer import StoreError
from tests.serving.api.test_offers import FIRST, TEN, offered, put
from tests.serving.api.test_rights import erase, exported, read, remembered, rows_of, shopped
from tests.serving.api.test_subjects_and_consent import resolve, say
from tests.serving.conftest import ALL, Running, Start, checkout, event, purchase


async def export(running: Running, folder: Path) -> Any:
    """The command, while the gateway runs."""
    control = running.gateway.control
    return await asyncio.to_thread(_brought_up, running.gateway.settings, control, folder)


def people(folder: Path) -> int:
    return len({row["subject_id"] for row in rows_of(folder)})


async def delete(running: Running, subject: str) -> httpx.Response:
    return await running.client.delete(f"/v1/subjects/{subject}", headers=running.bearer("admin"))


def full_disk(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


async def test_an_export_that_was_away_is_looked_through_when_it_is_back(
    running: Running, tmp_path: Path
) -> None:
    subject = await shopped(running, "v")
    await shopped(running, "w")
    await exported(running, tmp_path / "export")
    (tmp_path / "export").rename(tmp_path / "elsewhere")
    first = (await erase(running, subject))["receipt"]
    assert (first["exports_not_found"], first["finished"]) == (1, False)
    assert await running.gateway.rights.finish() == 0  # nothing can be done yet
    (tmp_path / "elsewhere").rename(tmp_path / "export")
    assert await running.gateway.rights.finish() == 1
    assert people(tmp_path / "export") == 1
    last = (await erase(running, subject))["receipt"]
    assert (last["exports_not_found"], last["finished"]) == (0, True)
    assert last["export_rows_removed"] > 0
    assert last["audit_line"] == first["audit_line"]
    await read(running, subject, status=404)
    assert (await delete(running, subject)).status_code == 404


async def test_the_next_export_keeps_only_the_living(running: Running, tmp_path: Path) -> None:
    subject = await shopped(running, "v")
    await shopped(running, "w")
    await export(running, tmp_path / "export")
    (tmp_path / "export").rename(tmp_path / "elsewhere")
    await erase(running, subject)
    (tmp_path / "elsewhere").rename(tmp_path / "export")
    assert people(tmp_path / "export") == 2
    await export(running, tmp_path / "export")
    assert people(tmp_path / "export") == 1


async def test_the_daily_job_takes_out_whoever_came_back_with_a_copy(
    running: Running, tmp_path: Path
) -> None:
    subject = await shopped(running, "v")
    await shopped(running, "w")
    await exported(running, tmp_path / "export")
    shutil.copytree(tmp_path / "export", tmp_path / "copy")
    await erase(running, subject)
    shutil.rmtree(tmp_path / "export")
    (tmp_path / "copy").rename(tmp_path / "export")
    assert people(tmp_path / "export") == 2
    gateway = running.gateway
    await enforce(gateway.settings.retention, gateway.stores, gateway.rights, gateway.clock)
    assert people(tmp_path / "export") == 1


async def test_a_crash_after_the_keys_went_does_not_leave_rows_in_exports(
    start: Start, tmp_path: Path
) -> None:
    running = await start()
    subject = await shopped(running, "v")
    await shopped(running, "w")
    await exported(running, tmp_path / "export")
    await running.gateway.control.erase(subject, COMMAND_LINE)  # and then the power went
    await running.stop()
    assert people(tmp_path / "export") == 2
    running = await start()
    assert people(tmp_path / "export") == 1
    # Whoever asked gets their receipt still.
    assert (await erase(running, subject))["receipt"]["finished"] is True


async def test_a_full_disk_is_told_and_the_erasure_goes_on_when_there_is_room(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = await shopped(running, "v")
    await shopped(running, "w")
    await exported(running, tmp_path / "export")
    with monkeypatch.context() as patched:
        patched.setattr(rights, "erase_from", full_disk)
        assert (await delete(running, subject)).status_code == 503
        assert (await delete(running, subject)).status_code == 503
        with pytest.raises(StoreError, match="export"):
            await running.gateway.rights.finish()
    assert remembered(running) == 1
    receipt = (await erase(running, subject))["receipt"]
    assert (receipt["finished"], people(tmp_path / "export")) == (True, 1)


async def test_an_erasure_that_failed_is_asked_for_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = await shopped(running, "v", "u")
    gateway = running.gateway
    person = gateway.control.person_of(subject)

    async def away(_: Any) -> int:
        raise StoreError("the event log is away")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.event_log, "forget", away)
        assert (await delete(running, subject)).status_code == 503
        assert remembered(running) == 0  # in the clear, in this process: these do not wait
    kept = b"".join(
        path.read_bytes() for path in gateway.settings.state.iterdir() if path.is_file()
    )
    assert not any(one.encode() in kept for one in person)
    visitor = next(one for one in person if one != subject)
    signed = await erase(running, visitor)  # by any id of the person
    key = ReceiptSigner(gateway.control.service_key("receipt")).public_key
    receipt = verify(signed, key)
    assert sorted(receipt["subject_ids"]) == sorted(person)
    assert (receipt["finished"], receipt["events_removed"]) == (True, 6)
    assert gateway.control.erasures_kept() == []
    assert running.logged() == []


async def test_one_that_was_finished_meanwhile_gives_its_receipt_for_a_day(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = [await shopped(running, f"v-{n}") for n in range(2)]
    for subject in subjects:
        await running.gateway.control.erase(subject, COMMAND_LINE)
    assert await running.gateway.rights.finish() == 2
    receipt = (await erase(running, subjects[0]))["receipt"]
    assert (receipt["finished"], receipt["events_removed"]) == (True, 6)
    now = running.clock.now()
    await running.gateway.control.let_go(now, now)
    assert len(running.gateway.control.erasures_kept()) == 1
    later = now.replace(day=now.day + 2)
    await running.gateway.control.let_go(now, later)
    assert (await delete(running, subjects[1])).status_code == 404


async def test_an_export_says_what_the_shopper_agrees_to_now(
    running: Running, tmp_path: Path
) -> None:
    async def searched(visitor: str) -> str:
        body = event(
            event_name="search",
            items=[],
            search_term="my illness",
            visitor_id=visitor,
            context={"region": "Smallville", "country": "US"},
        )
        assert (await running.post("/v1/events", {"events": [body]})).status_code == 202
        return await resolve(running, visitor)

    def told() -> set[tuple[Any, Any, Any]]:
        rows = rows_of(tmp_path / "export")
        return {
            (row["search_term"], row["context"]["region"], row["context"]["country"])
            for row in rows
        }

    first, second = await searched("v"), await searched("w")
    await say(running, first, analytics=True)
    await export(running, tmp_path / "export")
    assert told() == {(None, None, "US"), ("my illness", "Smallville", "US")}
    await say(running, second, analytics=True)  # whose row was exported as a whole
    await export(running, tmp_path / "export")
    assert told() == {(None, None, "US")}
    assert len(rows_of(tmp_path / "export")) == 2


async def test_an_event_of_no_time_that_an_earlier_version_took_spoils_nothing(
    running: Running, tmp_path: Path
) -> None:
    subject = await shopped(running, "v")
    (first, *_) = running.logged()
    nowhen = datetime.fromisoformat("0001-01-01T00:00:00+14:00")
    old = first.model_copy(update={"event_id": uuid4(), "occurred_at": nowhen})
    assert await running.gateway.event_log.append([old]) == ["accepted"]
    await running.gateway.ingest._features.absorb([old])  # type: ignore[union-attr]
    assert len((await read(running, subject))["events"]) == 6
    for path in (f"/v1/subjects/{subject}/segments", f"/v1/consent/{subject}"):
        answer = await running.client.get(path, headers=running.bearer())
        assert answer.status_code == 200, answer.text
    done = await export(running, tmp_path / "export")
    assert (done.read, done.added, done.left_out) == (7, 6, 1)
    assert len(rows_of(tmp_path / "export")) == 6


async def test_the_shadow_lets_go_of_the_erased_too(running: Running) -> None:
    gateway = running.gateway
    shadow = gateway.shadow._decider
    shadow._live = gateway.live  # as if the live release were on trial
    cache = shadow.query_vectors.of(gateway.live.current)
    subject = await shopped(running, "v")
    asked = DecideRequest.model_validate_json(json.dumps(checkout(visitor_id="v")))
    known = SubjectContext(subject, frozenset(ALL), (subject,))

    async def held() -> int:
        await shadow.decide(asked, known)
        return len(cache)

    assert await held() > 0
    await erase(running, subject)
    assert len(cache) == 0
    assert await held() > 0
    await gateway.control.erase(await resolve(running, "w"), COMMAND_LINE)  # by another process
    gateway.follow_erasures()
    assert len(cache) == 0


async def test_an_export_is_for_its_owner_and_names_no_orders(
    running: Running, tmp_path: Path
) -> None:
    sent = [
        purchase("item-1", transaction_id="order-77", session_id="session-77"),
        event(event_name="refund", transaction_id="order-77", session_id="session-77"),
        event(session_id="session-78"),
    ]
    assert (await running.post("/v1/events", {"events": sent})).status_code == 202
    for name in ("one", "two"):
        await export(running, tmp_path / name)
    found = [*(tmp_path / "one").rglob("*"), tmp_path / "one"]
    assert {(path.is_dir(), path.stat().st_mode & 0o777) for path in found} == {
        (True, 0o700),
        (False, 0o600),
    }
    one, two = (rows_of(tmp_path / name) for name in ("one", "two"))
    orders = [row["transaction_id"] for row in one if row["transaction_id"]]
    assert len(orders) == 2
    assert len(set(orders)) == 1  # a refund still finds its purchase
    assert len({row["session_id"] for row in one}) == 2
    for column in ("transaction_id", "session_id"):
        names = [{row[column] for row in rows} - {None} for rows in (one, two)]
        assert names[0].isdisjoint(names[1])
        assert not any("7" in one and "-" in one for one in names[0])


async def test_a_kept_answer_names_nobody_who_was_erased(running: Running) -> None:
    body, key = {"visitor_id": "v"}, {"Idempotency-Key": "once"}
    first = (await running.post("/v1/subjects/resolve", body, headers=key)).json()["subject_id"]
    again = (await running.post("/v1/subjects/resolve", body, headers=key)).json()["subject_id"]
    assert first == again
    await erase(running, first)
    new = (await running.post("/v1/subjects/resolve", body, headers=key)).json()["subject_id"]
    assert new != first
    assert running.gateway.control.exists(new)


async def test_what_is_held_includes_coupons(running: Running) -> None:
    await put(running, TEN, FIRST)
    made = []
    for visitor, changed in (
        ("v", {}),
        ("v", {"user_id": "u", "context": {"first_order": True}}),
        ("w", {}),
    ):
        decision = await offered(running, visitor_id=visitor, **changed)
        for offer in decision["offers"]:
            body = {"offer_token": offer["offer_token"], "visitor_id": visitor}
            body |= {"user_id": "u"} if changed else {}
            path = f"/v1/offers/{offer['offer_id']}/reservations"
            answer = await running.post(path, body)
            assert answer.status_code in (200, 201), answer.text
            made.append((visitor, answer.json()["reservation_id"]))
    await running.quiet()
    assert len(made) > 2
    held = await read(running, await resolve(running, "v", "u"))
    assert {one["reservation_id"] for one in held["reservations"]} == {
        reservation_id for visitor, reservation_id in made if visitor == "v"
    }
    assert {one["state"] for one in held["reservations"]} == {"reserved"}
