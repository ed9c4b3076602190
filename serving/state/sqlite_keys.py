"""Wrapped keys in SQLite: the shop's own, those of subjects, their wrapping anew, and the look at
the files after one was destroyed."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from serving.state.control_store import SubjectKey
from serving.state.secrets import KEY_BYTES, Secrets

SCHEMA = """
CREATE TABLE IF NOT EXISTS service_keys (
    name TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS exports (
    export_id TEXT PRIMARY KEY,
    folder TEXT NOT NULL,
    made_at TEXT NOT NULL,
    wrapped BLOB NOT NULL
) WITHOUT ROWID;
"""
SERVICE_KEYS = ("audit", "receipt", "answers")
_AT_ONCE = 500
_REWRAP_AT_ONCE = 5_000
_SCAN_BYTES = 1 << 24


@dataclass(frozen=True)
class Wrapped:
    """A table of wrapped keys: its columns, and under which name each key is bound."""

    table: str
    id_column: str
    column: str
    name: Callable[[str], bytes]


TABLES = (
    Wrapped("service_keys", "name", "wrapped", lambda one: b"service:" + one.encode()),
    Wrapped("subject_keys", "subject_id", "wrapped", lambda one: one.encode()),
    Wrapped("exports", "export_id", "wrapped", lambda one: b"export:" + one.encode()),
    Wrapped("api_keys", "key_id", "sealed", lambda one: b"api:" + one.encode()),
)


def draw_service_keys(connection: sqlite3.Connection, secrets: Secrets) -> None:
    """Make those of `SERVICE_KEYS` that are missing."""
    for name in SERVICE_KEYS:
        wrapped = secrets.wrap(b"service:" + name.encode(), os.urandom(KEY_BYTES))
        connection.execute("INSERT OR IGNORE INTO service_keys VALUES (?, ?)", (name, wrapped))


def service_key(connection: sqlite3.Connection, secrets: Secrets, name: str) -> bytes:
    """The key called `name`. Raises UnknownMasterKey."""
    (wrapped,) = connection.execute(
        "SELECT wrapped FROM service_keys WHERE name = ?", (name,)
    ).fetchone()
    return secrets.unwrap(b"service:" + name.encode(), wrapped)


def subject_key(
    connection: sqlite3.Connection, secrets: Secrets, column: str, value: str | bytes
) -> SubjectKey | None:
    """The key of one subject, found by `subject_id` or `log_key`."""
    return next(_keys(connection, secrets, column, (value,)), None)


def subject_keys(
    connection: sqlite3.Connection, secrets: Secrets, column: str, wanted: Iterable[Any]
) -> Iterator[SubjectKey]:
    """The keys whose `column` is among `wanted`, many in one query."""
    rest = iter(wanted)
    while some := tuple(islice(rest, _AT_ONCE)):
        yield from _keys(connection, secrets, column, some)


def _keys(
    connection: sqlite3.Connection, secrets: Secrets, column: str, some: tuple[Any, ...]
) -> Iterator[SubjectKey]:
    places = ",".join("?" * len(some))
    rows = connection.execute(
        f"SELECT subject_id, log_key, wrapped FROM subject_keys WHERE {column} IN ({places})", some
    ).fetchall()
    for subject_id, log_key, wrapped in rows:
        yield SubjectKey(subject_id, log_key, secrets.unwrap(subject_id.encode(), wrapped))


def versions(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """How many keys of each table are wrapped under each master key, and how many look-up digests
    were made under it; `pad` counts API secrets in the form of an earlier version."""
    counts: dict[str, dict[str, int]] = {}
    for held in TABLES:
        rows = connection.execute(
            f"SELECT CASE length({held.column}) WHEN 32 THEN 'pad' "
            f"ELSE lower(hex(substr({held.column}, 1, 4))) END, count(*) "
            f"FROM {held.table} GROUP BY 1"
        )
        counts[held.table] = {str(version): int(count) for version, count in rows}
    rows = connection.execute("SELECT key_version, count(*) FROM subjects GROUP BY 1")
    counts["subjects"] = {str(version): int(count) for version, count in rows}
    return counts


def rewrap_some(connection: sqlite3.Connection, secrets: Secrets) -> int:
    """Wrap some keys that are under an older master key under the newest; 0 when none is left."""
    newest, done = bytes.fromhex(secrets.newest), 0
    for held in TABLES:
        rows = connection.execute(
            f"SELECT {held.id_column}, {held.column} FROM {held.table} "
            f"WHERE substr({held.column}, 1, 4) <> ? AND length({held.column}) <> 32 LIMIT ?",
            (newest, _REWRAP_AT_ONCE - done),
        ).fetchall()
        connection.executemany(
            f"UPDATE {held.table} SET {held.column} = ? WHERE {held.id_column} = ?",
            [
                (secrets.wrap(held.name(one), secrets.unwrap(held.name(one), wrapped)), one)
                for one, wrapped in rows
            ],
        )
        done += len(rows)
    return done


def scrub(connection: sqlite3.Connection, path: Path, traces: Sequence[bytes]) -> bool:
    """Make sure that `traces` are in neither the database nor its write-ahead log.

    Deleted cells are overwritten, but a page that was split or balanced may keep a stale copy in
    its gap. So the files are looked at, and written anew as a whole only if something is found.
    """
    for attempt in range(3):
        if attempt:
            connection.execute("VACUUM")
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        files = (path, path.with_name(path.name + "-wal"))
        if not busy and not any(holds_any(file, traces) for file in files):
            return True
    return False


def holds_any(path: Path, traces: Sequence[bytes]) -> bool:
    """Whether one of `traces` stands in the file."""
    if not traces or not path.exists():
        return False
    overlap = max(len(trace) for trace in traces) - 1
    with path.open("rb") as file:
        kept = b""
        while block := file.read(_SCAN_BYTES):
            window = kept + block
            if any(trace in window for trace in traces):
                return True
            kept = window[-overlap:] if overlap else b""
    return False
