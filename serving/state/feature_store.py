"""What is remembered about each subject, ready to be read by a checkout.

`MemoryFeatureStore` keeps it in the process, made again on every start from a snapshot and the tail
of the event log. `LinkedFeatureStore` reads a user together with the visitors that logged in as it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from contract import features
from contract.errors import UserError
from contract.events import Event
from contract.features import FEATURES, SubjectState
from contract.frames import EVENT_SCHEMA, event_row, explode
from contract.rows import merge
from serving.state.event_log import EventLog
from serving.state.sealing import SubjectKeys
from serving.state.snapshot import (
    SnapshotMissingError,
    SnapshotPlainError,
    SnapshotUnusableError,
    read_snapshot,
    write_snapshot,
)

log = logging.getLogger(__name__)

SNAPSHOT = "features.npz"
SEED = "seed.npz"  # what an import left; the log is replayed on top of it
_CHUNK = 5_000
_BREATH = 500
# A large batch gives way to waiting checkouts after this many events.
_BREATH_EVENTS = 32


class FeatureStore(Protocol):
    """States by subject; they merge in any order, so events may come late or twice."""

    async def read(self, subject_id: str) -> SubjectState:
        """The state of `subject_id`, empty when nothing is known."""
        ...

    async def apply(self, event: Event) -> None:
        """Let `event` change its subject's state."""
        ...

    async def absorb(self, events: Sequence[Event]) -> None:
        """Let all of `events` do so."""
        ...

    async def forget(self, subject_id: str) -> None:
        """Know nothing of `subject_id` any more."""
        ...

    async def let_go(self, before_us: int) -> int:
        """Drop rows of before then from every state; returns how many states that changed."""
        ...


class MemoryFeatureStore:
    """All states in this process, in the clear: no decision decrypts anything. States are never
    changed in place, only replaced. Without `keys` there are no snapshots."""

    def __init__(self, folder: Path, keys: SubjectKeys | None = None) -> None:
        self._folder = folder
        self._keys = keys
        self._states: dict[str, SubjectState] = {}
        self.position = 0  # every event of the log up to here has been applied
        self._written: int | None = None  # the position of the snapshot on disk

    async def read(self, subject_id: str) -> SubjectState:
        return self._states.get(subject_id, {})

    async def apply(self, event: Event) -> None:
        subject = str(event.subject_id)
        self._states[subject] = features.update(self._states.get(subject, {}), event)

    async def absorb(self, events: Sequence[Event]) -> None:
        by_subject: dict[str, list[Event]] = {}
        for event in events:
            by_subject.setdefault(str(event.subject_id), []).append(event)
        done = 0
        for subject, own in by_subject.items():
            self._states[subject] = features.update_all(self._states.get(subject, {}), own)
            done += len(own)
            if done >= _BREATH_EVENTS:
                done = 0
                await asyncio.sleep(0)

    async def forget(self, subject_id: str) -> None:
        self._states.pop(subject_id, None)

    async def let_go(self, before_us: int) -> int:
        changed = 0
        for place, (subject, state) in enumerate(list(self._states.items()), start=1):
            kept = _since(state, before_us)
            if kept is not state and self._states.get(subject) is state:
                self._states[subject] = kept
                changed += 1
            if place % _BREATH == 0:
                await asyncio.sleep(0)
        if changed:
            self._written = None  # so that the next snapshot is written whatever its position
        if self._keys is not None and (self._folder / SEED).exists():
            await asyncio.to_thread(self._let_go_of_seed, before_us, self._keys)
        return changed

    def _let_go_of_seed(self, before_us: int, keys: SubjectKeys) -> None:
        try:
            held = read_snapshot(self._folder / SEED, keys).states
        except SnapshotUnusableError as problem:
            log.error("imported history can not be shortened: %s", problem)
            return
        kept = {subject: _since(state, before_us) for subject, state in held.items()}
        if any(kept[subject] is not state for subject, state in held.items()):
            write_snapshot(self._folder / SEED, kept, 0, keys)

    def __len__(self) -> int:
        return len(self._states)

    def restore(self, event_log: EventLog) -> int:
        """Load the snapshot and apply the log's tail; returns how many events that were."""
        self._states, self.position = self._base()
        replayed = 0
        for chunk in _chunks(event_log.read_from(self.position)):
            self._absorb([event for _, event in chunk])
            self.position = chunk[-1][0]
            replayed += len(chunk)
        log.info("features restored: %d subjects, %d events replayed", len(self), replayed)
        return replayed

    def _base(self) -> tuple[dict[str, SubjectState], int]:
        if self._keys is None:
            return {}, 0
        try:
            snapshot = read_snapshot(self._folder / SNAPSHOT, self._keys)
            self._written = snapshot.position
            return snapshot.states, snapshot.position
        except SnapshotPlainError as problem:
            raise _to_migrate(self._folder, problem) from None
        except SnapshotMissingError:
            log.info("there is no snapshot yet; replaying the whole event log")
        except SnapshotUnusableError as problem:
            log.warning("%s; replaying the whole event log", problem)
        if not (self._folder / SEED).exists():
            return {}, 0
        try:
            return read_snapshot(self._folder / SEED, self._keys).states, 0
        except SnapshotPlainError as problem:
            raise _to_migrate(self._folder, problem) from None
        except SnapshotUnusableError as problem:
            log.error("imported history is lost until it is backfilled again: %s", problem)
            return {}, 0

    def _absorb(self, events: list[Event]) -> None:
        table = pa.Table.from_pylist([event_row(event) for event in events], EVENT_SCHEMA)
        for subject, state in features.replay(explode(table)).items():
            held = self._states.get(subject)
            self._states[subject] = state if held is None else merged((held, state))

    async def snapshot(self) -> None:
        """Write the snapshot beside the running traffic, unless the one on disk says the same."""
        if self._written == self.position or self._keys is None:
            return
        # A shallow copy is a consistent picture, because states are replaced, never changed.
        states, position = dict(self._states), self.position
        path = self._folder / SNAPSHOT
        await asyncio.to_thread(write_snapshot, path, states, position, self._keys)
        self._written = position


class LinkedFeatureStore:
    """Reads the states of a subject and of those linked into it as one."""

    def __init__(self, inner: FeatureStore, histories: Callable[[str], tuple[str, ...]]) -> None:
        self._inner = inner
        self._histories = histories

    async def read(self, subject_id: str) -> SubjectState:
        states = [await self._inner.read(subject) for subject in self._histories(subject_id)]
        return states[0] if len(states) == 1 else merged(states)

    async def apply(self, event: Event) -> None:
        await self._inner.apply(event)

    async def absorb(self, events: Sequence[Event]) -> None:
        await self._inner.absorb(events)

    async def forget(self, subject_id: str) -> None:
        await self._inner.forget(subject_id)

    async def let_go(self, before_us: int) -> int:
        return await self._inner.let_go(before_us)


def merged(states: Iterable[SubjectState]) -> SubjectState:
    """One state that holds what all of `states` do, cut to each feature's capacity."""
    whole: SubjectState = {}
    for state in states:
        for feature in FEATURES:
            if feature.name in state:
                held = whole.get(feature.name, feature.empty())
                whole[feature.name] = merge(held, state[feature.name], feature.capacity)
    return whole


def _since(state: SubjectState, before_us: int) -> SubjectState:
    """`state` without rows of before then; the same object when there are none."""
    if not any(rows["occurred_us"][0] < before_us for rows in state.values() if len(rows)):
        return state
    return {name: rows[rows["occurred_us"] >= before_us] for name, rows in state.items()}


def _to_migrate(folder: Path, problem: SnapshotPlainError) -> UserError:
    return UserError(f"state folder {folder}: {problem}; run `tillwise-serve migrate` once")


def _chunks(rows: Iterator[tuple[int, Event]]) -> Iterator[list[tuple[int, Event]]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk
