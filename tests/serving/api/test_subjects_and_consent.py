"""Identity and consent: how they are found, linked, recorded and proven."""

from typing import Any
from uuid import UUID, uuid4

from serving.state.audit import COMMAND_LINE
from tests.serving.conftest import ALL, Running, Start, event

NONE = dict.fromkeys(ALL, False)


async def resolve(running: Running, visitor: str, user: str | None = None, **more: Any) -> str:
    body = {"visitor_id": visitor, "user_id": user} | more
    answer = await running.post("/v1/subjects/resolve", body)
    assert answer.status_code == 200, answer.text
    return str(UUID(answer.json()["subject_id"]))


async def say(running: Running, subject: str, **purposes: bool) -> None:
    word = {"purposes": NONE | purposes, "source": "banner", "wording_version": "v7"}
    answer = await running.client.put(f"/v1/consent/{subject}", json=word, headers=running.bearer())
    assert answer.status_code == 200, answer.text


async def consent(running: Running, subject: str) -> dict[str, Any]:
    answer = await running.client.get(f"/v1/consent/{subject}", headers=running.bearer())
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_subject_is_random_stable_and_its_own(running: Running) -> None:
    first = await resolve(running, "a")
    assert await resolve(running, "a") == first
    assert await resolve(running, "b") != first


async def test_looking_makes_nothing(running: Running) -> None:
    body = {"visitor_id": "a", "create": False}
    assert (await running.post("/v1/subjects/resolve", body)).status_code == 404
    assert (await running.post("/v1/subjects/resolve", body)).status_code == 404
    subject = await resolve(running, "a")
    assert await resolve(running, "a", create=False) == subject


async def test_a_login_makes_the_user_speak_for_the_visitor(running: Running) -> None:
    visitor = await resolve(running, "a")
    user = await resolve(running, "a", "u")
    assert user != visitor
    assert await resolve(running, "a") == user
    assert await resolve(running, "other-device", "u") == user
    assert running.gateway.control.histories(user)[0] == user
    assert visitor in running.gateway.control.histories(user)


async def test_consent_follows_the_link(running: Running) -> None:
    visitor = await resolve(running, "a")
    await say(running, visitor, analytics=True)
    user = await resolve(running, "a", "u")
    assert (await consent(running, user))["purposes"] == NONE | {"analytics": True}
    await say(running, visitor, personalization=True)  # an old id still means the same person
    assert (await consent(running, user))["purposes"] == NONE | {"personalization": True}
    assert (await consent(running, visitor))["purposes"] == NONE | {"personalization": True}


async def test_of_two_who_are_linked_the_newest_word_counts(running: Running) -> None:
    user = await resolve(running, "desk", "u")
    await say(running, user, offers=True)
    phone = await resolve(running, "phone")
    await say(running, phone, analytics=True, personalization=True)
    tablet = await resolve(running, "tablet")
    await say(running, tablet)
    assert await resolve(running, "tablet", "u") == user
    assert (await consent(running, user))["purposes"] == NONE
    assert await resolve(running, "phone", "u") == user  # what was said before stays over
    assert (await consent(running, user))["purposes"] == NONE
    book = await resolve(running, "book")
    await say(running, book, analytics=True)
    assert await resolve(running, "book", "u") == user
    assert (await consent(running, user))["purposes"] == NONE | {"analytics": True}


async def test_a_shared_device_shows_no_history_to_the_second_user(running: Running) -> None:
    visitor = await resolve(running, "tablet")
    first = await resolve(running, "tablet", "first")
    second = await resolve(running, "tablet", "second")
    assert await resolve(running, "tablet") == second
    assert visitor in running.gateway.control.histories(first)
    assert running.gateway.control.histories(second) == (second,)


async def test_a_consent_record_proves_itself(running: Running) -> None:
    subject = await resolve(running, "a")
    unsaid = await consent(running, subject)
    assert unsaid["purposes"] == NONE
    assert unsaid["recorded_at"] is None
    await say(running, subject, offers=True)
    said = await consent(running, subject)
    assert said["source"] == "banner"
    assert said["wording_version"] == "v7"
    assert said["recorded_at"] == "2017-11-20T12:00:00Z"


async def test_consent_of_nobody_is_a_404(running: Running) -> None:
    for subject in (str(uuid4()), "visitor-raw-1", "%00"):
        answer = await running.client.get(f"/v1/consent/{subject}", headers=running.bearer())
        assert answer.status_code == 404
        assert subject not in answer.json()["detail"]


async def test_incomplete_consent_is_refused(running: Running) -> None:
    subject = await resolve(running, "a")
    for word in (
        {"purposes": ALL, "source": "banner"},
        {"purposes": {"analytics": True}, "source": "banner", "wording_version": "1"},
        {"purposes": ALL | {"more": True}, "source": "banner", "wording_version": "1"},
    ):
        answer = await running.client.put(
            f"/v1/consent/{subject}", json=word, headers=running.bearer()
        )
        assert answer.status_code == 422
    assert (await consent(running, subject))["recorded_at"] is None


async def test_identity_outlives_a_restart_and_a_rotated_key(start: Start) -> None:
    old, new = "b" * 43 + "=", "c" * 43 + "="
    running = await start(master_key=old)
    subject = await resolve(running, "a", "u")
    await running.post("/v1/events", {"events": [event(visitor_id="a", user_id="u")]})
    await running.stop()
    running = await start(master_key=f"{new},{old}")
    assert await resolve(running, "a", "u") == subject  # found under the old key, re-keyed
    assert await running.gateway.control.rewrap(COMMAND_LINE) > 0
    await running.stop()
    running = await start(master_key=new)
    assert await resolve(running, "a", "u") == subject
    assert await resolve(running, "a") == subject
