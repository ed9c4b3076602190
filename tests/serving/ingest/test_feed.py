"""From the log to the features, whatever happens between: each event has its effect, once."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.valkey_process import ValkeyServer, valkey
from contract import features
from contract.events import Event
from contract.features import FEATURES, SubjectState
from contract.frames import EVENT_SCHEMA, event_row, explode
from serving.inference.breaker import Breaker, BreakerSettings
from serving.ingest.feed import FeatureFeed
from serving.state.event_log import EventLog, SqliteEventLog
from serving.state.feature_store import FeatureStore, MemoryFeatureStore
from serving.state.kafka_event_log import KafkaEventLog
from serving.state.kafka_place import kafka_place
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.sqlite_writer import StoreError
from serving.state.valkey_client import valkey_place
from serving.state.valkey_feature_store import ValkeyFeatureStore
from tests.serving.state.events import random_events
from tests.serving.state.stores import control_of

SUBJECTS = [str(UUID(int=number)) for number in range(1, 5)]
AOF = ("--appendonly", "yes", "--appendfsync", "everysec")


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[SubjectKeys]:
    with control_of(tmp_path) as control:
        yield SubjectKeys(control)


@pytest.fixture(params=["sqlite", "kafka"])
def event_log(
    request: pytest.FixtureRequest, tmp_path: Path, keys: SubjectKeys
) -> Iterator[EventLog]:
    log: EventLog
    if request.param == "kafka":
        url = f"kafka://{request.getfixturevalue('addresses')}/events-{uuid4()}"
        log = KafkaEventLog(kafka_place(url), SealedCodec(keys))
    else:
        log = SqliteEventLog(tmp_path / "events.sqlite", SealedCodec(keys))
    yield log
    log.close()


def shared(server: ValkeyServer, keys: SubjectKeys) -> ValkeyFeatureStore:
    gate = Breaker(BreakerSettings(failures=5, cool_off_s=0.5, fair_ms=5.0))
    return ValkeyFeatureStore(valkey_place(server.url), timedelta(days=1), gate, keys)


@pytest.fixture(params=["memory", "valkey"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, keys: SubjectKeys
) -> AsyncIterator[FeatureStore]:
    made: FeatureStore
    if request.param == "memory":
        made = MemoryFeatureStore(tmp_path, keys)
    else:
        made = shared(request.getfixturevalue("server"), keys)
    yield made
    await made.aclose()


def expected(events: Sequence[Event]) -> dict[str, SubjectState]:
    table = pa.Table.from_pylist([event_row(event) for event in events], EVENT_SCHEMA)
    return features.replay(explode(table))


async def holds(store: FeatureStore, events: Sequence[Event]) -> bool:
    wanted = expected(events)
    try:
        held = await store.read_many(SUBJECTS)
    except StoreError:
        return False
    return all(
        np.array_equal(
            state.get(one.name, one.nothing), wanted.get(subject, {}).get(one.name, one.nothing)
        )
        for subject, state in zip(SUBJECTS, held, strict=True)
        for one in FEATURES
    )


async def comes_to_hold(store: FeatureStore, events: Sequence[Event], seconds: float) -> float:
    """How long it took until the store holds what `events` lead to."""
    began = time.monotonic()
    while not await holds(store, events):
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def feed_of(log: EventLog, store: FeatureStore) -> FeatureFeed:
    group = f"group-of-{log.log_id}" if isinstance(store, ValkeyFeatureStore) else None
    return FeatureFeed(log, store, group=group)


async def test_what_was_there_and_what_comes(event_log: EventLog, store: FeatureStore) -> None:
    events = random_events(seed=1, count=900)
    await event_log.append(events[:600])
    feed = feed_of(event_log, store)
    feed.start()
    await comes_to_hold(store, events[:600], 15)
    for start in range(600, 900, 50):
        await event_log.append(events[start : start + 50])
    # The machine may be busy; benchmarks/freshness.py says how quick it is.
    await comes_to_hold(store, events, 10)
    assert feed.problem is None
    assert feed.behind_s < 5
    await feed.stop()


async def test_a_stopped_feed_goes_on_where_it_was(
    event_log: EventLog, store: FeatureStore
) -> None:
    events = random_events(seed=2, count=200)
    first = feed_of(event_log, store)
    first.start()
    await event_log.append(events[:120])
    await comes_to_hold(store, events[:120], 15)
    await asyncio.sleep(0.3)  # so that it is noted, too
    await first.stop()
    await event_log.append(events[120:])
    second = feed_of(event_log, store)
    second.start()
    await comes_to_hold(store, events, 15)
    await asyncio.sleep(0.3)  # the last of them are counted a moment later
    assert second.applied == 80
    await second.stop()


@pytest.mark.parametrize("arguments", [(), AOF], ids=["nothing kept", "append-only file"])
async def test_a_killed_store_gets_back_what_it_lost(
    event_log: EventLog, tmp_path: Path, arguments: tuple[str, ...], keys: SubjectKeys
) -> None:
    events = random_events(seed=3, count=400)
    (tmp_path / "killed").mkdir()
    with valkey(tmp_path / "killed", *arguments) as server:
        store = shared(server, keys)
        feed = feed_of(event_log, store)
        feed.start()
        await event_log.append(events[:200])
        await comes_to_hold(store, events[:200], 15)
        server.signal(signal.SIGKILL)
        await event_log.append(events[200:300])  # is answered all the same
        with pytest.raises(StoreError):
            await store.read(SUBJECTS[0])
        server.start()
        await event_log.append(events[300:])
        assert await comes_to_hold(store, events, 15) < 5
        assert feed.problem is None
        await feed.stop()
        await store.aclose()


async def test_a_store_that_lost_its_last_second_unnoticed_says_so(
    tmp_path: Path, keys: SubjectKeys
) -> None:
    """As after a restart from a copy that is a little old, while nobody was connected."""
    events = random_events(seed=4, count=100)
    log = SqliteEventLog(tmp_path / "events.sqlite", SealedCodec(keys))
    (tmp_path / "valkey").mkdir()
    with valkey(tmp_path / "valkey", "--dbfilename", "copy.rdb") as server:
        store = shared(server, keys)
        feed = feed_of(log, store)
        feed.start()
        await log.append(events[:60])
        await comes_to_hold(store, events[:60], 15)
        await asyncio.sleep(0.1)
        assert server.ask(b"SAVE") == b"+OK"
        await log.append(events[60:])
        await comes_to_hold(store, events, 15)
        await asyncio.sleep(0.1)
        server.signal(signal.SIGKILL)
        server.start()
        await comes_to_hold(store, events, 15)
        await feed.stop()
        await store.aclose()
    log.close()


async def test_a_paused_store_costs_readers_little_and_writers_nothing(
    event_log: EventLog, server: ValkeyServer, keys: SubjectKeys
) -> None:
    events = random_events(seed=5, count=200)
    store = shared(server, keys)
    feed = feed_of(event_log, store)
    feed.start()
    await event_log.append(events[:100])
    await comes_to_hold(store, events[:100], 15)
    server.signal(signal.SIGSTOP)
    waits = []
    for _ in range(60):
        began = time.monotonic()
        with pytest.raises((StoreError, TimeoutError)):
            async with asyncio.timeout(0.02):  # what a decision gives it
                await store.read(SUBJECTS[0])
        waits.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    await event_log.append(events[100:])
    # Once it is known to be away most do not wait at all.
    assert sorted(waits)[len(waits) * 2 // 3] < 0.01
    until = time.monotonic() + 10
    while feed.problem is None:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
    server.signal(signal.SIGCONT)
    assert await comes_to_hold(store, events, 15) < 5
    await feed.stop()
    await store.aclose()


async def test_gateways_share_a_topic_and_take_over_from_one_another(
    addresses: str, server: ValkeyServer, keys: SubjectKeys
) -> None:
    events = random_events(seed=6, count=4_000)
    url = f"kafka://{addresses}/events-{uuid4()}"
    logs = [KafkaEventLog(kafka_place(url), SealedCodec(keys)) for _ in range(2)]
    stores = [shared(server, keys) for _ in range(2)]
    feeds = [feed_of(log, store) for log, store in zip(logs, stores, strict=True)]
    feeds[0].start()
    await logs[0].append(events[:200])
    await comes_to_hold(stores[1], events[:200], 15)
    feeds[1].start()
    sent, until = 200, time.monotonic() + 90
    while feeds[1].applied == 0:  # goes on while partitions change hands
        assert time.monotonic() < until
        await logs[sent // 20 % 2].append(events[sent : sent + 20])
        sent += 20
        await asyncio.sleep(0.2)
    await comes_to_hold(stores[0], events[:sent], 20)
    await feeds[0].stop()
    await logs[1].append(events[sent:])
    await comes_to_hold(stores[1], events, 20)
    await feeds[1].stop()
    for log, store in zip(logs, stores, strict=True):
        log.close()
        await store.aclose()


async def test_a_log_that_was_replaced_by_an_older_copy_is_read_from_its_beginning(
    tmp_path: Path, server: ValkeyServer, keys: SubjectKeys
) -> None:
    events = random_events(seed=7, count=90)
    log, store = SqliteEventLog(tmp_path / "events.sqlite", SealedCodec(keys)), shared(server, keys)
    await log.append(events[:30])
    assert await store.advance(log.log_id, {0: (None, 1_000)}) == frozenset()
    feed = feed_of(log, store)
    feed.start()
    await comes_to_hold(store, events[:30], 15)
    await log.append(events[30:])
    await comes_to_hold(store, events, 15)
    await feed.stop()
    await store.aclose()
    log.close()
