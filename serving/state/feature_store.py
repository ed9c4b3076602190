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

import pyarrow as pa

from contract import features
from contract.events import Event
from contract.features import SubjectState
from contract.frames import EVENT_SCHEMA, event_row, explode
from serving.state.event_log import EventLog, Position
from serving.state.feature_merge import merged
from serving.state.snapshot import (
    SnapshotMissingError,
    SnapshotUnusableError,
    read_snapshot,
    write_snapshot,
)

log = logging.getLogger(__name__)

SNAPSHOT = "features.npz"
SEED = "seed.npz"  # what an import left; the log is replayed on top of it
_CHUNK = 5_000
# A large batch gives way to waiting checkouts after this many events.
_BREATH = 32


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

    async def forget(self, subject_id: str) -> None:
        """Keep nothing of the subject."""
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
    """All states in this process. States are never changed in place, only replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states: dict[str, SubjectState] = {}
        self.position: Position = 0  # every event of the log up to here has been applied
        self._written: Position | None = None  # the position of the snapshot on disk

    async def read(self, subject_id: str) -> SubjectState:
        return self._states.get(subject_id, {})

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        return [self._states.get(subject_id, {}) for subject_id in subject_ids]

    async def apply(self, event: Event) -> None:
        subject = str(event.subject_id)
        self._states[subject] = features.update(self._states.get(subject, {}), event)

    async def absorb(self, events: Sequence[Event]) -> None:
        for place, event in enumerate(events):
            await self.apply(event)
            if place % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)

    async def merge_in(self, states: Mapping[str, SubjectState]) -> None:
        for subject, state in states.items():
            self._states[subject] = merged((self._states.get(subject, {}), state))

    async def forget(self, subject_id: str) -> None:
        self._states.pop(subject_id, None)

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
        """Load the snapshot and apply the log's tail; returns how many events that were."""
        self._states, self.position = self._base()
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

    def _base(self) -> tuple[dict[str, SubjectState], Position]:
        try:
            snapshot = read_snapshot(self._folder / SNAPSHOT)
            self._written = snapshot.position
            return snapshot.states, snapshot.position
        except SnapshotMissingError:
            log.info("there is no snapshot yet; replaying the whole event log")
        except SnapshotUnusableError as problem:
            log.warning("%s; replaying the whole event log", problem)
        if not (self._folder / SEED).exists():
            return {}, 0
        try:
            return read_snapshot(self._folder / SEED).states, 0
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
        if self._written == self.position:
            return
        # A shallow copy is a consistent picture, because states are replaced, never changed.
        states, position = dict(self._states), self.position
        await asyncio.to_thread(write_snapshot, self._folder / SNAPSHOT, states, position)
        self._written = position


class ReadsMany(Protocol):
    """The part of a feature store that a decision uses."""

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        """The states of all of them, in their order, read at once."""
        ...


class LinkedFeatureStore:
    """Reads the states of a subject and of those linked into it as one."""

    def __init__(self, inner: ReadsMany, histories: Callable[[str], tuple[str, ...]]) -> None:
        self._inner = inner
        self._histories = histories

    async def read(self, subject_id: str) -> SubjectState:
        states = await self._inner.read_many(self._histories(subject_id))
        return states[0] if len(states) == 1 else merged(states)


def _chunks(
    rows: Iterator[tuple[Position, Event]],
) -> Iterator[list[tuple[Position, Event]]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk
