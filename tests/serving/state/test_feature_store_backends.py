"""What every feature store must do, run against each of them: in memory, a Valkey server, and
Valkey as a cluster."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.valkey_process import ValkeyServer, valkey
from contract import features
from contract.events import Event
from contract.features import FEATURES, SubjectState, view
from contract.frames import EVENT_SCHEMA, event_row, explode
from serving.state.feature_store import FeatureStore, LinkedFeatureStore, MemoryFeatureStore
from serving.state.valkey_client import ValkeyPlace, valkey_place
from serving.state.valkey_feature_store import ValkeyFeatureStore, key_of_subject
from tests.serving.state.events import random_events, stored_event
from tests.serving.state.gates import OpenGate

SUBJECTS = [str(UUID(int=number)) for number in range(1, 5)]
KINDS = ("memory", "valkey", "cluster")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Two nodes with half of the slots each."""
    folders = [tmp_path_factory.mktemp(f"node-{number}") for number in range(2)]
    with (
        valkey(folders[0], "--cluster-enabled", "yes") as one,
        valkey(folders[1], "--cluster-enabled", "yes") as other,
    ):
        assert one.ask(b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"8191") == b"+OK"
        assert other.ask(b"CLUSTER", b"ADDSLOTSRANGE", b"8192", b"16383") == b"+OK"
        met = (b"127.0.0.1", b"%d" % other.port, b"%d" % other.bus_port)
        assert one.ask(b"CLUSTER", b"MEET", *met) == b"+OK"
        one.wait_for(b"SET", b"any", b"1", answer=(b"+OK", b"-MOVED"))
        other.wait_for(b"SET", b"any", b"1", answer=(b"+OK", b"-MOVED"))
        yield one


def place_of(kind: str, request: pytest.FixtureRequest) -> ValkeyPlace:
    running: ValkeyServer = request.getfixturevalue("server" if kind == "valkey" else kind)
    return valkey_place(running.url.replace("valkey", f"valkey{'+cluster' * (kind == 'cluster')}"))


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FeatureStore]:
    """An empty store of each kind."""
    made: FeatureStore
    if request.param == "memory":
        made = MemoryFeatureStore(tmp_path)
    else:
        made = ValkeyFeatureStore(
            place_of(request.param, request), timedelta(days=1), OpenGate(), read_s=5.0
        )
        for subject in SUBJECTS:
            await made.forget(subject)
    yield made
    await made.aclose()


def replayed(events: list[Event]) -> dict[str, SubjectState]:
    table = pa.Table.from_pylist([event_row(event) for event in events], EVENT_SCHEMA)
    return features.replay(explode(table))


def same(left: SubjectState, right: SubjectState) -> bool:
    empty = {feature.name: feature.empty() for feature in FEATURES}
    return all(
        np.array_equal(left.get(name, none), right.get(name, none)) for name, none in empty.items()
    )


async def assert_holds(store: FeatureStore, expected: dict[str, SubjectState]) -> None:
    held = await store.read_many(SUBJECTS)
    for subject, state in zip(SUBJECTS, held, strict=True):
        assert same(state, expected.get(subject, {})), subject
        assert same(await store.read(subject), state)


async def test_nothing_is_known_of_nobody(store: FeatureStore) -> None:
    assert await store.read(SUBJECTS[0]) == {}
    assert await store.read_many(SUBJECTS) == [{}] * 4
    assert await store.read_many([]) == []


async def test_events_become_what_replay_makes_of_them(store: FeatureStore) -> None:
    events = random_events(seed=1, count=300)
    for event in events[:20]:
        await store.apply(event)
    await store.absorb(events[20:])
    expected = replayed(events)
    assert set(expected) == set(SUBJECTS)
    await assert_holds(store, expected)


async def test_states_can_be_worked_with(store: FeatureStore) -> None:
    await store.absorb([stored_event(1)])
    seen = view(await store.read(SUBJECTS[0]), 2**60)
    assert len(seen.purchased) == len(seen.interactions) == 1
    assert len(view(await store.read(SUBJECTS[0]), 0).purchased) == 0


@given(seed=st.integers(0, 10_000), parts=st.integers(1, 6), repeats=st.integers(0, 30))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_order_repeats_and_parts_do_not_matter(
    store: FeatureStore, seed: int, parts: int, repeats: int
) -> None:
    for subject in SUBJECTS:
        await store.forget(subject)
    events = random_events(seed, count=80)
    sent = [*events, *events[:repeats]]
    random.Random(seed).shuffle(sent)
    for number in range(parts):
        await store.absorb(sent[number::parts])
    await assert_holds(store, replayed(events))


async def test_capacity_is_kept(store: FeatureStore) -> None:
    events = [stored_event(n, event_name="view_item") for n in range(1, 201)]
    for start in range(0, 200, 50):
        await store.absorb(events[start : start + 50])
    state = await store.read(SUBJECTS[0])
    assert len(state["recent_interactions"]) == 64
    assert same(state, replayed(events)[SUBJECTS[0]])


async def test_what_is_merged_in_is_added(store: FeatureStore) -> None:
    events = random_events(seed=4, count=100)
    await store.absorb(events[:50])
    await store.merge_in(replayed(events[40:]))
    await assert_holds(store, replayed(events))


async def test_writers_at_once_lose_nothing(store: FeatureStore) -> None:
    events = random_events(seed=5, count=200, subjects=2)
    await asyncio.gather(*(store.absorb(events[start::20]) for start in range(20)))
    await assert_holds(store, replayed(events))


async def test_whom_it_forgets_is_nobody_again(store: FeatureStore) -> None:
    events = random_events(seed=6, count=100)
    await store.absorb(events)
    await store.forget(SUBJECTS[1])
    left = [event for event in events if str(event.subject_id) != SUBJECTS[1]]
    await assert_holds(store, replayed(left))


async def test_linked_subjects_are_read_at_once_and_as_one(store: FeatureStore) -> None:
    events = random_events(seed=7, count=120)
    await store.absorb(events)
    linked = LinkedFeatureStore(store, lambda subject: (subject, *SUBJECTS[1:3]))
    as_one = [
        event.model_copy(update={"subject_id": UUID(int=1)})
        for event in events
        if str(event.subject_id) in SUBJECTS[:3]
    ]
    assert same(await linked.read(SUBJECTS[0]), replayed(as_one)[SUBJECTS[0]])


async def test_marks_move_only_from_where_they_are_known_to_be(store: FeatureStore) -> None:
    log = f"log-{random.random()}"
    assert await store.marks(log, [0, 1]) == {}
    assert await store.advance(log, {0: (None, 5), 1: (None, 3)}) == frozenset()
    assert await store.marks(log, [0, 1, 2]) == {0: 5, 1: 3}
    assert await store.advance(log, {0: (5, 9)}) == frozenset()
    assert await store.marks(log, [0, 1]) == {0: 9, 1: 3}
    if isinstance(store, ValkeyFeatureStore):  # memory has one writer, which knows
        assert await store.advance(log, {0: (5, 12), 1: (3, 4)}) == {0}
        assert await store.advance(log, {1: (None, 7)}) == {1}
        assert await store.marks(log, [0, 1]) == {0: 9, 1: 4}
        assert await store.marks("another", [0]) == {}


async def test_who_leaves_no_more_events_is_forgotten_in_time(server: ValkeyServer) -> None:
    place = valkey_place(server.url)
    store = ValkeyFeatureStore(place, timedelta(milliseconds=300), OpenGate(), read_s=5.0)
    await store.forget(SUBJECTS[0])
    await store.absorb([stored_event(1)])
    key = key_of_subject(SUBJECTS[0]).encode()
    assert int(server.ask(b"PTTL", key)[1:]) in range(1, 301)
    await asyncio.sleep(0.2)
    await store.absorb([stored_event(2)])
    await asyncio.sleep(0.2)
    assert len((await store.read(SUBJECTS[0]))["purchases"]) == 2  # the time runs from the last one
    await asyncio.sleep(0.2)
    assert await store.read(SUBJECTS[0]) == {}
    await store.aclose()


async def test_a_decision_costs_one_round_trip(server: ValkeyServer) -> None:
    store = ValkeyFeatureStore(valkey_place(server.url), timedelta(days=1), OpenGate(), read_s=5.0)
    await store.absorb(random_events(seed=8, count=50))
    await store.read_many(SUBJECTS)  # the connection is there now
    first, before = reads(server), reads(server)  # to ask costs something itself
    await store.read_many(SUBJECTS)
    await store.read(SUBJECTS[0])
    # Valkey counts reads of its sockets: a round trip, however many commands it holds.
    assert reads(server) - before - (before - first) == 2
    await store.aclose()


def reads(server: ValkeyServer) -> int:
    text = server.ask_all(b"INFO", b"stats").decode()
    return int(text.partition("total_reads_processed:")[2].split()[0])
