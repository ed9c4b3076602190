"""What is remembered about each subject, ready to be read by a checkout.

`MemoryFeatureStore` keeps it in the process, made again on every start from a snapshot and the tail
of the event log; `serving.state.valkey_feature_store` keeps it in Valkey. `LinkedFeatureStore`
reads a user together with the visitors that logged in as it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol
from uuid import UUID

from contract import features
from contract.errors import UserError
from contract.events import Event
from contract.features import SubjectState
from serving.state.event_log import EventLog, Position
from serving.state.feature_merge import ReadsMany, merged, read_as_one, since
from serving.state.sealing import SubjectKeys
from serving.state.snapshot import (
    SnapshotMissingError,
    SnapshotPlainError,
    SnapshotUnusableError,
    read_snapshot,
    write_snapshot,
)
from serving.state.state_folder import SEED, SNAPSHOT

log = logging.getLogger(__name__)

_CHUNK = 5_000
_BREATH = 500
# A large batch gives way to waiting checkouts after this many events.
_BREATH_EVENTS = 32


class FeatureStore(Protocol):
    """States by subject; they merge in any order, so events may come late or twice."""

    async def read(self, subject_id: str) -> SubjectState:
        """The state of `subject_id`, empty when nothing is known."""
        ...

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        """The states of all of them, in their order, read at once."""
        ...

    async def apply(self, event: Event) -> None:
        """Let `event` change its subject's state."""
        ...

    async def absorb(self, events: Sequence[Event]) -> None:
        """Let all of `events` do so."""
        ...

    async def merge_in(self, states: Mapping[str, SubjectState]) -> None:
        """Add what `states` hold, by subject."""
        ...

    async def forget(self, subject_ids: Sequence[str], log_keys: Sequence[bytes]) -> None:
        """Keep nothing of these erased subjects, as far as either of their names is known; what is
        told of them meanwhile and afterwards leaves nothing either."""
        ...

    async def drop_erased(self) -> None:
        """Keep nothing of whom another process has erased."""
        ...

    async def let_go(self, before_us: int) -> int:
        """Drop rows of before then from every state; returns how many states that changed."""
        ...

    async def marks(self, log_id: str, partitions: Iterable[int]) -> dict[int, int]:
        """How far each partition of the log has been applied; nothing of one that never was."""
        ...

    async def advance(
        self, log_id: str, marks: Mapping[int, tuple[int | None, int]]
    ) -> frozenset[int]:
        """Move marks from what they are held to be to what they are now; returns the partitions
        whose mark is another than was held."""
        ...

    async def snapshot(self) -> None:
        """Keep what a restart would otherwise have to make again."""
        ...

    async def check(self) -> None:
        """Raises StoreError when it does not answer."""
        ...

    async def aclose(self) -> None:
        """Let go of all connections."""
        ...


class MemoryFeatureStore:
    """All states in this process, in the clear: no decision decrypts anything. States are never
    changed in place, only replaced. Without `keys` there are no snapshots."""

    def __init__(self, folder: Path, keys: SubjectKeys | None = None) -> None:
        self._folder = folder
        self._keys = keys
        self._states: dict[str, SubjectState] = {}
        self.position: Position = 0  # every event of the log up to here has been applied
        self._written: Position | None = None  # the position of the snapshot on disk
        self._based = True  # False: the one on disk is still to be read

    async def read(self, subject_id: str) -> SubjectState:
        return self._states.get(subject_id, {})

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        return self.read_now(subject_ids)

    def read_now(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        """As `read_many`: there is nothing to wait for."""
        return [self._states.get(subject_id, {}) for subject_id in subject_ids]

    async def apply(self, event: Event) -> None:
        await self.absorb([event])

    async def absorb(self, events: Sequence[Event]) -> None:
        by_subject = _by_subject(events)
        done = 0
        for subject, own in by_subject.items():
            self._states[subject] = features.update_all(self._states.get(subject, {}), own)
            done += len(own)
            if done >= _BREATH_EVENTS:
                done = 0
                await asyncio.sleep(0)
        self._drop_erased(by_subject)

    async def merge_in(self, states: Mapping[str, SubjectState]) -> None:
        for subject, state in states.items():
            self._states[subject] = merged((self._states.get(subject, {}), state))
        self._drop_erased(states)

    async def forget(self, subject_ids: Sequence[str], log_keys: Sequence[bytes]) -> None:
        for subject in subject_ids:
            self._states.pop(subject, None)

    async def drop_erased(self) -> None:
        if self._keys is not None:
            for subject in await asyncio.to_thread(self._keys.nobody, list(self._states)):
                self._states.pop(subject, None)

    def _drop_erased(self, subject_ids: Iterable[str]) -> None:
        """Events may have been under way while their subject was erased."""
        if self._keys is not None:
            for subject in self._keys.erased(subject_ids):
                self._states.pop(subject, None)

    async def let_go(self, before_us: int) -> int:
        changed = 0
        for place, (subject, state) in enumerate(list(self._states.items()), start=1):
            kept = since(state, before_us)
            if kept is not state and self._states.get(subject) is state:
                self._states[subject] = kept
                changed += 1
            if place % _BREATH == 0:
                await asyncio.sleep(0)
        if changed:
            self._written = None  # so that the next snapshot is written whatever its position
        if self._keys is not None and (self._folder / SEED).exists():
            await asyncio.to_thread(let_go_of_seed, self._folder / SEED, before_us, self._keys)
        return changed

    async def marks(self, log_id: str, partitions: Iterable[int]) -> dict[int, int]:
        held = self.position if isinstance(self.position, tuple) else (self.position,)
        return {part: held[part] for part in partitions if part < len(held) and held[part]}

    async def advance(
        self, log_id: str, marks: Mapping[int, tuple[int | None, int]]
    ) -> frozenset[int]:
        partitioned = isinstance(self.position, tuple)
        held = list(self.position) if isinstance(self.position, tuple) else [self.position]
        for part, (_, now) in marks.items():
            held += [0] * (part + 1 - len(held))
            held[part] = now
        self.position = tuple(held) if partitioned or len(held) > 1 else held[0]
        return frozenset()

    async def check(self) -> None:
        """It is here."""

    async def aclose(self) -> None:
        """There are none."""

    def __len__(self) -> int:
        return len(self._states)

    def restore(self, event_log: EventLog) -> int:
        """Load the snapshot and apply the log's tail; returns how many events that were. Raises
        StoreError: then `restore_base` and a feed bring what is missing."""
        self._based = False
        self._states, self.position = self._base()
        self._based = True
        last = event_log.last_position
        if isinstance(last, int) and isinstance(self.position, int) and self.position > last:
            log.warning("the event log ends before the snapshot does; replaying all of it")
            self.position = 0
        replayed = 0
        for chunk in _chunks(event_log.read_from(self.position)):
            self._absorb([event for _, event in chunk])
            self.position = chunk[-1][0]
            replayed += len(chunk)
        log.info("features restored: %d subjects, %d events replayed", len(self), replayed)
        return replayed

    async def restore_base(self) -> None:
        """Load the snapshot where `restore` could not. Raises StoreError."""
        if not self._based:
            self._states, self.position = await asyncio.to_thread(self._base)
            self._based = True

    def _base(self) -> tuple[dict[str, SubjectState], Position]:
        if self._keys is None:
            return {}, 0
        try:
            snapshot = read_snapshot(self._folder / SNAPSHOT, self._keys)
            if not snapshot.older:
                self._written = snapshot.position
                return snapshot.states, snapshot.position
            log.warning("the snapshot is older than some features; replaying the whole event log")
            return snapshot.states, 0
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
        for subject, own in _by_subject(events).items():
            self._states[subject] = features.update_all(self._states.get(subject, {}), own)

    async def snapshot(self) -> None:
        """Write the snapshot beside the running traffic, unless the one on disk says the same."""
        if self._written == self.position or self._keys is None:
            return
        if not self._based:  # it would take the place of the one that is not read yet
            return
        # A shallow copy is a consistent picture, because states are replaced, never changed.
        states, position = dict(self._states), self.position
        path = self._folder / SNAPSHOT
        await asyncio.to_thread(write_snapshot, path, states, position, self._keys)
        self._written = position


class LinkedFeatureStore:
    """Reads the states of a subject and of those linked into it as one."""

    def __init__(self, inner: ReadsMany, histories: Callable[[str], tuple[str, ...]]) -> None:
        self._inner = inner
        self._histories = histories

    async def read(self, subject_id: str) -> SubjectState:
        return await read_as_one(self._inner, self._histories(subject_id))


def let_go_of_seed(seed: Path, before_us: int, keys: SubjectKeys) -> None:
    """Drop rows of before then from what an import left."""
    try:
        held = read_snapshot(seed, keys).states
    except SnapshotUnusableError as problem:
        log.error("imported history can not be shortened: %s", problem)
        return
    kept = {subject: since(state, before_us) for subject, state in held.items()}
    if any(kept[subject] is not state for subject, state in held.items()):
        write_snapshot(seed, kept, 0, keys)


def _to_migrate(folder: Path, problem: SnapshotPlainError) -> UserError:
    return UserError(f"state folder {folder}: {problem}; run `tillwise-serve migrate` once")


def _by_subject(events: Iterable[Event]) -> dict[str, list[Event]]:
    own: dict[UUID, list[Event]] = {}
    for event in events:
        own.setdefault(event.subject_id, []).append(event)
    return {str(subject_id): found for subject_id, found in own.items()}


def _chunks(
    rows: Iterator[tuple[Position, Event]],
) -> Iterator[list[tuple[Position, Event]]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk
