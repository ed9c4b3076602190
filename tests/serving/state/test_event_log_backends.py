"""What every event log must do, run against each of them."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from contract.event_versions import read_stored
from contract.events import Event
from serving.state.audit import COMMAND_LINE
from serving.state.event_log import EventLog, Offsets, SqliteEventLog, Tail
from serving.state.kafka_event_log import KafkaEventLog
from serving.state.kafka_place import kafka_place
from serving.state.records import Record
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.sqlite_writer import StoreError
from serving.state.state_folder import EVENTS
from tests.serving.state.events import random_events, stored_event
from tests.serving.state.stores import control_of, destroy_key

Open = Callable[[], EventLog]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[SqliteControlStore]:
    with control_of(tmp_path) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "kafka"])
def open_log(
    request: pytest.FixtureRequest, tmp_path: Path, control: SqliteControlStore
) -> Iterator[Open]:
    """Opens one and the same log, once or again, sealed as a gateway's; all are closed at the
    end."""
    opened: list[EventLog] = []
    place = None
    if request.param == "kafka":
        addresses = request.getfixturevalue("addresses")
        place = kafka_place(f"kafka://{addresses}/events-{uuid4()}")

    def open_one() -> EventLog:
        codec = SealedCodec(SubjectKeys(control))
        log: EventLog
        log = (
            SqliteEventLog(tmp_path / EVENTS, codec)
            if place is None
            else KafkaEventLog(place, codec)
        )
        opened.append(log)
        return log

    yield open_one
    for log in opened:
        log.close()


def ids(events: list[Event]) -> list[int]:
    return sorted(event.event_id.int for event in events)


def all_of(log: EventLog) -> list[Event]:
    return [event for _, event in log.read_from(0)]


async def taken(tail: Tail, count: int, offsets: Offsets | None = None) -> list[Event]:
    """Take `count` events, placing every partition at `offsets`, or else at the beginning."""
    found: list[Event] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            if tail.unplaced:
                await tail.place({part: (offsets or {}).get(part, 0) for part in tail.unplaced})
            found += await tail.take(100, 0.05)
    return found


async def test_events_come_back_as_they_went_in(open_log: Open) -> None:
    log = open_log()
    assert log.last_position in (0, (0, 0, 0, 0))
    assert all_of(log) == []
    events = random_events(seed=1, count=50)
    assert await log.append(events) == ["accepted"] * 50
    read = all_of(log)
    assert sorted(read, key=lambda event: event.event_id.int) == events
    for subject in {event.subject_id for event in events}:  # one after another, as written
        of_subject = [event.event_id for event in events if event.subject_id == subject]
        assert [event.event_id for event in read if event.subject_id == subject] == of_subject


async def test_reading_goes_on_behind_a_position(open_log: Open) -> None:
    log = open_log()
    events = random_events(seed=2, count=60)
    await log.append(events)
    rows = list(log.read_from(0))
    assert rows[-1][0] == log.last_position
    position, _ = rows[19]
    first, rest = [event for _, event in rows[:20]], [event for _, event in log.read_from(position)]
    assert ids(first + rest) == ids(events)
    assert list(log.read_from(log.last_position)) == []


async def test_an_event_is_kept_once(open_log: Open) -> None:
    log = open_log()
    first, second = stored_event(1), stored_event(2)
    assert await log.append([first, first, second]) == ["accepted", "duplicate", "accepted"]
    assert await log.append([second]) == ["duplicate"]
    assert ids(all_of(log)) == [1, 2]


async def test_a_repeat_has_no_effect_after_a_restart(open_log: Open) -> None:
    log = open_log()
    await log.append([stored_event(1), stored_event(2)])
    log.close()
    again = open_log()
    said = await again.append([stored_event(2), stored_event(3)])
    assert said[1] == "accepted"
    # A file knows all that it holds; brokers keep the repeat, which readers pass over.
    assert said[0] == ("duplicate" if isinstance(again, SqliteEventLog) else "accepted")
    assert ids(all_of(again)) == [1, 2, 3]
    assert ids(await taken(again.tail(None), 3)) == [1, 2, 3]


async def test_a_closed_log_takes_nothing(open_log: Open) -> None:
    log = open_log()
    log.close()
    with pytest.raises(StoreError):
        await log.append([stored_event(1)])
    with pytest.raises(StoreError):
        await log.check()


async def test_many_writers_at_once(open_log: Open) -> None:
    log = open_log()
    await asyncio.gather(*(log.append([stored_event(n)]) for n in range(1, 201)))
    both = await asyncio.gather(*(log.append([stored_event(n)]) for n in (7, 7, 300, 300)))
    assert sorted(said for (said,) in both) == ["accepted", "duplicate", "duplicate", "duplicate"]
    assert ids(all_of(log)) == [*range(1, 201), 300]


async def test_a_check_leaves_nothing_to_read(open_log: Open) -> None:
    log = open_log()
    await log.check()
    await log.append([stored_event(1)])
    await log.check()
    assert ids(all_of(log)) == [1]
    tail = log.tail(None)
    assert ids(await taken(tail, 1)) == [1]
    assert await tail.take(10, 0.2) == []
    await tail.close()


@pytest.mark.parametrize("group", [None, "shared"])
async def test_following_gives_what_is_there_and_what_comes(
    open_log: Open, group: str | None
) -> None:
    log = open_log()
    await log.append([stored_event(n) for n in range(1, 31)])
    group = group and f"{group}-{uuid4()}"
    tail = log.tail(group)
    assert await tail.take(10, 0.05) == []  # not before it is placed
    assert ids(await taken(tail, 30)) == list(range(1, 31))
    coming = asyncio.create_task(taken(tail, 1))
    await asyncio.sleep(0.05)
    await log.append([stored_event(31)])
    assert ids(await coming) == [31]
    await tail.commit(tail.offsets)
    await tail.close()


@pytest.mark.parametrize("group", [None, "shared"])
async def test_following_goes_on_from_where_it_is_told(open_log: Open, group: str | None) -> None:
    log = open_log()
    await log.append([stored_event(n) for n in range(1, 21)])
    group = group and f"{group}-{uuid4()}"
    tail = log.tail(group)
    await taken(tail, 20)
    there = dict(tail.offsets)
    await log.append([stored_event(n) for n in range(21, 41)])
    assert ids(await taken(tail, 20)) == list(range(21, 41))
    tail.rewind()
    assert tail.unplaced
    assert ids(await taken(tail, 20, there)) == list(range(21, 41))
    await tail.close()
    other = log.tail(group)
    assert ids(await taken(other, 20, there)) == list(range(21, 41))
    await other.close()


async def test_a_log_has_a_name_that_stays(open_log: Open) -> None:
    log = open_log()
    assert log.log_id
    assert open_log().log_id == log.log_id


async def test_a_damaged_or_newer_event_does_not_hide_the_others(
    open_log: Open, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log()
    codec = log._codec  # type: ignore[attr-defined]
    decode = codec.decode
    await log.append([stored_event(1), stored_event(2), stored_event(3)])

    def decoding(body: str | bytes) -> Event | None:
        event: Event = decode(body)
        newer = event.model_dump_json().replace('"schema_version":3', '"schema_version":9')
        return read_stored(newer) if event.event_id.int == 2 else event

    codec.decode = decoding
    assert ids(all_of(log)) == [1, 3]
    tail = log.tail(None)
    assert ids(await taken(tail, 2)) == [1, 3]
    await tail.close()
    assert "can not be read" in caplog.text


def of(events: list[Event], *subjects: int) -> list[Event]:
    return [event for event in events if event.subject_id.int in subjects]


async def erased(control: SqliteControlStore, subject: int) -> tuple[bytes, ...]:
    """Its log keys; the subject is gone from the control store."""
    done = await control.erase(str(UUID(int=subject)), COMMAND_LINE)
    assert done is not None
    return done.log_keys


async def test_the_events_of_a_subject_are_found(open_log: Open) -> None:
    log = open_log()
    events = random_events(seed=3, count=80)
    await log.append(events)
    await log.check()
    for wanted in ((1,), (2, 3)):
        found = list(log.events_of([str(UUID(int=one)) for one in wanted]))
        assert ids(found) == ids(of(events, *wanted))
        for one in wanted:
            assert of(found, one) == of(events, one)
    assert list(log.events_of([str(uuid4())])) == []
    assert list(log.events_of([])) == []


async def test_one_event_is_found(open_log: Open, control: SqliteControlStore) -> None:
    log = open_log()
    events = random_events(seed=3, count=40)
    await log.append(events)
    await log.check()
    wanted = events[7]
    subject = str(wanted.subject_id)
    assert log.find(wanted.event_id, [subject]) == wanted
    assert log.find(uuid4(), [subject]) is None
    if log.finds_by_id:
        assert log.find(wanted.event_id, []) == wanted
    await erased(control, wanted.subject_id.int)
    assert log.find(wanted.event_id, [subject]) is None


async def test_who_has_records_is_known(open_log: Open, control: SqliteControlStore) -> None:
    log = open_log()
    await log.append(of(random_events(seed=3, count=80), 1, 2))
    keys = [control.subject_key(str(UUID(int=n))) for n in range(1, 5)]
    named = [key.log_key for key in keys if key is not None]
    assert log.holding(named) == frozenset(named[:2])
    assert log.holding(named[1:]) == frozenset(named[1:2])
    assert log.holding([]) == frozenset()


async def test_whoever_is_erased_is_read_no_more(
    open_log: Open, control: SqliteControlStore
) -> None:
    log = open_log()
    events = random_events(seed=4, count=80)
    await log.append(events)
    tail = log.tail(None)
    await tail.place(dict.fromkeys(tail.unplaced, 0))
    keys = await erased(control, 2)
    left = of(events, 1, 3, 4)
    for _ in range(2):  # as soon as the keys are gone, and when what is left was removed
        assert ids(all_of(log)) == ids(left)
        assert list(log.events_of([str(UUID(int=2))])) == []
        assert ids(all_of(open_log())) == ids(left)
        removed = await log.forget(keys)
    assert removed == 0
    assert ids(await taken(tail, len(left))) == ids(left)
    await tail.close()
    if isinstance(log, SqliteEventLog):  # a topic keeps what opens no more
        assert log.holding(keys) == frozenset()


async def test_nothing_is_written_of_whoever_is_erased(
    open_log: Open, control: SqliteControlStore
) -> None:
    log = open_log()
    events = random_events(seed=5, count=40)
    await log.append(events[:20])
    (key,) = await erased(control, 3)
    await log.forget([key])
    said = await log.append(events[20:])
    wanted = ["erased" if one.subject_id.int == 3 else "accepted" for one in events[20:]]
    assert said == wanted
    assert "erased" in said
    assert ids(all_of(log)) == ids(of(events, 1, 2, 4))


async def test_an_erasure_reaches_events_under_way(
    open_log: Open, control: SqliteControlStore
) -> None:
    """A batch is being prepared while the keys go: what comes after the last look is unreadable,
    what comes before it is not even written."""
    log = open_log()
    events = random_events(seed=6, count=400)
    appending = asyncio.create_task(log.append(events))
    await asyncio.sleep(0)  # it has sealed the first of them
    (key,) = await erased(control, 1)
    said = await appending
    await log.forget([key])
    assert ids(all_of(log)) == ids(of(events, 2, 3, 4))
    assert {one for one, event in zip(said, events, strict=True) if event.subject_id.int != 1} == {
        "accepted"
    }


async def test_a_batch_in_preparation_is_looked_through_once_more(
    open_log: Open, control: SqliteControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log()
    codec = log._codec  # type: ignore[attr-defined]
    encode, count = codec.encode, 0
    events = random_events(seed=7, count=200)
    keys: list[bytes] = []

    def encoding(event: Event) -> Record | None:
        nonlocal count
        count += 1
        if count == len(events):  # the last one is being sealed when the keys go
            keys.append(destroy_key(control, 1))
        return encode(event)  # type: ignore[no-any-return]

    monkeypatch.setattr(codec, "encode", encoding)
    said = await log.append(events)
    assert {one for one, event in zip(said, events, strict=True) if event.subject_id.int == 1} == {
        "erased"
    }
    assert log.holding(keys) == frozenset()
    assert ids(all_of(log)) == ids(of(events, 2, 3, 4))


async def test_what_is_older_than_its_period_goes(open_log: Open) -> None:
    log = open_log()
    events = random_events(seed=8, count=30)
    await log.append(events)
    later = max(event.received_at for event in events).date() + timedelta(days=1)
    assert await log.let_go("decision", later) == 0
    removed = await log.let_go("behaviour", later)
    if isinstance(log, SqliteEventLog):
        assert (removed, all_of(log)) == (30, [])
        # Its positions go on all the same, so that nobody takes it for another log.
        assert log.last_position == open_log().last_position == 30
    else:  # the brokers do it, by the topic's own settings
        assert (removed, len(all_of(log))) == (0, 30)
