"""Features are the same however they come about: live, late, twice, by replay, from a snapshot."""

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from contract.events import Event
from contract.features import FEATURES, SubjectState, hashes_beside
from serving.state import snapshot as snapshots
from serving.state.feature_merge import merged
from serving.state.feature_store import (
    LinkedFeatureStore,
    MemoryFeatureStore,
)
from serving.state.sealing import SubjectKeys
from serving.state.snapshot import SnapshotUnusableError, read_snapshot, write_snapshot
from serving.state.state_folder import SEED, SNAPSHOT
from tests.serving.state.events import random_events, stored_event
from tests.serving.state.stores import Stores

SUBJECTS = [str(UUID(int=number)) for number in range(1, 5)]


def same(left: SubjectState, right: SubjectState) -> bool:
    empty = {feature.name: feature.nothing for feature in FEATURES}
    return all(
        np.array_equal(left.get(name, none), right.get(name, none)) for name, none in empty.items()
    )


async def live(
    folder: Path, events: list[Event], keys: SubjectKeys | None = None
) -> MemoryFeatureStore:
    store = MemoryFeatureStore(folder, keys)
    for event in events:
        await store.apply(event)
    return store


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    """A folder's stores with the subjects of `SUBJECTS`."""
    made = Stores(tmp_path)
    await made.add_subjects(len(SUBJECTS))
    yield made
    made.close()


async def assert_same(one: MemoryFeatureStore, other: MemoryFeatureStore) -> None:
    sizes = 0
    for subject in SUBJECTS:
        assert same(await one.read(subject), await other.read(subject)), subject
        sizes += sum(len(rows) for rows in (await one.read(subject)).values())
    assert sizes > 0


@pytest.mark.parametrize("seed", range(8))
async def test_order_repeats_and_replay_do_not_matter(
    stores: Stores, tmp_path: Path, seed: int
) -> None:
    events = random_events(seed, count=300)
    in_order = await live(tmp_path, events)
    shuffled = [*events, *events[:40]]
    random.Random(seed).shuffle(shuffled)
    await assert_same(in_order, await live(tmp_path, shuffled))
    log = stores.log
    await log.append(shuffled)
    replayed = stores.restarted_features()
    assert replayed.restore(log) == 300
    await assert_same(in_order, replayed)


@pytest.mark.parametrize("seed", range(4))
async def test_many_events_at_once_are_as_one_by_one(tmp_path: Path, seed: int) -> None:
    events = random_events(seed, count=300)
    one_by_one = await live(tmp_path, events)
    at_once = MemoryFeatureStore(tmp_path)
    for start in range(0, 300, 70):
        await at_once.absorb([*events[start : start + 70], *events[: start // 2]])
    await assert_same(one_by_one, at_once)


async def test_snapshot_and_tail_make_the_live_state(stores: Stores, tmp_path: Path) -> None:
    events = random_events(seed=3, count=200)
    log = stores.log
    await log.append(events[:150])
    store = stores.restarted_features()
    assert store.restore(log) == 150
    await store.snapshot()
    await log.append(events[150:])
    restarted = stores.restarted_features()
    assert restarted.restore(log) == 50
    assert restarted.position == 200
    await assert_same(restarted, await live(tmp_path, events))


async def test_capacity_is_kept_across_a_restart(stores: Stores, tmp_path: Path) -> None:
    events = [stored_event(n, event_name="view_item") for n in range(1, 201)]
    log = stores.log
    await log.append(events[:120])
    store = stores.restarted_features()
    store.restore(log)
    await store.snapshot()
    await log.append(events[120:])
    restarted = stores.restarted_features()
    restarted.restore(log)
    state = await restarted.read(SUBJECTS[0])
    assert len(state["recent_interactions"]) == 64
    assert same(state, await (await live(tmp_path, events)).read(SUBJECTS[0]))


@pytest.mark.parametrize("harm", ["truncated", "other features", "not a file", "pickle"])
async def test_an_unusable_snapshot_is_replayed_from_the_log(
    stores: Stores,
    tmp_path: Path,
    harm: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = random_events(seed=5, count=100)
    log = stores.log
    await log.append(events)
    store = stores.restarted_features()
    store.restore(log)
    path = tmp_path / SNAPSHOT
    if harm == "other features":
        with monkeypatch.context() as patched:
            patched.setattr(snapshots, "feature_hash", lambda: "0" * 64)
            await store.snapshot()
    elif harm == "pickle":
        with path.open("wb") as file:
            np.savez(file, feature_hash=np.array([{}], dtype=object))
    else:
        await store.snapshot()
        path.write_bytes(path.read_bytes()[:1_000] if harm == "truncated" else b"nonsense")
    restarted = stores.restarted_features()
    assert restarted.restore(log) == 100
    await assert_same(restarted, store)
    assert "replaying the whole event log" in caplog.text


@pytest.mark.parametrize("beside", [0, 1])
async def test_a_snapshot_of_before_there_were_some_features(
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    beside: int,
) -> None:
    """Of none or one beside those of products. The log tells of the others; of an import there is
    no log, and what it left is kept."""
    events = random_events(seed=6, count=100)
    seeded = await live(tmp_path, events[:40])
    log = stores.log
    await log.append(events[40:])
    store = stores.restarted_features()
    store.restore(log)
    products = [feature for feature in FEATURES if feature.of_products]
    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "FEATURES", FEATURES[: len(products) + beside])
        patched.setattr(snapshots, "hashes_beside", lambda: hashes_beside()[: beside + 1])
        await store.snapshot()
        states = {subject: await seeded.read(subject) for subject in SUBJECTS}
        write_snapshot(tmp_path / SEED, states, 0, stores.keys)
    for path in (tmp_path / SNAPSHOT, tmp_path / SEED):
        content = dict(np.load(path))
        if not beside:  # then nobody said so
            del content["hash_beside"]
        np.savez(path, **content)
    restarted = stores.restarted_features()
    assert restarted.restore(log) == 60
    assert "older than some features; replaying the whole event log" in caplog.text
    await assert_same(restarted, store)
    (tmp_path / SNAPSHOT).unlink()
    restarted = stores.restarted_features()
    assert restarted.restore(log) == 60
    whole = await live(tmp_path, events)
    for subject in SUBJECTS:
        found, wanted = await restarted.read(subject), await whole.read(subject)
        assert all(same({n.name: found[n.name]}, {n.name: wanted[n.name]}) for n in products)


async def test_a_snapshot_of_another_feedback_is_made_anew(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = stores.log
    await log.append(random_events(seed=6, count=100))
    store = stores.restarted_features()
    store.restore(log)
    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "hashes_beside", lambda: ("0" * 64,))
        await store.snapshot()
    assert stores.restarted_features().restore(log) == 100


async def test_imported_history_outlives_the_loss_of_a_snapshot(
    stores: Stores, tmp_path: Path
) -> None:
    events = random_events(seed=6, count=100)
    seeded = await live(tmp_path, events[:60])
    states = {subject: await seeded.read(subject) for subject in SUBJECTS}
    write_snapshot(tmp_path / SEED, states, 0, stores.keys)
    log = stores.log
    await log.append(events[60:])
    store = stores.restarted_features()
    assert store.restore(log) == 40
    await assert_same(store, await live(tmp_path, events))
    await store.snapshot()
    (tmp_path / SNAPSHOT).unlink()
    again = stores.restarted_features()
    assert again.restore(log) == 40
    await assert_same(again, store)


async def test_a_snapshot_is_whole_or_absent(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await live(tmp_path, random_events(seed=7, count=50), stores.keys)
    store.position = 50
    await store.snapshot()
    before = (tmp_path / SNAPSHOT).read_bytes()
    await store.apply(stored_event(1_000))
    store.position = 51

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            await store.snapshot()
    assert (tmp_path / SNAPSHOT).read_bytes() == before
    assert read_snapshot(tmp_path / SNAPSHOT, stores.keys).position == 50
    assert [path.name for path in tmp_path.glob("*features*")] == [SNAPSHOT]


def test_no_snapshot_says_so(stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(SnapshotUnusableError, match=r"there is no features\.npz"):
        read_snapshot(tmp_path / SNAPSHOT, stores.keys)


async def test_linked_histories_are_read_as_one(tmp_path: Path) -> None:
    events = random_events(seed=8, count=200)
    store = await live(tmp_path, events)
    linked = LinkedFeatureStore(store, lambda subject: (subject, *SUBJECTS[1:3]))
    together = await linked.read(SUBJECTS[0])
    as_one = {UUID(subject) for subject in SUBJECTS[:3]}
    moved = [
        event.model_copy(update={"subject_id": UUID(int=1)})
        for event in events
        if event.subject_id in as_one
    ]
    expected = await (await live(tmp_path, moved)).read(SUBJECTS[0])
    assert same(together, expected)
    assert not same(together, await store.read(SUBJECTS[0]))
    assert same(merged([]), {})
