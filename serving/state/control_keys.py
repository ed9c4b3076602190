"""Wrapped keys in the control store: the shop's own, those of subjects, and their wrapping anew."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from serving.state.control_records import SubjectKey
from serving.state.secrets import KEY_BYTES, Secrets
from serving.state.sql import Sql

SERVICE_KEYS = ("audit", "receipt", "answers", "coupons")
# In one statement, as each hands the interpreter to other threads and has to win it back.
_WITH_HISTORIES = """
SELECT subject_id, log_key, wrapped FROM subject_keys WHERE subject_id = ?
UNION ALL SELECT subject_id, log_key, wrapped FROM links
    JOIN subject_keys ON subject_id = visitor_subject WHERE history_owner = ?
"""
_AT_ONCE = 500
_REWRAP_AT_ONCE = 5_000


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
    Wrapped("erasure_records", "erasure_id", "wrapped", lambda one: b"erasure:" + one.encode()),
    Wrapped("api_keys", "key_id", "sealed", lambda one: b"api:" + one.encode()),
)


def draw_service_keys(connection: Sql, secrets: Secrets) -> None:
    """Make those of `SERVICE_KEYS` that are missing. Raises UnknownMasterKey where others are held
    that were made under a master key which is not; to be undone then with all before it."""
    for name in SERVICE_KEYS:
        wrapped = secrets.wrap(b"service:" + name.encode(), os.urandom(KEY_BYTES))
        connection.execute(
            "INSERT INTO service_keys VALUES (?, ?) ON CONFLICT DO NOTHING", (name, wrapped)
        )
    for name in SERVICE_KEYS:
        service_key(connection, secrets, name)


def service_key(connection: Sql, secrets: Secrets, name: str) -> bytes:
    """The key called `name`. Raises UnknownMasterKey."""
    (wrapped,) = connection.execute(
        "SELECT wrapped FROM service_keys WHERE name = ?", (name,)
    ).fetchone()
    return secrets.unwrap(b"service:" + name.encode(), wrapped)


def subject_key(
    connection: Sql, secrets: Secrets, column: str, value: str | bytes
) -> SubjectKey | None:
    """The key of one subject, found by `subject_id` or `log_key`."""
    return next(_keys(connection, secrets, column, (value,)), None)


def keys_with_histories(connection: Sql, secrets: Secrets, subject_id: str) -> list[SubjectKey]:
    """The keys that are there of a subject, the own one first, and of its histories."""
    rows = connection.execute(_WITH_HISTORIES, (subject_id, subject_id)).fetchall()
    found = [_opened(secrets, row) for row in rows]
    return sorted(found, key=lambda one: one.subject_id != subject_id)


def subject_keys(
    connection: Sql, secrets: Secrets, column: str, wanted: Iterable[Any]
) -> Iterator[SubjectKey]:
    """The keys whose `column` is among `wanted`, many in one query."""
    rest = iter(wanted)
    while some := tuple(islice(rest, _AT_ONCE)):
        yield from _keys(connection, secrets, column, some)


def _keys(
    connection: Sql, secrets: Secrets, column: str, some: tuple[Any, ...]
) -> Iterator[SubjectKey]:
    places = ",".join("?" * len(some))
    rows = connection.execute(
        f"SELECT subject_id, log_key, wrapped FROM subject_keys WHERE {column} IN ({places})", some
    ).fetchall()
    yield from (_opened(secrets, row) for row in rows)


def _opened(secrets: Secrets, row: tuple[str, bytes, bytes]) -> SubjectKey:
    subject_id, log_key, wrapped = row
    return SubjectKey(subject_id, log_key, secrets.unwrap(subject_id.encode(), wrapped))


def versions(connection: Sql) -> dict[str, dict[str, int]]:
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


def unseen(connection: Sql, newest: str) -> list[str]:
    """Of the people of whom nothing was seen since the newest master key came, the subject that
    owns their history: without the older keys nobody finds them any more."""
    rows = connection.execute(
        "SELECT coalesce(l.history_owner, s.subject_id), s.key_version FROM subjects AS s "
        "LEFT JOIN links AS l ON l.visitor_subject = s.subject_id"
    ).fetchall()
    seen = {owner for owner, version in rows if version == newest}
    return sorted({owner for owner, _ in rows} - seen)


def rewrap_some(connection: Sql, secrets: Secrets) -> int:
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
