"""The event log: what happened, once each, in the order of its writing. Everything that is
remembered about shoppers can be made again from it, as long as their keys are there."""

import asyncio
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol
from uuid import UUID, uuid4

from contract.errors import UserError
from contract.event_versions import read_stored
from contract.events import Event
from serving.state.records import Codec, PlainCodec, Record, decoded
from serving.state.sqlite_tail import LAST_POSITION, SqliteTail
from serving.state.sqlite_writer import GroupCommitWriter, StoreError, connect

Appended = Literal["accepted", "duplicate", "erased"]
# How far a log has been read: of one sequence a number, of a partitioned log one per partition.
# 0 is the beginning of any log. For the log alone that it came from.
Position = int | tuple[int, ...]
Offsets = Mapping[int, int]  # the same by partition; a log of one sequence is partition 0

Kind = Literal["behaviour", "decision"]
_Row = tuple[bytes, bytes, int, int, str | bytes]

# A row tells nobody anything but when it was written and which rows are one unknown subject's.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id BLOB NOT NULL UNIQUE,
    log_key BLOB NOT NULL,
    kind INTEGER NOT NULL,
    day INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS records_by_subject ON records (log_key);
CREATE INDEX IF NOT EXISTS records_by_day ON records (kind, day);
CREATE TABLE IF NOT EXISTS probe (only INTEGER PRIMARY KEY CHECK (only = 1), counter INTEGER);
CREATE TABLE IF NOT EXISTS identity (only INTEGER PRIMARY KEY CHECK (only = 1), log_id TEXT);
"""
# So many rows in one step: between steps the interpreter's lock changes hands.
_ROWS = 50
_INSERT, _INSERT_ROWS = (
    "INSERT INTO records (event_id, log_key, kind, day, body) VALUES "
    f"{', '.join(['(?, ?, ?, ?, ?)'] * rows)} ON CONFLICT (event_id) DO NOTHING"
    for rows in (1, _ROWS)
)
_KINDS: dict[Kind, int] = {"behaviour": 0, "decision": 1}
_CHUNK = 2_000
_DELETED_AT_ONCE = 5_000
# A large batch gives way to waiting checkouts after this many events.
_BREATH = 64


class Tail(Protocol):
    """Goes along a log and on as it grows. Where it goes on is kept by whoever follows, beside what
    was made of the events: a partition gives nothing until `place` said from where."""

    @property
    def unplaced(self) -> frozenset[int]:
        """Partitions that wait to be told where to go on."""
        ...

    @property
    def offsets(self) -> Offsets:
        """By partition, where what was taken ends."""
        ...

    async def place(self, offsets: Offsets) -> None:
        """Go on from `offsets` (0 is the beginning); ignored if they are not of the partitions
        that are held now. Raises StoreError."""
        ...

    async def take(self, most: int, wait_s: float) -> list[Event]:
        """Up to `most` events, waiting up to `wait_s` for the first. Raises StoreError."""
        ...

    def rewind(self) -> None:
        """Forget where it is: every partition is to be placed anew."""
        ...

    async def commit(self, offsets: Offsets) -> None:
        """Tell the log that all up to `offsets` has had its effect, for those who watch it."""
        ...

    async def close(self) -> None:
        """Give the partitions to others."""
        ...


class EventLog(Protocol):
    """An append-only log, unique by `event_id` in effect: a repeat may stand in it once more where
    a backend says so, and changes nothing."""

    @property
    def log_id(self) -> str:
        """A name that no other log has."""
        ...

    @property
    def last_position(self) -> Position:
        """The position of the latest durable event, 0 when there is none."""
        ...

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """One answer per event, given when all are durable: `erased` where the subject's key is
        gone, so that nothing was written. Raises StoreError: then they must be sent again, which is
        safe."""
        ...

    def read_from(self, position: Position) -> Iterator[tuple[Position, Event]]:
        """Events after `position`, oldest first (in a partitioned log: of each partition), those of
        erased subjects left out."""
        ...

    def events_of(self, subject_ids: Sequence[str]) -> Iterator[Event]:
        """The events of these subjects, of each oldest first. May be asked from any thread."""
        ...

    @property
    def finds_by_id(self) -> bool:
        """Whether `find` needs no subject."""
        ...

    def find(self, event_id: UUID, subject_ids: Sequence[str]) -> Event | None:
        """The event with this id, None where there is none that can be read. A log that
        `finds_by_id` no single record looks at those of `subject_ids`. From any thread."""
        ...

    async def forget(self, log_keys: Sequence[bytes]) -> int:
        """Remove what is left of erased subjects; returns how many records. A backend that can not
        remove single records leaves them: they open no more."""
        ...

    async def let_go(self, kind: Kind, before: date) -> int:
        """Remove events received before that day; returns how many. A backend that does so by its
        own settings leaves it to them."""
        ...

    def holding(self, log_keys: Collection[bytes]) -> frozenset[bytes]:
        """Those of these subjects of whom there is any record. May be asked from any thread."""
        ...

    def tail(self, group: str | None) -> Tail:
        """Follow the log: all of it, or the part of it that falls to this member of `group`."""
        ...

    async def check(self) -> None:
        """Write something and see it durable, or raise StoreError."""
        ...

    def close(self) -> None:
        """Finish what waits and let go of the files and connections."""
        ...


class SqliteEventLog:
    """An `EventLog` in one SQLite file; an answered append survives the process being killed."""

    def __init__(self, path: Path, codec: Codec | None = None) -> None:
        """Raises UserError for the unencrypted file of an earlier version."""
        self._path = path
        self._codec = codec or PlainCodec()
        self._tails: list[SqliteTail] = []
        self._writer = GroupCommitWriter(path, _SCHEMA)
        made = str(uuid4())
        self._writer.submit(
            lambda connection: connection.execute(
                "INSERT INTO identity VALUES (1, ?) ON CONFLICT DO NOTHING", (made,)
            )
        ).result()
        with closing(connect(path, read_only=True)) as reader:
            if holds_plain_events(reader):
                self._writer.close()
                raise UserError(
                    f"{path} holds events of an earlier version, unencrypted; stop the gateway "
                    "and run `tillwise-serve migrate` once"
                )
            (last,) = reader.execute(LAST_POSITION).fetchone()
            (self.log_id,) = reader.execute("SELECT log_id FROM identity").fetchone()
        self._last_position = int(last)

    @property
    def last_position(self) -> int:
        return self._last_position

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        # Sealed here, not in the writer's thread: the lock is held for inserts alone.
        self._codec.refresh()
        records: list[Record | None] = []
        for start in range(0, len(events), _BREATH):
            if start:
                await asyncio.sleep(0)
            some = events[start : start + _BREATH]
            self._codec.fetch(some)
            records += map(self._codec.encode, some)
        # Somebody may have been erased while this gave way. From here to the writer's queue it does
        # not, and an erasure cleans up behind the queue.
        if len(events) > _BREATH and not self._codec.all_held(records):
            records = [self._codec.encode(event) for event in events]
        rows = [
            None if record is None else _row(record, event)
            for record, event in zip(records, events, strict=True)
        ]

        answers, last = await self._writer.run(lambda connection: _inserted(connection, rows))
        self._last_position = max(self._last_position, last)
        for tail in self._tails:
            tail.wake()
        return answers

    def read_from(self, position: Position) -> Iterator[tuple[int, Event]]:
        assert isinstance(position, int)
        query = "SELECT position, body FROM records WHERE position > ? ORDER BY position LIMIT ?"
        with closing(connect(self._path, read_only=True)) as reader:
            while rows := reader.execute(query, (position, _CHUNK)).fetchall():
                self._codec.refresh()
                for place, body in rows:
                    event = decoded(self._codec, body)
                    if event is not None:
                        yield int(place), event
                position = int(rows[-1][0])

    def events_of(self, subject_ids: Sequence[str]) -> Iterator[Event]:
        query = (
            "SELECT position, body FROM records "
            "WHERE log_key = ? AND position > ? ORDER BY position LIMIT ?"
        )
        with closing(connect(self._path, read_only=True)) as reader:
            for log_key in self._codec.keys_of(subject_ids):
                position = 0
                while rows := reader.execute(query, (log_key, position, _CHUNK)).fetchall():
                    events = (decoded(self._codec, body) for _, body in rows)
                    yield from (event for event in events if event is not None)
                    position = int(rows[-1][0])

    finds_by_id = True

    def find(self, event_id: UUID, subject_ids: Sequence[str]) -> Event | None:
        with closing(connect(self._path, read_only=True)) as reader:
            query = "SELECT body FROM records WHERE event_id = ?"
            row = reader.execute(query, (event_id.bytes,)).fetchone()
        self._codec.refresh()
        return None if row is None else decoded(self._codec, row[0])

    async def forget(self, log_keys: Sequence[bytes]) -> int:
        def delete(connection: sqlite3.Connection) -> int:
            cursors = [
                connection.execute("DELETE FROM records WHERE log_key = ?", (one,))
                for one in log_keys
            ]
            return sum(cursor.rowcount for cursor in cursors)

        removed = await self._writer.run(delete)
        # The write-ahead log still holds the old pages, though nothing in them opens any more.
        await self._writer.run(
            lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(),
            alone=True,
        )
        return removed

    async def let_go(self, kind: Kind, before: date) -> int:
        def delete(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM records WHERE position IN "
                "(SELECT position FROM records WHERE kind = ? AND day < ? LIMIT ?)",
                (_KINDS[kind], before.toordinal(), _DELETED_AT_ONCE),
            ).rowcount

        total = 0
        while removed := await self._writer.run(delete):  # in steps, so that checkouts get between
            total += removed
        return total

    def holding(self, log_keys: Collection[bytes]) -> frozenset[bytes]:
        query = "SELECT 1 FROM records WHERE log_key = ? LIMIT 1"
        with closing(connect(self._path, read_only=True)) as reader:
            return frozenset(one for one in log_keys if reader.execute(query, (one,)).fetchone())

    def tail(self, group: str | None) -> SqliteTail:
        """Of a file that one gateway writes there is one follower: `group` makes no difference."""
        followed = SqliteTail(self._path, self._codec)
        self._tails.append(followed)
        return followed

    async def check(self) -> None:
        await self._writer.run(
            lambda connection: connection.execute(
                "INSERT INTO probe VALUES (1, 1) ON CONFLICT DO UPDATE SET counter = counter + 1"
            )
        )

    def close(self) -> None:
        self._writer.close()


def _inserted(
    connection: sqlite3.Connection, rows: Sequence[_Row | None]
) -> tuple[list[Appended], int]:
    """Write `rows`; what became of each, and the position of the last that was written, or 0."""
    whole = [row for row in rows if row is not None]
    connection.execute("SAVEPOINT together")
    if _num_inserted(connection, whole) == len(whole):
        connection.execute("RELEASE together")
        (last,) = connection.execute("SELECT last_insert_rowid()").fetchone()
        return ["erased" if row is None else "accepted" for row in rows], last if whole else 0
    # Of many at once SQLite tells the number alone; which were there already shows one by one.
    connection.execute("ROLLBACK TO together")
    connection.execute("RELEASE together")
    answers: list[Appended] = []
    last = 0
    for row in rows:
        if row is None:
            answers.append("erased")
            continue
        cursor = connection.execute(_INSERT, row)
        answers.append("accepted" if cursor.rowcount else "duplicate")
        last = int(cursor.lastrowid or 0) if cursor.rowcount else last
    return answers, last


def _num_inserted(connection: sqlite3.Connection, rows: Sequence[_Row]) -> int:
    """Write those of `rows` that are new; returns how many those are."""
    first = len(rows) % _ROWS
    count = connection.executemany(_INSERT, rows[:first]).rowcount if first else 0
    for start in range(first, len(rows), _ROWS):
        values = list(chain.from_iterable(rows[start : start + _ROWS]))
        count += connection.execute(_INSERT_ROWS, values).rowcount
    return count


def _row(record: Record, event: Event) -> _Row:
    kind = _KINDS["decision" if event.event_name == "decision" else "behaviour"]
    day = event.received_at.toordinal()
    return record.event_id, record.key, kind, day, record.body


def holds_plain_events(connection: sqlite3.Connection) -> bool:
    """Whether the file has the table of a version that did not encrypt."""
    row = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone()
    return row is not None


def plain_events(connection: sqlite3.Connection) -> Iterator[list[Event]]:
    """The events of that table, oldest first, some at a time."""
    position = 0
    query = "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?"
    while rows := connection.execute(query, (position, _CHUNK)).fetchall():
        yield [read_stored(body) for _, body in rows]
        position = int(rows[-1][0])


__all__ = [
    "Appended",
    "EventLog",
    "Kind",
    "Offsets",
    "Position",
    "SqliteEventLog",
    "StoreError",
    "Tail",
    "holds_plain_events",
    "plain_events",
]
