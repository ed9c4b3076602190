"""Whose rows a Parquet export of the event log holds (`serving.state.parquet_parts` writes it), and
their removal.

A shopper stands in an export under a pseudonym that no other export has; so do sessions and orders.
Every export is registered
with the key of its pseudonyms, so that an erasure finds the person's rows and writes the files
anew without them. An export that was moved or copied elsewhere can not be reached: do not.
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.consent import PURPOSES, may_store_behaviour, redact
from contract.event_parts import PARTS_FILE
from contract.events import Event
from contract.frames import event_row
from contract.whole_file import replacing
from serving.state.control_records import Export
from serving.state.parquet_parts import EVENTS_FOLDER, LOCK_FILE, REWRITE_FILE, Row, rewriting

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


def _other_name(export: Export, column: str, named: str) -> str:
    """What stands for a session or an order in this export alone."""
    said = f"{column}:{named}".encode()
    return hmac.digest(export.key, said, "sha256")[:16].hex()


def row_of(export: Export, purposes: Purposes) -> Callable[[Event], Row | None]:
    """What makes the export's rows of events, None of those that are left out.

    `purposes` says what a subject agrees to now: the event is written as it would be today, and
    one that then serves nothing is left out.
    """

    def row(event: Event) -> Row | None:
        subject_id = str(event.subject_id)
        kept = redact(event, frozenset(event.purposes) & purposes(subject_id))
        if kept is None:
            return None
        told = event_row(kept) | {"subject_id": pseudonym(export, subject_id)}
        for column in ("session_id", "transaction_id"):
            # The shop's own order numbers would lead from an export to a name and an address.
            if told[column] is not None:
                told[column] = _other_name(export, column, told[column])
        return told

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
        with rewriting(folder):
            for path in sorted(folder.glob("**/*.parquet")):
                removed = _changed(path, names, lambda _: None)
                files, rows = files + bool(removed), rows + removed
    return Removed(files, rows, missing)


def is_there(export: Export) -> bool:
    """Whether its files can be reached from here and now."""
    return (Path(export.folder) / EVENTS_FOLDER).is_dir()


def keep_only(export: Export, living: Callable[[], Iterable[str]]) -> int:
    """Take out the rows of everybody who is not among the subjects that `living` names; returns how
    many. It is asked once the files are known, so that whoever is new by then has none in them."""
    folder = Path(export.folder) / EVENTS_FOLDER
    if not folder.is_dir():
        return 0
    with rewriting(folder):
        paths = sorted(folder.glob("**/*.parquet"))
        names = pa.array([pseudonym(export, one) for one in living()], pa.string())
        return sum(_changed(path, names, lambda _: None, others=True) for path in paths)


def narrow(export: Export, subject_ids: Iterable[str], purposes: Purposes) -> int:
    """Bring rows that were added earlier down to what their subjects agree to now; returns how many
    rows that changed or removed."""
    limited = {
        pseudonym(export, one): agreed
        for one in subject_ids
        if not (agreed := purposes(one)) >= PURPOSES
    }

    def narrowed(row: Row) -> Row | None:
        agreed = [one for one in row["purposes"] if one in limited[row["subject_id"]]]
        if not may_store_behaviour(agreed):
            return None
        kept = {**row, "purposes": agreed}
        if "personalization" not in agreed:  # what `redact` takes out
            kept["search_term"] = kept["decision"] = None
            kept["context"] = row["context"] and {**row["context"], "region": None}
        return kept

    folder = Path(export.folder) / EVENTS_FOLDER
    names = pa.array(list(limited), pa.string())
    with rewriting(folder):
        return sum(_changed(path, names, narrowed) for path in sorted(folder.glob("**/*.parquet")))


def _changed(
    path: Path, names: pa.Array, change: Callable[[Row], Row | None], *, others: bool = False
) -> int:
    """Make of each row under one of `names`, or else of all `others`, what `change` says, None for
    nothing, and write the file anew if that changes any; returns how many."""
    with pq.ParquetFile(path) as file:
        found = pc.is_in(file.read(columns=["subject_id"])["subject_id"], value_set=names)
        found = pc.invert(found) if others else found
        if not pc.any(found).as_py():
            return 0
        whole = file.read()
    before = whole.filter(found).to_pylist()
    after = [change(row) for row in before]
    count = sum(int(new != old) for new, old in zip(after, before, strict=True))
    if count:
        changed = pa.Table.from_pylist([row for row in after if row is not None], whole.schema)
        with replacing(path) as draft:
            kept = pa.concat_tables([whole.filter(pc.invert(found)), changed])
            pq.write_table(kept, draft, compression="zstd")
            os.fchmod(draft.fileno(), 0o600)
    return count


def delete_export(export: Export) -> None:
    """Remove the files of an export, and its folder if nothing else is in it."""
    folder = Path(export.folder) / EVENTS_FOLDER
    if folder.is_dir():
        with rewriting(folder):
            parts = [*folder.glob("**/*.parquet"), *folder.glob("**/.*.draft")]
            locks = [folder / LOCK_FILE, folder / REWRITE_FILE]
            for path in (folder / PARTS_FILE, *parts, *locks):  # no reader sees half of it
                path.unlink(missing_ok=True)
    for emptied in (*folder.glob("day=*"), folder, Path(export.folder)):
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()
