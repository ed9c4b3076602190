"""Features in Valkey, for several gateways: what one of them writes the others read.

A subject is one hash (`serving.state.valkey_rows`), with `v`, a token that is new with every write.
A write counts only if `v` is still the one that was read: features merge in any order, so a writer
that was overtaken reads again and merges again. Beside them, for each log, stands how far it has
been applied. It is written after the features; a store that lost its last second says so itself.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from contract import features
from contract.events import Event
from contract.features import SubjectState
from serving.state.feature_merge import merged, since
from serving.state.feature_store import let_go_of_seed
from serving.state.sealing import HeldKey, SubjectKeys
from serving.state.snapshot import name_of
from serving.state.sqlite_writer import StoreError
from serving.state.valkey_client import FAILURES, Client, ValkeyPlace, together
from serving.state.valkey_rows import (
    DEFINITIONS,
    EVERY_SUBJECT,
    FIELDS,
    changed,
    key_of,
    log_key_of,
    opened,
)

T = TypeVar("T")
Change = Callable[[SubjectState], SubjectState]

_READ_S, _WRITE_S = 0.25, 2.0
_CONNECTIONS, _WRITERS = 128, 4
_AT_ONCE = 200  # subjects in one round trip of a writer
_ATTEMPTS = 50
_BREATH = 16

_WRITE = b"""
if (redis.call('HGET', KEYS[1], 'v') or '') ~= ARGV[1] then return 0 end
if #ARGV == 2 then return redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'v', unpack(ARGV, 3))
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
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


class ValkeyFeatureStore:
    """A `FeatureStore` in a Valkey server or cluster. `retention`: how long a subject is remembered
    that leaves no more events; `seed`: what an import left and was brought in, cut along with it;
    `read_s`: the longest wait of a reader that has more time than a decision."""

    definitions = DEFINITIONS  # of the features; another has marks of its own, so starts anew

    def __init__(
        self,
        place: ValkeyPlace,
        retention: timedelta,
        gate: Gate,
        keys: SubjectKeys,
        *,
        seed: Path | None = None,
        read_s: float = _READ_S,
    ) -> None:
        # Apart, so that checkouts never wait for a connection that a writer holds.
        self._reads: Client = place.client(read_s, _CONNECTIONS)
        self._read_s = read_s
        self._writes: Client = place.client(_WRITE_S, _WRITERS)
        self._turns = asyncio.Semaphore(_WRITERS)
        self._retention_ms = int(retention.total_seconds() * 1_000)
        self._gate = gate
        self._keys = keys
        self._seed = seed

    async def read(self, subject_id: str) -> SubjectState:
        """As of any feature store. Raises StoreError."""
        return (await self.read_many([subject_id]))[0]

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        """As of any feature store: one round trip. Raises StoreError."""
        held = self._held(subject_ids)
        if not held:
            return [{} for _ in subject_ids]
        found = dict(zip(held, await self._read(tuple(held.values())), strict=True))
        return [found.get(one, {}) for one in subject_ids]

    def _held(self, subject_ids: Iterable[str]) -> dict[str, HeldKey]:
        """The keys of those subjects that are there."""
        self._keys.refresh()
        return {one: held for one in subject_ids if (held := self._keys.of(one)) is not None}

    async def _read(self, held: Sequence[HeldKey]) -> list[SubjectState]:
        if not self._gate.allows():
            raise StoreAwayError("the feature store does not answer and is left alone for a while")
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._read_s):
                found = await _fetch(self._reads, held)
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
        await self._told({subject: _after(found) for subject, found in of_subject.items()})

    async def merge_in(self, states: Mapping[str, SubjectState]) -> None:
        """As of any feature store. Raises StoreError: some of it may have been written."""
        await self._told({subject: _joined(state) for subject, state in states.items()})

    async def forget(self, subject_ids: Sequence[str], log_keys: Sequence[bytes]) -> None:
        """As of any feature store; `subject_ids` mean nothing here. Raises StoreError: what is left
        of them opens no more."""
        for start in range(0, len(log_keys), _AT_ONCE):
            commands = [("DEL", key_of(one)) for one in log_keys[start : start + _AT_ONCE]]
            await self._in_time(partial(together, self._writes, commands))

    async def drop_erased(self) -> None:
        """Whoever erased them has done so for all."""

    async def let_go(self, before_us: int) -> int:
        """As of any feature store, and remove what was left of erased subjects while this store was
        away. Raises StoreError: some of it may have been done."""
        total, some = 0, set[bytes]()
        scan = self._writes.scan_iter(match=EVERY_SUBJECT, count=_AT_ONCE)
        while (key := await self._in_time(partial(anext, scan, None))) is not None:
            log_key = log_key_of(key)
            if log_key is not None:
                some.add(log_key)
            if len(some) >= _AT_ONCE:
                total += await self._let_go(some, before_us)
                some = set()
        total += await self._let_go(some, before_us)
        if self._seed is not None and self._seed.exists():
            await asyncio.to_thread(let_go_of_seed, self._seed, before_us, self._keys)
            await self.note_seed(name_of(self._seed))
        return total

    async def _let_go(self, log_keys: Iterable[bytes], before_us: int) -> int:
        wanted = list(log_keys)
        held = {one.subject_id: one for one in self._keys.of_log_keys(wanted)}
        there = {one.log_key for one in held.values()}
        await self.forget((), [one for one in wanted if one not in there])
        shortened = dict.fromkeys(held, partial(since, before_us=before_us))
        return await self._change(shortened, held, lasts_ms=0)

    async def _told(self, changes: Mapping[str, Change]) -> None:
        held = self._held(changes)
        known = {subject: changes[subject] for subject in held}
        try:
            await self._change(known, held, lasts_ms=self._retention_ms)
        finally:  # who was erased meanwhile was forgotten before this was written
            gone = [held[subject].log_key for subject in self._keys.erased(held)]
            await self.forget((), gone)

    async def _change(
        self, changes: Mapping[str, Change], held: Mapping[str, HeldKey], lasts_ms: int
    ) -> int:
        """Write what `changes` make of the states of these subjects; returns how many that changed.
        `lasts_ms`: how long they are remembered from now on; 0: as long as before."""
        waiting, done = list(changes), 0
        for _ in range(_ATTEMPTS * (1 + len(changes) // _AT_ONCE)):
            if not waiting:
                return done
            now, later = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            keys = [held[subject] for subject in now]
            found = await self._in_time(partial(_fetch, self._writes, keys))
            commands: dict[str, list[Any]] = {}
            for number, (key, (token, before)) in enumerate(zip(keys, found, strict=True)):
                if number % _BREATH == _BREATH - 1:
                    await asyncio.sleep(0)
                after = changes[key.subject_id](before)
                if words := changed(before, after, key):
                    left = any(len(rows) for rows in after.values())
                    kept = (os.urandom(8), *words) if left else ()
                    written = (_WRITE, 1, key_of(key.log_key), token, lasts_ms, *kept)
                    commands[key.subject_id] = ["EVAL", *written]
            refused = await self._refused(commands)
            done += len(commands) - len(refused)
            waiting = later + refused
        raise StoreError("the feature store is written by too many at once")

    async def _refused(self, commands: Mapping[str, list[Any]]) -> list[str]:
        """Send them; returns the subjects where somebody was quicker."""
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


async def _fetch(client: Client, keys: Sequence[HeldKey]) -> list[tuple[bytes, SubjectState]]:
    """The token and the state of each subject."""
    asked = [("HMGET", key_of(held.log_key), b"v", *FIELDS) for held in keys]
    answers = await together(client, asked)
    return [
        (token or b"", opened(fields, held))
        for held, (token, *fields) in zip(keys, answers, strict=True)
    ]


def _after(events: Sequence[Event]) -> Change:
    return lambda state: features.update_all(state, events)


def _joined(more: SubjectState) -> Change:
    return lambda state: merged((state, more))


def _told(error: Exception) -> str:
    # Not the error's own words: they may hold what was sent.
    return f"the feature store failed: {type(error).__name__}"
