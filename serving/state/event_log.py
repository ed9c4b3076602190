"""The event log: what happened, once each, in the order of its writing. Everything that is
remembered about shoppers can be made again from it."""

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol
from uuid import uuid4

from contract.events import Event
from serving.state.records import Codec, PlainCodec, decoded
from serving.state.sqlite_tail import SqliteTail
from serving.state.sqlite_writer import GroupCommitWriter, StoreError, connect

Appended = Literal["accepted", "duplicate", "erased"]
# How far a log has been read: of one sequence a number, of a partitioned log one per partition.
# 0 is the beginning of any log. For the log alone that it came from.
Position = int | tuple[int, ...]
Offsets = Mapping[int, int]  # the same by partition; a log of one sequence is partition 0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id BLOB NOT NULL UNIQUE,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS probe (only INTEGER PRIMARY KEY CHECK (only = 1), counter INTEGER);
CREATE TABLE IF NOT EXISTS identity (only INTEGER PRIMARY KEY CHECK (only = 1), log_id TEXT);
"""
_CHUNK = 2_000
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
        """Events after `position`, oldest first (in a partitioned log: of each partition)."""
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
        self._path = path
        self._codec = codec or PlainCodec()
        self._writer = GroupCommitWriter(path, _SCHEMA)
        self._tails: list[SqliteTail] = []
        made = str(uuid4())
        self._writer.submit(
            lambda connection: connection.execute(
                "INSERT INTO identity VALUES (1, ?) ON CONFLICT DO NOTHING", (made,)
            )
        ).result()
        reader = connect(path, read_only=True)
        (last,) = reader.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        (self.log_id,) = reader.execute("SELECT log_id FROM identity").fetchone()
        reader.close()
        self._last_position = int(last)

    @property
    def last_position(self) -> int:
        return self._last_position

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        # Serialised here, not in the writer's thread: the lock is held for inserts alone.
        self._codec.refresh()
        rows: list[tuple[bytes, str | bytes] | None] = []
        for event in events:
            record = self._codec.encode(event)
            rows.append(None if record is None else (record.event_id.bytes, record.body))
            if len(rows) % _BREATH == 0:
                await asyncio.sleep(0)

        def insert(connection: sqlite3.Connection) -> tuple[list[Appended], int]:
            answers: list[Appended] = []
            last = 0
            for row in rows:
                if row is None:
                    answers.append("erased")
                    continue
                cursor = connection.execute(
                    "INSERT INTO events (event_id, body) VALUES (?, ?) "
                    "ON CONFLICT (event_id) DO NOTHING",
                    row,
                )
                answers.append("accepted" if cursor.rowcount else "duplicate")
                last = int(cursor.lastrowid or 0) if cursor.rowcount else last
            return answers, last

        answers, last = await self._writer.run(insert)
        self._last_position = max(self._last_position, last)
        for tail in self._tails:
            tail.wake()
        return answers

    def read_from(self, position: Position) -> Iterator[tuple[int, Event]]:
        assert isinstance(position, int)
        reader = connect(self._path, read_only=True)
        try:
            while rows := reader.execute(
                "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?",
                (position, _CHUNK),
            ).fetchall():
                self._codec.refresh()
                for place, body in rows:
                    event = decoded(self._codec, body)
                    if event is not None:
                        yield int(place), event
                position = int(rows[-1][0])
        finally:
            reader.close()

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


__all__ = ["Appended", "EventLog", "Offsets", "Position", "SqliteEventLog", "StoreError", "Tail"]
