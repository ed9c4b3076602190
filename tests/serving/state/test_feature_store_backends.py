"""What every feature store must do, run against each of them: in memory, a Valkey server, and
Valkey as a cluster."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.valkey_process import ValkeyServer, valkey
from contract import features
from contract.clock import to_us
from contract.events import Event
from contract.features import FEATURES, SubjectState, view
from contract.frames import EVENT_SCHEMA, event_row, explode
from serving.state import feature_store, valkey_feature_store
from serving.state.audit import COMMAND_LINE
from serving.state.feature_merge import since
from serving.state.feature_store import FeatureStore, LinkedFeatureStore, MemoryFeatureStore
from serving.state.sealing import SubjectKeys
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.valkey_client import ValkeyPlace, valkey_place
from serving.state.valkey_feature_store import ValkeyFeatureStore
from serving.state.valkey_rows import EVERY_SUBJECT, FIELDS, key_of
from tests.serving.state.events import BEGIN, random_events, stored_event
from tests.serving.state.gates import OpenGate
from tests.serving.state.stores import control_of, destroy_key
from tests.serving.traces import forms_of

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


@pytest.fixture
def control(tmp_path: Path) -> Iterator[SqliteControlStore]:
    with control_of(tmp_path) as opened:
        yield opened


@pytest.fixture
def keys(control: SqliteControlStore) -> SubjectKeys:
    return SubjectKeys(control)


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, keys: SubjectKeys
) -> AsyncIterator[FeatureStore]:
    """An empty store of each kind."""
    made: FeatureStore
    if request.param == "memory":
        made = MemoryFeatureStore(tmp_path, keys)
    else:
        place = place_of(request.param, request)
        made = ValkeyFeatureStore(place, timedelta(days=1), OpenGate(), keys, read_s=5.0)
    yield made
    await made.aclose()


def log_key_of(keys: SubjectKeys, subject: str) -> bytes:
    held = keys.of(subject)
    assert held is not None
    return held.log_key


async def forget(store: FeatureStore, keys: SubjectKeys, *subjects: str) -> None:
    await store.forget(subjects, [log_key_of(keys, one) for one in subjects])


def replayed(events: list[Event]) -> dict[str, SubjectState]:
    table = pa.Table.from_pylist([event_row(event) for event in events], EVENT_SCHEMA)
    return features.replay(explode(table))


def same(left: SubjectState, right: SubjectState) -> bool:
    empty = {feature.name: feature.nothing for feature in FEATURES}
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
    store: FeatureStore, keys: SubjectKeys, seed: int, parts: int, repeats: int
) -> None:
    await forget(store, keys, *SUBJECTS)
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


async def test_whom_it_forgets_is_nobody_again(store: FeatureStore, keys: SubjectKeys) -> None:
    events = random_events(seed=6, count=100)
    await store.absorb(events)
    await forget(store, keys, SUBJECTS[1])
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


async def test_who_leaves_no_more_events_is_forgotten_in_time(
    server: ValkeyServer, keys: SubjectKeys
) -> None:
    place = valkey_place(server.url)
    store = ValkeyFeatureStore(place, timedelta(milliseconds=300), OpenGate(), keys, read_s=5.0)
    await store.absorb([stored_event(1)])
    key = key_of(log_key_of(keys, SUBJECTS[0])).encode()
    assert int(server.ask(b"PTTL", key)[1:]) in range(1, 301)
    await asyncio.sleep(0.2)
    await store.absorb([stored_event(2)])
    await asyncio.sleep(0.2)
    assert len((await store.read(SUBJECTS[0]))["purchases"]) == 2  # the time runs from the last one
    await asyncio.sleep(0.2)
    assert await store.read(SUBJECTS[0]) == {}
    await store.aclose()


async def test_a_decision_costs_one_round_trip(server: ValkeyServer, keys: SubjectKeys) -> None:
    store = valkey_store(server, keys)
    await store.absorb(random_events(seed=8, count=50))
    await store.read_many(SUBJECTS)  # the connection is there now
    first, before = reads(server), reads(server)  # to ask costs something itself
    await store.read_many(SUBJECTS)
    await store.read(SUBJECTS[0])
    # Valkey counts reads of its sockets: a round trip, however many commands it holds.
    assert reads(server) - before - (before - first) == 2
    await store.aclose()


def valkey_store(server: ValkeyServer, keys: SubjectKeys) -> ValkeyFeatureStore:
    place = valkey_place(server.url)
    return ValkeyFeatureStore(place, timedelta(days=1), OpenGate(), keys, read_s=5.0)


def reads(server: ValkeyServer) -> int:
    text = server.ask_all(b"INFO", b"stats").decode()
    return int(text.partition("total_reads_processed:")[2].split()[0])


async def test_of_whoever_is_erased_nothing_stays(
    store: FeatureStore, control: SqliteControlStore
) -> None:
    """Neither of what was told before, nor of what is told afterwards."""
    events = random_events(seed=9, count=100)
    await store.absorb(events[:50])
    erased = await control.erase(SUBJECTS[1], COMMAND_LINE)
    assert erased is not None
    await store.forget(erased.subject_ids, erased.log_keys)
    await store.absorb(events[50:])
    await store.apply(stored_event(500, subject_id=UUID(SUBJECTS[1])))
    await store.merge_in(replayed(events))
    assert await store.read(SUBJECTS[1]) == {}
    others = [event for event in events if str(event.subject_id) != SUBJECTS[1]]
    await assert_holds(store, replayed(others))


@pytest.mark.parametrize("way", ["absorb", "merge_in"])
async def test_an_erasure_while_events_are_under_way_leaves_nothing(
    store: FeatureStore, control: SqliteControlStore, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Between the reading of a state and its writing the key goes, and whoever erases has asked
    the store to forget before the writing came."""
    events = random_events(seed=10, count=40)
    gone: list[bytes] = []

    def meanwhile(change: Any) -> Any:
        def changed(*arguments: Any) -> Any:
            if not gone:
                gone.append(destroy_key(control, 1))
            return change(*arguments)

        return changed

    monkeypatch.setattr(features, "update_all", meanwhile(features.update_all))
    for module in (feature_store, valkey_feature_store):
        monkeypatch.setattr(module, "merged", meanwhile(module.merged))
    if way == "absorb":
        await store.absorb(events)
    else:
        await store.merge_in(replayed(events))
    (log_key,) = gone
    left = [event for event in events if event.subject_id.int != 1]
    await assert_holds(store, replayed(left))
    if isinstance(store, MemoryFeatureStore):
        assert len(store) == 3
    else:
        assert isinstance(store, ValkeyFeatureStore)
        assert not await store._writes.execute_command("EXISTS", key_of(log_key))


async def test_what_is_older_than_its_period_is_dropped(
    store: FeatureStore, keys: SubjectKeys
) -> None:
    await forget(store, keys, *SUBJECTS)
    events = random_events(seed=20, count=200)
    old = [stored_event(n, subject_id=UUID(SUBJECTS[3])) for n in range(1_000, 1_003)]
    early = [one.model_copy(update={"occurred_at": BEGIN - timedelta(days=9)}) for one in old]
    mixed = [event for event in events if str(event.subject_id) != SUBJECTS[3]]
    await store.absorb([*mixed, *early])
    middle = BEGIN + timedelta(minutes=250)
    changed = await store.let_go(to_us(middle))
    # Cut to the capacity first and by time then, as it happens.
    cut = {one: since(state, to_us(middle)) for one, state in replayed(mixed).items()}
    await assert_holds(store, cut)
    assert changed == 4
    assert all(len(rows) == 0 for rows in (await store.read(SUBJECTS[3])).values())
    assert await store.let_go(to_us(middle)) == 0
    if isinstance(store, ValkeyFeatureStore):  # who has nothing left is not even known by a name
        key = key_of(log_key_of(keys, SUBJECTS[3]))
        assert not await store._writes.execute_command("EXISTS", key)
        kept = key_of(log_key_of(keys, SUBJECTS[0]))
        assert await store._writes.execute_command("PTTL", kept) > 0
    await store.absorb(mixed)
    await assert_holds(store, replayed(mixed))


async def test_what_an_erasure_could_not_remove_goes_with_what_is_old(
    store: FeatureStore, control: SqliteControlStore, keys: SubjectKeys
) -> None:
    await store.absorb(random_events(seed=21, count=50))
    gone = log_key_of(keys, SUBJECTS[2])
    assert await control.erase(SUBJECTS[2], COMMAND_LINE) is not None  # the store was away
    assert await store.let_go(0) == 0
    if isinstance(store, ValkeyFeatureStore):
        assert not await store._writes.execute_command("EXISTS", key_of(gone))
    assert (await store.read(SUBJECTS[1])) != {}


async def test_what_a_server_holds_says_nothing(server: ValkeyServer, keys: SubjectKeys) -> None:
    store = valkey_store(server, keys)
    events = random_events(seed=22, count=100)
    await store.absorb(events)
    everything = await everything_in(store)
    assert len(everything) > 20
    plain = [rows.tobytes() for state in replayed(events).values() for rows in state.values()]
    for written in everything:
        for subject in SUBJECTS:
            assert not any(form in written for form in forms_of(subject))
        assert not any(rows and rows in written for rows in plain)
    # What belongs to one subject, or to one feature, is not taken for another's.
    first, second = (key_of(log_key_of(keys, one)) for one in SUBJECTS[:2])
    for name in FIELDS:
        held = await store._writes.execute_command("HGET", first, name)
        if held is not None:
            await store._writes.execute_command("HSET", second, name, held)
    assert await store.read(SUBJECTS[1]) == {}
    assert await store.read(SUBJECTS[0]) != {}
    await store.aclose()


async def everything_in(store: ValkeyFeatureStore) -> list[bytes]:
    """Every key, field and value of subjects."""
    found: list[bytes] = []
    async for key in store._writes.scan_iter(match=EVERY_SUBJECT, count=100):
        hashed = await store._writes.execute_command("HGETALL", key)
        found += [key, *hashed.keys(), *hashed.values()]
    return found
