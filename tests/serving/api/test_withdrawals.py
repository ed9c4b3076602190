"""A no that was said is never undone, and holds for what lies under the person who said it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from serving.commands import export
from tests.serving.api.test_auth import page_token
from tests.serving.api.test_subjects_and_consent import NONE, consent, resolve, say
from tests.serving.conftest import ALL, BROWSER, Running, checkout, event

EVERYTHING = dict.fromkeys(ALL, True)


async def behave(running: Running, role: Any = "checkout", **said: Any) -> str:
    answer = await running.post("/v1/events", {"events": [event(**said)]}, role=role)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["results"][0]["status"])


def in_effect(running: Running, visitor: str, user: str | None = None) -> set[str]:
    return set(running.gateway.subjects.recognise(visitor, user, None, gpc=False).purposes)


async def test_a_withdrawal_outlives_the_next_login(running: Running) -> None:
    user = await resolve(running, "desk", "u")
    await say(running, user, **EVERYTHING)
    phone = await resolve(running, "phone")
    await say(running, phone, **EVERYTHING)
    await behave(running, visitor_id="phone")
    await say(running, phone)
    stored = len(running.logged())
    assert in_effect(running, "phone", "u") == set()
    assert (await running.decide(visitor_id="phone", user_id="u")).status_code == 200
    await running.quiet()
    assert len(running.logged()) == stored
    assert await resolve(running, "phone", "u") == user
    assert (await consent(running, user))["purposes"] == NONE
    assert in_effect(running, "desk", "u") == set()


async def test_a_users_newer_no_outlives_what_a_visitor_agreed_to_before(running: Running) -> None:
    phone = await resolve(running, "phone")
    await say(running, phone, **EVERYTHING)
    user = await resolve(running, "desk", "u")
    await say(running, user)
    assert in_effect(running, "phone", "u") == set()
    assert await resolve(running, "phone", "u") == user
    assert (await consent(running, user))["purposes"] == NONE


async def test_an_older_yes_that_a_login_carries_over_is_no_newer_word(running: Running) -> None:
    desk = await resolve(running, "desk")
    await say(running, desk, **EVERYTHING)
    running.clock.at += timedelta(minutes=1)
    phone = await resolve(running, "phone")
    await say(running, phone)
    running.clock.at += timedelta(minutes=1)
    user = await resolve(running, "desk", "u")  # which writes the yes anew
    assert (await consent(running, user))["purposes"] == EVERYTHING
    assert in_effect(running, "phone", "u") == set()
    assert await resolve(running, "phone", "u") == user
    assert (await consent(running, user))["purposes"] == NONE


async def two_on_a_tablet(running: Running) -> tuple[str, str, str]:
    """The tablet's own subject, whose history Anna's is, and hers, and Ben's, who holds it now."""
    await behave(running, visitor_id="tablet", items=[{"item_id": "item-8"}])
    tablet = await resolve(running, "tablet")
    anna = await resolve(running, "tablet", "anna")
    ben = await resolve(running, "bens-phone", "ben")
    await say(running, ben, **EVERYTHING)
    assert await resolve(running, "tablet", "ben") == ben
    return tablet, anna, ben


async def test_a_shared_devices_history_follows_its_owners_word(
    running: Running, tmp_path: Path
) -> None:
    tablet, anna, ben = await two_on_a_tablet(running)
    await say(running, anna)
    assert (await consent(running, tablet))["purposes"] == NONE
    path = f"/v1/subjects/{tablet}/segments"
    told = await running.client.get(path, headers=running.bearer())
    assert told.json()["personalization"] is False
    settings, control = running.gateway.settings, running.gateway.control
    await asyncio.to_thread(export._brought_up, settings, control, tmp_path)
    assert [row for file in tmp_path.rglob("*.parquet") for row in pq.read_table(file)] == []
    await say(running, tablet)  # which is Anna's to say, not Ben's
    assert (await consent(running, ben))["purposes"] == EVERYTHING
    assert in_effect(running, "tablet") == set(ALL)  # Ben, who speaks there now


async def test_a_shared_devices_erasure_is_its_owners(running: Running) -> None:
    tablet, anna, ben = await two_on_a_tablet(running)
    admin = running.bearer("admin")
    held = (await running.client.get(f"/v1/subjects/{tablet}", headers=admin)).json()
    assert {one["subject_id"] for one in held["subjects"]} == {tablet, anna}
    assert ben not in str(held)
    answer = await running.client.delete(f"/v1/subjects/{tablet}", headers=admin)
    assert set(answer.json()["receipt"]["subject_ids"]) == {tablet, anna}
    assert running.gateway.control.exists(ben)


@pytest.mark.parametrize("role", ["collect", "checkout"])
async def test_an_event_that_says_no_withdraws(running: Running, role: Any) -> None:
    assert await behave(running, role, visitor_id="p") == "accepted"
    assert await behave(running, role, visitor_id="p", consent=NONE) == "rejected"
    assert in_effect(running, "p") == set()
    held = await consent(running, await resolve(running, "p"))
    assert held["purposes"] == NONE
    assert held["source"] == ("page" if role == "collect" else "request")
    assert held["wording_version"] is None  # a request says none
    # A page takes back; it does not give again over what was recorded.
    assert await behave(running, role, visitor_id="p") == "rejected"


async def test_a_word_in_a_page_says_that_it_was(running: Running) -> None:
    headers = {"Authorization": f"Bearer {page_token(running)}", "User-Agent": BROWSER}
    asked = checkout(visitor_id="p", consent=ALL)
    answer = await running.client.post("/v1/checkout/decide", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    held = await consent(running, await resolve(running, "p"))
    assert (held["purposes"], held["source"], held["wording_version"]) == (ALL, "page", None)


async def test_a_decision_that_says_no_withdraws_for_whoever_is_named(running: Running) -> None:
    user = await resolve(running, "desk", "u")
    await say(running, user, **EVERYTHING)
    phone = await resolve(running, "phone")
    await say(running, phone, **EVERYTHING)
    no_offers = EVERYTHING | {"offers": False}
    await running.decide(visitor_id="phone", user_id="u", consent=no_offers)
    assert (await consent(running, user))["purposes"] == no_offers
    assert (await consent(running, phone))["purposes"] == no_offers
    await running.decide(visitor_id="phone", user_id="u", consent=NONE, gpc=True)
    assert (await consent(running, user))["purposes"] == NONE


async def test_a_no_reaches_both_before_they_are_linked(running: Running) -> None:
    user = await resolve(running, "desk", "u")
    await say(running, user, **EVERYTHING)
    phone = await resolve(running, "phone")
    await say(running, phone, **EVERYTHING)
    await say(running, phone)
    await running.decide(visitor_id="phone", user_id="u", consent=NONE)
    assert (await consent(running, user))["purposes"] == NONE
    assert in_effect(running, "desk", "u") == set()


async def test_a_no_to_an_older_word_does_not_make_it_the_newest(running: Running) -> None:
    """A user agreed to analytics; later their visitor, not logged in, to personalization. A no to
    analytics at the login takes that from the user and nothing from the newer word."""
    older, newer = ({"offers": True, one: True} for one in ("analytics", "personalization"))
    assert await behave(running, visitor_id="other", user_id="u", consent=older) == "accepted"
    await say(running, await resolve(running, "v"), **newer)
    word = newer | {"analytics": False}
    assert await behave(running, visitor_id="v", user_id="u", consent=word) == "accepted"
    assert in_effect(running, "v", "u") == {"offers", "personalization"}
    # And the user agrees to it on every device.
    assert in_effect(running, "other", "u") == {"offers", "personalization"}


async def test_a_purpose_that_is_not_named_stays_agreed_to(running: Running) -> None:
    await behave(running, visitor_id="p")
    await behave(running, visitor_id="p", consent={"analytics": True})
    assert in_effect(running, "p") == set(ALL)
    records = running.gateway.control.record_of(await resolve(running, "p"))
    assert records is not None
    assert len(records.consents) == 1


async def test_who_is_unknown_is_not_made_known_by_a_no(running: Running) -> None:
    before = running.gateway.control.subject_ids()
    await behave(running, visitor_id="p", consent=NONE)
    await running.decide(visitor_id="p", user_id="u", consent=NONE)
    assert running.gateway.control.subject_ids() == before


async def test_events_under_way_are_not_stored_after_a_withdrawal(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await behave(running, visitor_id="r")
    subject = await resolve(running, "r")
    ingest = running.gateway.ingest
    known, seen, go_on = ingest._known, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any, **more: Any) -> Any:
        found = await known(*asked, **more)
        seen.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(ingest, "_known", slow)
    sending = asyncio.create_task(behave(running, visitor_id="r"))
    await seen.wait()
    await say(running, subject)
    stored = len(running.logged())
    go_on.set()
    assert await sending == "rejected"
    assert len(running.logged()) == stored


async def test_a_withdrawal_is_answered_after_what_is_being_written(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await behave(running, visitor_id="r")
    subject = await resolve(running, "r")
    log = running.gateway.event_log
    append, begun, go_on = log.append, asyncio.Event(), asyncio.Event()

    async def slow(events: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await append(events)

    monkeypatch.setattr(log, "append", slow)
    sending = asyncio.create_task(behave(running, visitor_id="r"))
    await begun.wait()
    saying = asyncio.create_task(say(running, subject))
    await asyncio.sleep(0.1)
    assert not saying.done()
    go_on.set()
    await saying
    assert await sending == "accepted"


async def test_an_impression_that_waits_is_not_stored_after_a_withdrawal(running: Running) -> None:
    await behave(running, visitor_id="r")
    subject = await resolve(running, "r")
    await running.decide(visitor_id="r")
    await say(running, subject)
    stored = len(running.logged())
    await running.quiet()
    assert len(running.logged()) == stored


async def test_what_waits_is_narrowed_to_what_is_agreed_to(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.ingest.impressions._GATHER_S", 1.0)  # longer than the word takes
    await behave(running, visitor_id="r")
    subject = await resolve(running, "r")
    await running.decide(visitor_id="r", context={"region": "Smallville"})
    await say(running, subject, analytics=True)
    await running.quiet()
    shown = running.logged()[-1]
    assert shown.event_name == "decision"
    assert shown.purposes == ("analytics",)
    assert shown.context.region is None
