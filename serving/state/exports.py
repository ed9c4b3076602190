"""Whose rows a Parquet export of the event log holds (`serving.state.parquet_parts` writes it), and
their removal.

A shopper stands in an export under a pseudonym that no other export has. Every export is registered
with the key of its pseudonyms, so that an erasure finds the person's rows and writes the files
anew without them. An export that was moved or copied elsewhere can not be reached: do not.
"""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.consent import may_store_behaviour
from contract.event_parts import PARTS_FILE
from contract.events import Event
from contract.frames import event_row
from serving.state.control_store import Export
from serving.state.parquet_parts import EVENTS_FOLDER, LOCK_FILE, Row
from serving.whole_file import replacing

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


def row_of(export: Export, purposes: Purposes) -> Callable[[Event], Row | None]:
    """What makes the export's rows of events, None of those that are left out.

    `purposes` says what a subject agrees to now: what is no longer agreed to is taken from the
    event's purposes, and an event that then serves nothing is left out.
    """

    def row(event: Event) -> Row | None:
        subject_id = str(event.subject_id)
        agreed = tuple(sorted(frozenset(event.purposes) & purposes(subject_id)))
        if not may_store_behaviour(agreed):
            return None
        kept = event.model_copy(update={"purposes": agreed})
        return event_row(kept) | {"subject_id": pseudonym(export, subject_id)}

    return row


def erase_from(exports: Sequence[Export], subject_ids: Sequence[str]) -> Removed:
    """Write every file anew that holds rows of these subjects, without them."""
    files = rows = missing = 0
    for export in exports:
        folder = Path(export.folder) / EVENTS_FOLDER
        if not folder.is_dir():
            missing += 1
            continue
        names = pa.array([pseudonym(export, one) for one in subject_ids], pa.string())
        for path in sorted(folder.glob("**/*.parquet")):
            try:
                removed = _without(path, names)
            except FileNotFoundError:  # of a round that was interrupted, and is made again
                continue
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


def delete_export(export: Export) -> None:
    """Remove the files of an export, and its folder if nothing else is in it."""
    folder = Path(export.folder) / EVENTS_FOLDER
    parts = [*folder.glob("**/*.parquet"), *folder.glob("**/.*.draft")]
    for path in (folder / PARTS_FILE, *parts, folder / LOCK_FILE):  # no reader sees half of it
        path.unlink(missing_ok=True)
    for emptied in (*folder.glob("day=*"), folder, Path(export.folder)):
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()
