"""What every event log must do, run against each of them."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from benchmarks.kafka_brokers import brokers
from contract.events import Event
from serving.state.event_log import EventLog, Offsets, SqliteEventLog, Tail
from serving.state.kafka_event_log import KafkaEventLog
from serving.state.kafka_place import kafka_place
from serving.state.sqlite_writer import StoreError
from tests.serving.state.events import random_events, stored_event

Open = Callable[[], EventLog]


@pytest.fixture(scope="module")
def addresses() -> Iterator[str]:
    with brokers() as found:
        yield found


@pytest.fixture(params=["sqlite", "kafka"])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same log, once or again; all are closed at the end."""
    opened: list[EventLog] = []
    url = ""
    if request.param == "kafka":
        url = f"kafka://{request.getfixturevalue('addresses')}/events-{uuid4()}"

    def open_one() -> EventLog:
        log: EventLog
        log = KafkaEventLog(kafka_place(url)) if url else SqliteEventLog(tmp_path / "events.sqlite")
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
    newer = stored_event(2).model_dump_json().replace('"schema_version":2', '"schema_version":9')
    await log.append([stored_event(1), stored_event(2), stored_event(3)])

    def decoding(body: str | bytes) -> Event | None:
        event: Event = decode(body)
        return decode(newer) if event.event_id.int == 2 else event

    codec.decode = decoding
    assert ids(all_of(log)) == [1, 3]
    tail = log.tail(None)
    assert ids(await taken(tail, 2)) == [1, 3]
    await tail.close()
    assert "can not be read" in caplog.text
