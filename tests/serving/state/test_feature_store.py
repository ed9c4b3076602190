"""Features are the same however they come about: live, late, twice, by replay, from a snapshot."""

import os
import random
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from contract.events import Event
from contract.features import FEATURES, SubjectState
from serving.state import snapshot as snapshots
from serving.state.event_log import SqliteEventLog
from serving.state.feature_merge import merged
from serving.state.feature_store import (
    SEED,
    SNAPSHOT,
    LinkedFeatureStore,
    MemoryFeatureStore,
)
from serving.state.snapshot import SnapshotUnusableError, read_snapshot, write_snapshot
from tests.serving.state.events import random_events, stored_event

SUBJECTS = [str(UUID(int=number)) for number in range(1, 5)]


def same(left: SubjectState, right: SubjectState) -> bool:
    empty = {feature.name: feature.empty() for feature in FEATURES}
    return all(
        np.array_equal(left.get(name, none), right.get(name, none)) for name, none in empty.items()
    )


async def live(folder: Path, events: list[Event]) -> MemoryFeatureStore:
    store = MemoryFeatureStore(folder)
    for event in events:
        await store.apply(event)
    return store


async def logged(folder: Path, events: list[Event]) -> SqliteEventLog:
    log = SqliteEventLog(folder / "events.sqlite")
    await log.append(events)
    return log


async def assert_same(one: MemoryFeatureStore, other: MemoryFeatureStore) -> None:
    sizes = 0
    for subject in SUBJECTS:
        assert same(await one.read(subject), await other.read(subject)), subject
        sizes += sum(len(rows) for rows in (await one.read(subject)).values())
    assert sizes > 0


@pytest.mark.parametrize("seed", range(8))
async def test_order_repeats_and_replay_do_not_matter(tmp_path: Path, seed: int) -> None:
    events = random_events(seed, count=300)
    in_order = await live(tmp_path, events)
    shuffled = [*events, *events[:40]]
    random.Random(seed).shuffle(shuffled)
    await assert_same(in_order, await live(tmp_path, shuffled))
    log = await logged(tmp_path, shuffled)
    replayed = MemoryFeatureStore(tmp_path)
    assert replayed.restore(log) == 300
    await assert_same(in_order, replayed)
    log.close()


async def test_snapshot_and_tail_make_the_live_state(tmp_path: Path) -> None:
    events = random_events(seed=3, count=200)
    log = await logged(tmp_path, events[:150])
    store = MemoryFeatureStore(tmp_path)
    assert store.restore(log) == 150
    await store.snapshot()
    await log.append(events[150:])
    restarted = MemoryFeatureStore(tmp_path)
    assert restarted.restore(log) == 50
    assert restarted.position == 200
    await assert_same(restarted, await live(tmp_path, events))
    log.close()


async def test_capacity_is_kept_across_a_restart(tmp_path: Path) -> None:
    events = [stored_event(n, event_name="view_item") for n in range(1, 201)]
    log = await logged(tmp_path, events[:120])
    store = MemoryFeatureStore(tmp_path)
    store.restore(log)
    await store.snapshot()
    await log.append(events[120:])
    restarted = MemoryFeatureStore(tmp_path)
    restarted.restore(log)
    state = await restarted.read(SUBJECTS[0])
    assert len(state["recent_interactions"]) == 64
    assert same(state, await (await live(tmp_path, events)).read(SUBJECTS[0]))
    log.close()


@pytest.mark.parametrize("harm", ["truncated", "other features", "not a file", "pickle"])
async def test_an_unusable_snapshot_is_replayed_from_the_log(
    tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events = random_events(seed=5, count=100)
    log = await logged(tmp_path, events)
    store = MemoryFeatureStore(tmp_path)
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
    restarted = MemoryFeatureStore(tmp_path)
    assert restarted.restore(log) == 100
    await assert_same(restarted, store)
    assert "replaying the whole event log" in caplog.text
    log.close()


async def test_imported_history_outlives_the_loss_of_a_snapshot(tmp_path: Path) -> None:
    events = random_events(seed=6, count=100)
    seeded = await live(tmp_path, events[:60])
    states = {subject: await seeded.read(subject) for subject in SUBJECTS}
    write_snapshot(tmp_path / SEED, states, 0)
    log = await logged(tmp_path, events[60:])
    store = MemoryFeatureStore(tmp_path)
    assert store.restore(log) == 40
    await assert_same(store, await live(tmp_path, events))
    await store.snapshot()
    (tmp_path / SNAPSHOT).unlink()
    again = MemoryFeatureStore(tmp_path)
    assert again.restore(log) == 40
    await assert_same(again, store)
    log.close()


async def test_a_snapshot_is_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await live(tmp_path, random_events(seed=7, count=50))
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
    assert read_snapshot(tmp_path / SNAPSHOT).position == 50
    assert [path.name for path in tmp_path.iterdir()] == [SNAPSHOT]


def test_no_snapshot_says_so(tmp_path: Path) -> None:
    with pytest.raises(SnapshotUnusableError, match=r"there is no features\.npz"):
        read_snapshot(tmp_path / SNAPSHOT)


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
