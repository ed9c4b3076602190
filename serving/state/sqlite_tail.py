"""Following an event log that is a SQLite file."""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from contract.events import Event
from serving.state.records import Codec, decoded
from serving.state.sqlite_writer import StoreError, connect

_ONLY = frozenset({0})
# Also when the latest records were removed since.
LAST_POSITION = (
    "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'records'), 0) AS last"
)


class SqliteTail:
    """The `Tail` of a SQLite log: one partition, 0, whose offsets are positions."""

    def __init__(self, path: Path, codec: Codec) -> None:
        self._path = path
        self._codec = codec
        self._offset: int | None = None
        self._grown = asyncio.Event()

    @property
    def unplaced(self) -> frozenset[int]:
        return _ONLY if self._offset is None else frozenset()

    @property
    def offsets(self) -> Mapping[int, int]:
        return {} if self._offset is None else {0: self._offset}

    def wake(self) -> None:
        """Something was appended."""
        self._grown.set()

    async def place(self, offsets: Mapping[int, int]) -> None:
        if offsets.keys() != _ONLY:
            return
        last = await asyncio.to_thread(self._last)
        # A log that ends before that is not the one of then (a backup): all of it is new.
        self._offset = offsets[0] if offsets[0] <= last else 0

    async def take(self, most: int, wait_s: float) -> list[Event]:
        if self._offset is None:
            return []
        self._grown.clear()
        found = await self._taken(self._offset, most)
        if not found:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._grown.wait()
            if self._offset is not None:
                found = await self._taken(self._offset, most)
        return found

    async def _taken(self, offset: int, most: int) -> list[Event]:
        last, events = await asyncio.to_thread(self._read, offset, most)
        self._offset = last
        return events

    def rewind(self) -> None:
        self._offset = None

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Nobody watches a file's readers."""

    async def close(self) -> None:
        self._offset = None

    def _read(self, offset: int, most: int) -> tuple[int, list[Event]]:
        asked = "SELECT position, body FROM records WHERE position > ? ORDER BY position LIMIT ?"
        rows = self._asked(asked, (offset, most))
        self._codec.refresh()
        events = [decoded(self._codec, body) for _, body in rows]
        return int(rows[-1][0]) if rows else offset, [one for one in events if one is not None]

    def _last(self) -> int:
        (row,) = self._asked(LAST_POSITION, ())
        return int(row[0])

    def _asked(self, query: str, values: tuple[int, ...]) -> list[tuple[int, str | bytes]]:
        try:
            reader = connect(self._path, read_only=True)
            try:
                rows: list[tuple[int, str | bytes]] = reader.execute(query, values).fetchall()
                return rows
            finally:
                reader.close()
        except sqlite3.Error as error:
            raise StoreError(f"the event log could not be read: {error}") from None
