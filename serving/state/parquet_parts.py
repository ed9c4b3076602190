"""The event log as Parquet files by day, `events/day=2026-11-25/part-00003.parquet`: what
`tillwise-train fit --data` reads. It grows by rounds; each is there as a whole or not at all."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import UserError
from contract.event_parts import PARTS_FILE, EventParts, read_parts
from contract.events import Event
from contract.file_lock import alone, alone_if_free
from contract.frames import EVENT_SCHEMA, event_row
from contract.whole_file import replacing
from serving.state.event_log import EventLog

EVENTS_FOLDER = "events"
LOCK_FILE = ".lock"  # held as long as an export grows
REWRITE_FILE = ".rewrite"  # held while files that are there are written anew or removed
AT_ONCE = 20_000  # events of a round: what an interrupted run makes again, and what memory holds
Row = Mapping[str, Any]
_DAYS_REMEMBERED = 64  # event ids of so many days are held while a run goes on


class ParquetParts:
    """One export, held by one process; made by `open_parts`."""

    def __init__(self, folder: Path, log_id: str) -> None:
        self._folder = folder
        self.held = _held(folder, log_id)
        self.left_out = 0  # rows of this run that no file can hold
        self._ids: OrderedDict[str, set[str]] = OrderedDict()
        self._remove_unfinished()

    def add(self, rows: Sequence[Row], position: int | tuple[int, ...]) -> int:
        """Add a round of rows (of `EVENT_SCHEMA`), with which the export reaches `position`;
        returns how many were new. An event that stands in its day already is left out, and so is
        one whose day nobody can say (`left_out`)."""
        by_day: dict[str, list[Row]] = {}
        for row in rows:
            if (occurred_on := _day_of(row)) is None:
                self.left_out += 1
            else:
                by_day.setdefault(f"day={occurred_on}", []).append(row)
        parts, count = list(self.held.parts), 0
        for day, of_day in sorted(by_day.items()):
            fresh = self._fresh(day, of_day)
            if fresh:
                parts.append(self._write(day, fresh))
                count += len(fresh)
        # Sorted, so that an export reads in the order of its days however it grew.
        self.held = EventParts(
            self.held.log_id, position, self.held.rounds + 1, tuple(sorted(parts))
        )
        with replacing(self._folder / PARTS_FILE) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(self.held.as_json().encode())
        return count

    def _fresh(self, day: str, rows: Sequence[Row]) -> list[Row]:
        ids = self._ids_of(day)
        fresh: list[Row] = []
        for row in rows:
            if row["event_id"] not in ids:
                ids.add(row["event_id"])
                fresh.append(row)
        return fresh

    def _ids_of(self, day: str) -> set[str]:
        if day not in self._ids:
            found: set[str] = set()
            for part in self.held.parts:
                if part.startswith(f"{day}/"):
                    with pq.ParquetFile(self._folder / part) as file:
                        found.update(file.read(columns=["event_id"])["event_id"].to_pylist())
            self._ids[day] = found
        self._ids.move_to_end(day)
        while len(self._ids) > _DAYS_REMEMBERED:
            self._ids.popitem(last=False)
        return self._ids[day]

    def _write(self, day: str, rows: Sequence[Row]) -> str:
        part = f"{day}/part-{self.held.rounds:05d}.parquet"
        (self._folder / day).mkdir(mode=0o700, exist_ok=True)
        with replacing(self._folder / part) as file:
            os.fchmod(file.fileno(), 0o600)
            pq.write_table(pa.Table.from_pylist(list(rows), EVENT_SCHEMA), file, compression="zstd")
        return part

    def _remove_unfinished(self) -> None:
        """Files of a round that was interrupted: nobody reads them, and it is made again."""
        listed = set(self.held.parts)
        with rewriting(self._folder):
            for path in self._folder.glob("day=*/*"):
                if str(path.relative_to(self._folder)) not in listed:
                    path.unlink()


def export(
    event_log: EventLog,
    parts: ParquetParts,
    row: Callable[[Event], Row | None] = event_row,
    at_once: int = AT_ONCE,
    after: Callable[[Sequence[Event]], None] = lambda _: None,
) -> tuple[int, int]:
    """Add to `parts` what the log holds behind them; `row` makes an event's row, or None where it
    is to be left out; `after` is told the events of each round that is written. Returns how many
    events were read and how many rows added."""
    found = event_log.read_from(parts.held.position)
    read = added = 0
    while some := list(islice(found, at_once)):
        rows = [made for _, event in some if (made := row(event)) is not None]
        added += parts.add(rows, some[-1][0])
        read += len(some)
        after([event for _, event in some])
    return read, added


def _day_of(row: Row) -> date | None:
    """The day of the row in UTC; None for a time that there is in its own zone alone, which earlier
    versions accepted. One such row must not keep all others from being exported."""
    occurred: datetime = row["occurred_at"]
    try:
        return occurred.astimezone(UTC).date()
    except OverflowError:
        return None


@contextmanager
def rewriting(folder: Path) -> Iterator[None]:
    """Alone, of all threads and processes, in writing the files of an export anew: of two that had
    read the same file, the later one would bring back what the earlier one took out."""
    with alone(folder / REWRITE_FILE):
        yield


@contextmanager
def open_parts(output: Path, log_id: str) -> Iterator[ParquetParts]:
    """The export in `output`, begun or gone on with, for this process alone.

    Raises UserError when another one works on it, or when it is not of this log.
    """
    folder = output / EVENTS_FOLDER
    # What shoppers did, if under pseudonyms: for the user alone who trains, as the state folder is.
    output.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    with alone_if_free(folder / LOCK_FILE) as free:
        if not free:
            raise UserError(f"{folder}: another export writes there")
        yield ParquetParts(folder, log_id)


def _held(folder: Path, log_id: str) -> EventParts:
    file = folder / PARTS_FILE
    if not file.exists():
        if any(folder.glob("**/*.parquet")) and not any(folder.glob("day=*")):
            raise UserError(f"{folder}: holds events of an import; choose another --output")
        return EventParts(log_id, 0, 0, ())
    try:
        held = read_parts(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    if held.log_id != log_id:
        raise UserError(f"{folder}: holds events of another log; choose another --output")
    return held
