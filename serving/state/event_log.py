"""The event log: what happened, once each, in the order of its writing. Everything that is
remembered about shoppers can be made again from it."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from contract.events import Event
from serving.state.sqlite_writer import GroupCommitWriter, StoreError, connect

Appended = Literal["accepted", "duplicate"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id BLOB NOT NULL UNIQUE,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS probe (only INTEGER PRIMARY KEY CHECK (only = 1), counter INTEGER);
"""
_CHUNK = 2_000
# A large batch gives way to waiting checkouts after this many events.
_BREATH = 64


class EventLog(Protocol):
    """An append-only log, unique by `event_id`; positions start at 1 and grow."""

    @property
    def last_position(self) -> int:
        """The position of the latest durable event, 0 when there is none."""
        ...

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """One answer per event, given when all are durable. Raises StoreError: none is."""
        ...

    def read_from(self, position: int) -> Iterator[tuple[int, Event]]:
        """Events after `position`, oldest first."""
        ...

    async def check(self) -> None:
        """Write something and see it durable, or raise StoreError."""
        ...

    def close(self) -> None:
        """Finish what waits and let go of the files."""
        ...


class SqliteEventLog:
    """An `EventLog` in one SQLite file; an answered append survives the process being killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = GroupCommitWriter(path, _SCHEMA)
        reader = connect(path, read_only=True)
        (last,) = reader.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        reader.close()
        self._last_position = int(last)

    @property
    def last_position(self) -> int:
        return self._last_position

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        # Serialised here, not in the writer's thread: the lock is held for inserts alone.
        rows: list[tuple[bytes, str]] = []
        for event in events:
            rows.append((event.event_id.bytes, event.model_dump_json(exclude_none=True)))
            if len(rows) % _BREATH == 0:
                await asyncio.sleep(0)

        def insert(connection: sqlite3.Connection) -> tuple[list[Appended], int]:
            answers: list[Appended] = []
            last = 0
            for row in rows:
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
        return answers

    def read_from(self, position: int) -> Iterator[tuple[int, Event]]:
        reader = connect(self._path, read_only=True)
        try:
            while rows := reader.execute(
                "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?",
                (position, _CHUNK),
            ).fetchall():
                for place, body in rows:
                    yield int(place), Event.model_validate_json(body)
                position = int(rows[-1][0])
        finally:
            reader.close()

    async def check(self) -> None:
        await self._writer.run(
            lambda connection: connection.execute(
                "INSERT INTO probe VALUES (1, 1) ON CONFLICT DO UPDATE SET counter = counter + 1"
            )
        )

    def close(self) -> None:
        self._writer.close()


__all__ = ["Appended", "EventLog", "SqliteEventLog", "StoreError"]
