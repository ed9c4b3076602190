"""Features in Valkey, for several gateways: what one of them writes the others read.

A subject is one hash under a key with a hash tag, so it lies in one slot of a cluster: a field for
each feature, named by its definition, and `v`, a token that is new with every write. A write counts
only if `v` is still the one that was read: features merge in any order, so a writer that was
overtaken reads again and merges again. Beside them, for each log, stands how far it has been
applied. It is written after the features; a store that lost its last second says so itself.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from contract import features
from contract.events import Event
from contract.features import FEATURES, Feature, SubjectState
from serving.state.feature_merge import merged
from serving.state.sqlite_writer import StoreError
from serving.state.valkey_client import FAILURES, Client, ValkeyPlace, together

T = TypeVar("T")
Change = Callable[[SubjectState], SubjectState]

_READ_S, _WRITE_S = 0.25, 2.0
_CONNECTIONS, _WRITERS = 128, 4
_AT_ONCE = 200  # subjects in one round trip of a writer
_ATTEMPTS = 50
_BREATH = 16

_WRITE = b"""
if (redis.call('HGET', KEYS[1], 'v') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'v', unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
_ADVANCE = b"""
local refused = {}
for i = 1, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then
    table.insert(refused, ARGV[i])
  elseif ARGV[i + 1] ~= ARGV[i + 2] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  end
end
return refused
"""


class StoreAwayError(StoreError, TimeoutError):
    """The store is not asked, or did not answer in time. Being a time-out as well, it degrades a
    decision's stage without a line in the log for each."""


class Gate(Protocol):
    """Whether to ask a store that has failed lately; a circuit breaker."""

    def allows(self) -> bool:
        """After a yes, one of the others must follow."""
        ...

    def succeeded(self) -> None:
        """It answered."""
        ...

    def failed(self) -> None:
        """It failed."""
        ...

    def late(self, waited_ms: float, *, crowded: bool) -> None:
        """It did not answer within `waited_ms`."""
        ...


def _field(feature: Feature) -> bytes:
    """Another definition is another field: its rows are made anew from the log."""
    described = (feature.version, feature.kind.dtype, feature.capacity, sorted(feature.event_types))
    digest = hashlib.sha256(repr(described).encode()).hexdigest()
    return f"{feature.name}.{digest[:8]}".encode()


_FIELDS = tuple(_field(feature) for feature in FEATURES)
DEFINITIONS = hashlib.sha256(b"/".join(_FIELDS)).hexdigest()[:8]


def key_of_subject(subject_id: str) -> str:
    """The key under which a subject is kept."""
    return f"tillwise:{{{subject_id}}}:features"


class ValkeyFeatureStore:
    """A `FeatureStore` in a Valkey server or cluster. `retention`: how long a subject is remembered
    that leaves no more events; `read_s`: the longest wait of a reader that has more time than a
    decision."""

    definitions = DEFINITIONS  # of the features; another has marks of its own, so starts anew

    def __init__(
        self, place: ValkeyPlace, retention: timedelta, gate: Gate, *, read_s: float = _READ_S
    ) -> None:
        # Apart, so that checkouts never wait for a connection that a writer holds.
        self._reads: Client = place.client(read_s, _CONNECTIONS)
        self._read_s = read_s
        self._writes: Client = place.client(_WRITE_S, _WRITERS)
        self._turns = asyncio.Semaphore(_WRITERS)
        self._retention_ms = int(retention.total_seconds() * 1_000)
        self._gate = gate

    async def read(self, subject_id: str) -> SubjectState:
        """As of any feature store. Raises StoreError."""
        return (await self.read_many([subject_id]))[0]

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        """As of any feature store: one round trip. Raises StoreError."""
        if not self._gate.allows():
            raise StoreAwayError("the feature store does not answer and is left alone for a while")
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._read_s):
                found = await _fetch(self._reads, subject_ids)
        except (TimeoutError, asyncio.CancelledError) as error:
            self._gate.late((time.perf_counter() - began) * 1_000, crowded=False)
            if isinstance(error, TimeoutError):
                raise StoreAwayError("the feature store did not answer in time") from None
            raise
        except Exception as error:
            self._gate.failed()
            if isinstance(error, FAILURES):
                raise StoreAwayError(_told(error)) from None
            raise
        self._gate.succeeded()
        return [state for _, state in found]

    async def apply(self, event: Event) -> None:
        """As of any feature store. Raises StoreError."""
        await self.absorb([event])

    async def absorb(self, events: Sequence[Event]) -> None:
        """As of any feature store. Raises StoreError: some of it may have been written."""
        of_subject: dict[str, list[Event]] = {}
        for event in events:
            of_subject.setdefault(str(event.subject_id), []).append(event)
        await self._change({subject: _after(found) for subject, found in of_subject.items()})

    async def merge_in(self, states: Mapping[str, SubjectState]) -> None:
        """As of any feature store. Raises StoreError: some of it may have been written."""
        await self._change({subject: _joined(state) for subject, state in states.items()})

    async def forget(self, subject_id: str) -> None:
        """As of any feature store. Raises StoreError."""
        await self._write("DEL", key_of_subject(subject_id))

    async def _change(self, changes: Mapping[str, Change]) -> None:
        waiting = list(changes)
        for _ in range(_ATTEMPTS * (1 + len(changes) // _AT_ONCE)):
            if not waiting:
                return
            now, later = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            found = await self._in_time(partial(_fetch, self._writes, now))
            refused = await self._store(now, found, changes)
            waiting = later + refused
        raise StoreError("the feature store is written by too many at once")

    async def _store(
        self,
        subjects: Sequence[str],
        found: Sequence[tuple[bytes, SubjectState]],
        changes: Mapping[str, Change],
    ) -> list[str]:
        """Write what `changes` make of what was `found`; returns the subjects overtaken."""
        commands: dict[str, list[Any]] = {}
        for number, (subject, (token, before)) in enumerate(zip(subjects, found, strict=True)):
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            fields = _changed(before, changes[subject](before))
            if fields:
                key = key_of_subject(subject)
                settings = (token, self._retention_ms, os.urandom(8))
                commands[subject] = ["EVAL", _WRITE, 1, key, *settings, *fields]
        if not commands:
            return []
        answers = await self._in_time(partial(together, self._writes, list(commands.values())))
        return [subject for subject, done in zip(commands, answers, strict=True) if not done]

    async def marks(self, log_id: str, partitions: Iterable[int]) -> dict[int, int]:
        """How far each partition of the log has been applied; nothing of one that never was.
        Raises StoreError."""
        asked = list(partitions)
        found = await self._write("HMGET", _marks_key(log_id), *asked)
        return {
            part: int(mark) for part, mark in zip(asked, found, strict=True) if mark is not None
        }

    async def advance(
        self, log_id: str, marks: Mapping[int, tuple[int | None, int]]
    ) -> frozenset[int]:
        """Move marks from what they are held to be to what they are now; returns the partitions
        whose mark is another than was held. Raises StoreError."""
        words: list[Any] = []
        for part, (held, now) in marks.items():
            words += [part, b"" if held is None else held, now]
        refused = await self._write("EVAL", _ADVANCE, 1, _marks_key(log_id), *words)
        return frozenset(int(part) for part in refused)

    async def has_seed(self, name: str) -> bool:
        """Whether the import `name` was merged in as a whole. Raises StoreError."""
        return bool(await self._write("SISMEMBER", _marks_key("seeds"), name))

    async def note_seed(self, name: str) -> None:
        """Note that it was. Raises StoreError."""
        await self._write("SADD", _marks_key("seeds"), name)

    async def snapshot(self) -> None:
        """Nothing to do: the store keeps its own."""

    async def check(self) -> None:
        """Raises StoreError when it does not answer."""
        await self._write("PING")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._reads.aclose()
        await self._writes.aclose()

    async def _write(self, *words: Any) -> Any:
        return await self._in_time(lambda: self._writes.execute_command(*words))

    async def _in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._turns, asyncio.timeout(_WRITE_S):
                return await work()
        except FAILURES as error:
            raise StoreError(_told(error)) from None


def _marks_key(log_id: str) -> str:
    return f"tillwise:{{marks}}:{DEFINITIONS}:{log_id}"


async def _fetch(client: Client, subject_ids: Sequence[str]) -> list[tuple[bytes, SubjectState]]:
    """The token and the state of each subject."""
    asked = [("HMGET", key_of_subject(subject), b"v", *_FIELDS) for subject in subject_ids]
    return [(token or b"", _state(rows)) for token, *rows in await together(client, asked)]


def _state(fields: Sequence[bytes | None]) -> SubjectState:
    # Copied, because compiled functions ask for arrays that may be written to.
    return {
        feature.name: np.frombuffer(bytearray(raw), feature.kind.dtype)
        for feature, raw in zip(FEATURES, fields, strict=True)
        if raw
    }


def _changed(before: SubjectState, after: SubjectState) -> list[bytes]:
    """Field and rows of each feature that is not what it was."""
    words: list[bytes] = []
    for feature, name in zip(FEATURES, _FIELDS, strict=True):
        rows, held = after.get(feature.name), before.get(feature.name)
        if rows is None or rows is held or not len(rows):
            continue
        raw = rows.tobytes()
        if held is None or raw != held.tobytes():
            words += [name, raw]
    return words


def _after(events: Sequence[Event]) -> Change:
    def change(state: SubjectState) -> SubjectState:
        for event in events:
            state = features.update(state, event)
        return state

    return change


def _joined(more: SubjectState) -> Change:
    return lambda state: merged((state, more))


def _told(error: Exception) -> str:
    # Not the error's own words: they may hold what was sent.
    return f"the feature store failed: {type(error).__name__}"
