"""Review items in each database: one while the alarm lasts, the same one when it returns."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.clock import FixedClock
from contract.reviews import FLICKERS_WITHIN, MOST_STEPS, Finding, Review, Step
from serving.state.audit import Actor, first_fault
from serving.state.review_items import FIRST_WAIT_S, GIVEN_UP_AFTER, LEASE, REOPENS_WITHIN
from serving.state.sql_control_store import SqlControlStore
from tests.serving.state.control_places import ControlPlace, seen

NOW = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
ANNA = Actor("key-of-anna", "admin")


def found(key: str = "conversion", **changed: Any) -> Finding:
    said: dict[str, Any] = {
        "key": key,
        "source": "kpi",
        "metric": "conversion",
        "title": "Conversion is 18 % lower than expected",
        "expected": 0.05,
        "seen": 0.041,
        "since": NOW - timedelta(hours=1),
        "seen_at": NOW,
    }
    return Finding.model_validate(said | changed)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def store(control_place: ControlPlace, clock: FixedClock) -> Iterator[SqlControlStore]:
    opened = control_place.open(clock=clock)
    yield opened
    opened.close()


def deeds(review: Review | None) -> list[str]:
    assert review is not None
    return [step.deed for step in review.steps]


async def told(store: SqlControlStore) -> list[str]:
    """What is waiting to be told outside, taken and done with."""
    said = []
    while (message := await store.take_review_message()) is not None:
        said.append(json.loads(message.body)["type"])
        await store.settle_review_message(message)
    return said


async def test_one_item_while_it_lasts_and_the_same_when_it_returns(
    store: SqlControlStore, clock: FixedClock
) -> None:
    (opened,) = await store.note_findings("kpi", [found(), found()])
    clock.at += timedelta(minutes=15)
    assert await store.note_findings("kpi", [found(seen=0.040)]) == []
    (held,) = store.reviews("open")
    assert held.review_id == opened.review_id
    assert held.finding.seen == 0.040
    assert held.seen_at == clock.now() > held.opened_at
    clock.at += timedelta(minutes=15)
    await store.note_findings("kpi", [])
    ended = store.review(opened.review_id)
    assert ended is not None
    assert (ended.state, ended.ended_at) == ("open", clock.now())
    await store.note_findings("kpi", [found()])  # before anybody looked
    assert deeds(store.review(opened.review_id)) == ["opened", "ended", "returned"]
    await store.move_review(opened.review_id, "closed", ANNA, who="Anna", note="known")
    assert await store.note_findings("kpi", [found()]) == []  # it lasts still
    assert store.reviews("open") == []
    await store.note_findings("kpi", [])
    (again,) = await store.note_findings("kpi", [found()])
    assert (again.review_id, again.state, again.reopened) == (opened.review_id, "open", 1)
    assert await told(store) == ["review.opened", "review.closed", "review.reopened"]


async def test_what_returns_after_weeks_is_another_matter(
    store: SqlControlStore, clock: FixedClock
) -> None:
    (first,) = await store.note_findings("kpi", [found()])
    await store.move_review(first.review_id, "closed", ANNA)
    await store.note_findings("kpi", [])
    clock.at += REOPENS_WITHIN + timedelta(days=1)
    (second,) = await store.note_findings("kpi", [found()])
    assert second.review_id != first.review_id
    assert [one.review_id for one in store.reviews()] == [second.review_id, first.review_id]
    assert await store.note_findings("kpi", [found()]) == []


@pytest.mark.parametrize("seen", [False, True])
async def test_what_returns_after_more_than_a_day_is_told_once_more(
    store: SqlControlStore, clock: FixedClock, seen: bool
) -> None:
    (opened,) = await store.note_findings("kpi", [found()])
    if seen:
        await store.move_review(opened.review_id, "acknowledged", ANNA)
    await store.note_findings("kpi", [])
    clock.at += FLICKERS_WITHIN
    assert await store.note_findings("kpi", [found()]) == []
    await store.note_findings("kpi", [])
    clock.at += FLICKERS_WITHIN + timedelta(seconds=1)
    since = clock.now()
    (again,) = await store.note_findings("kpi", [found(since=since)])
    assert (again.review_id, again.state, again.reopened) == (opened.review_id, "open", 1)
    assert (again.finding.since, again.ended_at) == (since, None)
    assert (await told(store))[-1] == "review.reopened"
    await store.note_findings("kpi", [])
    clock.at += REOPENS_WITHIN + timedelta(days=1)
    (another,) = await store.note_findings("kpi", [found()])
    assert another.review_id != opened.review_id


async def test_each_source_ends_its_own(store: SqlControlStore) -> None:
    drifted = found("drift/price", source="drift")
    await store.note_findings("drift", [drifted])
    await store.note_findings("kpi", [found()])
    await store.note_findings("kpi", [found("other")], complete=False)
    assert {one.finding.key for one in store.reviews() if one.ended_at is None} == {
        *("drift/price", "conversion", "other")
    }
    await store.note_findings("kpi", [])
    lasting = [one.finding.key for one in store.reviews() if one.ended_at is None]
    assert lasting == ["drift/price"]
    with pytest.raises(ValueError, match="is not a finding of kpi"):
        await store.note_findings("kpi", [drifted])


async def test_people_acknowledge_and_close_on_record(store: SqlControlStore) -> None:
    (opened,) = await store.note_findings("kpi", [found()])
    for _ in range(2):  # twice is once
        moved = await store.move_review(opened.review_id, "acknowledged", ANNA, who="Anna")
        assert deeds(moved) == ["opened", "acknowledged"]
    closed = await store.move_review(opened.review_id, "closed", ANNA, note="the new checkout")
    assert closed is not None
    assert closed.steps[-1].note == "the new checkout"
    with pytest.raises(ValueError, match="closed already"):
        await store.move_review(opened.review_id, "acknowledged", ANNA)
    assert await store.move_review("nothing", "closed", ANNA) is None
    lines, head = store.audit_log()
    assert first_fault(lines, head, store.service_key("audit")) is None
    written = [json.loads(line.text) for line in lines]
    told = [one for one in written if one["action"].startswith("review.")]
    assert [one["action"] for one in told] == [
        *("review.opened", "review.acknowledged", "review.closed")
    ]
    assert told[1]["by"] == {"key_id": "key-of-anna", "role": "admin"}
    assert told[1]["detail"] == {
        "review_id": opened.review_id, "key": "conversion", "who": "Anna"
    }  # fmt: skip


async def test_another_gateway_sees_it(control_place: ControlPlace) -> None:
    one, other = (control_place.open(clock=FixedClock(NOW)) for _ in range(2))
    try:
        (opened,) = await one.note_findings("kpi", [found()])
        await seen(lambda: other.reviews("open") == [opened])
        await seen(other.review_messages_due)
        await other.move_review(opened.review_id, "closed", ANNA)
        await seen(lambda: one.reviews("open") == [])
    finally:
        one.close()
        other.close()


async def test_messages_wait_longer_each_time_and_keep_their_order(
    store: SqlControlStore, clock: FixedClock
) -> None:
    (opened,) = await store.note_findings("kpi", [found()])
    await store.move_review(opened.review_id, "acknowledged", ANNA)
    first = await store.take_review_message()
    assert first is not None
    assert json.loads(first.body)["data"]["finding"]["key"] == "conversion"
    assert await store.take_review_message() is None  # it is taken, and the next one waits for it
    clock.at += LEASE  # whoever took it died
    second = await store.take_review_message()
    assert second is not None
    assert (second.message_id, second.attempts) == (first.message_id, 1)
    assert not await store.settle_review_message(second, "status 500")
    assert await store.take_review_message() is None
    clock.at += timedelta(seconds=2 * FIRST_WAIT_S)
    third = await store.take_review_message()
    assert third is not None
    assert await store.settle_review_message(third)
    after = await store.take_review_message()
    assert after is not None
    assert json.loads(after.body)["type"] == "review.acknowledged"
    clock.at += GIVEN_UP_AFTER
    assert await store.settle_review_message(after, "status 500")  # given up
    assert not store.review_messages_due()


async def test_what_was_closed_long_ago_is_let_go(
    store: SqlControlStore, clock: FixedClock
) -> None:
    (closed,) = await store.note_findings("kpi", [found("closed")])
    await store.move_review(closed.review_id, "closed", ANNA)
    await store.note_findings("kpi", [found("open")])
    clock.at += timedelta(days=400)
    await store.let_go(clock.now() - timedelta(days=365), clock.now())
    assert [one.finding.key for one in store.reviews()] == ["open"]


def test_steps_are_bounded_and_the_first_one_stays() -> None:
    review = Review.opened("id", found(), Step(deed="opened", at=NOW, by="gateway"))
    for turn in range(100):
        at = NOW + timedelta(hours=turn)
        review = review.over("gateway", at).again(found(), "gateway", at)
    assert len(review.steps) == MOST_STEPS
    assert (review.steps[0].deed, review.steps[-1].deed) == ("opened", "returned")
