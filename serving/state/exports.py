"""Parquet exports of the event log, the input of training: one file a day, in `DIR/events`.

A shopper stands in an export under a pseudonym that no other export has. Every export is registered
with the key of its pseudonyms, so that an erasure finds the person's rows and writes the files
anew without them. An export that was moved or copied elsewhere can not be reached: do not.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby, islice
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import UserError
from contract.events import Event
from contract.frames import EVENT_SCHEMA, event_row
from serving.state.control_store import Export
from serving.whole_file import replacing

EVENTS_FOLDER = "events"
_CHUNK = 20_000
Purposes = Callable[[str], frozenset[str]]


@dataclass(frozen=True)
class Removed:
    """What an erasure did to the exports."""

    files: int
    rows: int
    missing: int  # exports that are not where they were made


def pseudonym(export: Export, subject_id: str) -> str:
    """The subject's id in this export alone."""
    digest = hmac.new(export.key, subject_id.encode(), hashlib.sha256).digest()
    return str(UUID(bytes=digest[:16], version=4))


def write_export(export: Export, events: Iterator[Event], purposes: Purposes) -> int:
    """Write `events` (in the order of their receipt) to the export's folder; returns how many.

    `purposes` says what a subject agrees to now: what is no longer agreed to is taken from the
    event's purposes, and an event that then serves nothing is left out. Raises UserError.
    """
    folder = Path(export.folder) / EVENTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for day, group in groupby(events, key=lambda event: event.received_at.date()):
        rows = (row for event in group if (row := _row(event, export, purposes)) is not None)
        count += _write_day(folder, day, rows)
    return count


def _row(event: Event, export: Export, purposes: Purposes) -> dict[str, object] | None:
    subject_id = str(event.subject_id)
    agreed = tuple(sorted(frozenset(event.purposes) & purposes(subject_id)))
    if not {"analytics", "personalization"} & set(agreed):
        return None
    kept = event.model_copy(update={"purposes": agreed})
    return event_row(kept) | {"subject_id": pseudonym(export, subject_id)}


def _write_day(folder: Path, day: date, rows: Iterator[dict[str, object]]) -> int:
    """One more file of that day; a day that is met again, as when clocks differ, has several."""
    count = 0
    while some := list(islice(rows, _CHUNK)):
        number = len(list(folder.glob(f"{day}-*.parquet")))
        with replacing(folder / f"{day}-{number:05d}.parquet") as file:
            pq.write_table(pa.Table.from_pylist(some, EVENT_SCHEMA), file, compression="zstd")
        count += len(some)
    return count


def erase_from(exports: Sequence[Export], subject_ids: Sequence[str]) -> Removed:
    """Write every file anew that holds rows of these subjects, without them."""
    files = rows = missing = 0
    for export in exports:
        folder = Path(export.folder) / EVENTS_FOLDER
        if not folder.is_dir():
            missing += 1
            continue
        names = pa.array([pseudonym(export, one) for one in subject_ids])
        for path in sorted(folder.glob("*.parquet")):
            removed = _without(path, names)
            files, rows = files + bool(removed), rows + removed
    return Removed(files, rows, missing)


def _without(path: Path, names: pa.Array) -> int:
    with pq.ParquetFile(path) as file:
        found = pc.is_in(file.read(columns=["subject_id"])["subject_id"], value_set=names)
        count = int(pc.sum(found).as_py() or 0)
        if not count:
            return 0
        kept = file.read().filter(pc.invert(found))
    with replacing(path) as whole:
        pq.write_table(kept, whole, compression="zstd")
    return count


def check_fresh(folder: Path) -> None:
    """UserError unless `folder` can take an export: files of another one would be mixed in."""
    if (folder / EVENTS_FOLDER).exists():
        raise UserError(f"{folder / EVENTS_FOLDER} exists already; choose a fresh folder")


def delete_export(export: Export) -> None:
    """Remove the files of an export, and its folder if nothing else is in it."""
    folder = Path(export.folder) / EVENTS_FOLDER
    for path in folder.glob("*.parquet"):
        path.unlink()
    for emptied in (folder, Path(export.folder)):
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()
