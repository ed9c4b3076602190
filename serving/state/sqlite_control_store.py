"""The control store in one SQLite file. Any number of processes may share it: a read always sees
the latest commit of all of them."""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from contract.catalogue import ItemChange
from serving.state import catalogue_changes
from serving.state import sqlite_subjects as subjects
from serving.state.catalogue_changes import Patch
from serving.state.control_store import ApiKey, Consent, Identity, StoredAnswer
from serving.state.secrets import Pseudonym, Pseudonyms
from serving.state.sqlite_writer import GroupCommitWriter, StoreError, connect

_SCHEMA = (
    subjects.SCHEMA
    + catalogue_changes.SCHEMA
    + """
CREATE TABLE IF NOT EXISTS api_keys (
    key_id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    created_at TEXT NOT NULL,
    revoked_at TEXT,
    sealed BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    scope TEXT PRIMARY KEY,
    body_digest TEXT NOT NULL,
    status INTEGER NOT NULL,
    answer BLOB NOT NULL,
    given_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (given_at);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (only INTEGER PRIMARY KEY CHECK (only = 1), number INTEGER);
INSERT OR IGNORE INTO version VALUES (1, 0);
"""
)
# A checkout waits for a read no longer than this, even while the file is being checkpointed.
_READ_WAIT_SECONDS = 0.01
_KEY = "SELECT key_id, role, created_at, revoked_at, sealed FROM api_keys"


def _changed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE version SET number = number + 1")


class SqliteControlStore:
    """A `ControlStore`; read and close it from one thread, write from any."""

    def __init__(self, path: Path) -> None:
        self._writer = GroupCommitWriter(path, _SCHEMA)
        self._reader = connect(path, read_only=True, busy_seconds=_READ_WAIT_SECONDS)

    def look_up(self, visitor: Pseudonyms, user: Pseudonyms | None) -> Identity:
        try:
            return subjects.look_up(self._reader, visitor, user)
        except sqlite3.Error as error:
            raise StoreError(f"the control store could not be read: {error}") from error

    async def establish(
        self, visitor: Pseudonyms, user: Pseudonyms | None, consent: Consent | None
    ) -> Identity:
        return await self._writer.run(
            lambda connection: subjects.establish(connection, visitor, user, consent, _changed)
        )

    def exists(self, subject_id: str) -> bool:
        return self._one("SELECT 1 FROM subjects WHERE subject_id = ?", subject_id) is not None

    def histories(self, subject_id: str) -> tuple[str, ...]:
        try:
            return subjects.histories(self._reader, subject_id)
        except sqlite3.Error as error:
            raise StoreError(f"the control store could not be read: {error}") from error

    def consent_of(self, subject_id: str) -> Consent | None:
        try:
            speaker = subjects.current(self._reader, subject_id)
            return subjects.latest_consent(self._reader, speaker)
        except sqlite3.Error as error:
            raise StoreError(f"the control store could not be read: {error}") from error

    async def record_consent(self, subject_id: str, consent: Consent) -> None:
        def write(connection: sqlite3.Connection) -> None:
            speaker = subjects.current(connection, subject_id)
            subjects.add_consent(connection, speaker, consent, _changed)

        await self._writer.run(write)

    async def import_subjects(
        self, rows: Iterable[tuple[Pseudonym, str]], consent: Consent, note: tuple[str, str]
    ) -> int:
        """Add subjects with fixed ids and their consent, and a note of it, all or none."""

        def write(connection: sqlite3.Connection) -> int:
            count = 0
            for name, subject_id in rows:
                subjects.insert_subject(connection, name.digest, name.key_version, subject_id)
                subjects.add_consent(connection, subject_id, consent, lambda _: None)
                count += 1
            connection.execute("INSERT INTO notes VALUES (?, ?)", note)
            _changed(connection)
            return count

        return await self._writer.run(write)

    def note(self, name: str) -> str | None:
        """A remark that `import_subjects` left."""
        row = self._one("SELECT value FROM notes WHERE name = ?", name)
        return None if row is None else str(row[0])

    async def add_key(self, key: ApiKey, digest: str) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?, NULL, ?)",
                (key.key_id, digest, key.role, key.created_at.isoformat(), key.sealed),
            )
            _changed(connection)

        await self._writer.run(write)

    def key_by_digest(self, digest: str) -> ApiKey | None:
        return _key(self._one(f"{_KEY} WHERE digest = ? AND revoked_at IS NULL", digest))

    def key_by_id(self, key_id: str) -> ApiKey | None:
        return _key(self._one(f"{_KEY} WHERE key_id = ? AND revoked_at IS NULL", key_id))

    def list_keys(self) -> list[ApiKey]:
        rows = self._reader.execute(f"{_KEY} ORDER BY created_at, key_id").fetchall()
        return [key for row in rows if (key := _key(row)) is not None]

    async def revoke_key(self, key_id: str, at: datetime) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            cursor = connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL",
                (at.isoformat(), key_id),
            )
            _changed(connection)
            return cursor.rowcount > 0

        return await self._writer.run(write)

    def answered(self, scope: str, since: datetime) -> StoredAnswer | None:
        row = self._one(
            "SELECT body_digest, status, answer FROM answers WHERE scope = ? AND given_at >= ?",
            scope,
            since.isoformat(),
        )
        return None if row is None else StoredAnswer(row[0], row[1], row[2])

    async def remember_answer(
        self, scope: str, answer: StoredAnswer, at: datetime, expired: datetime
    ) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM answers WHERE given_at < ?", (expired.isoformat(),))
            connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)",
                (scope, answer.body_digest, answer.status, answer.answer, at.isoformat()),
            )

        await self._writer.run(write)

    async def change_items(self, patches: Sequence[tuple[str, Patch]]) -> int:
        def write(connection: sqlite3.Connection) -> int:
            number = catalogue_changes.patch(connection, patches)
            _changed(connection)
            return number

        return await self._writer.run(write)

    def items_changed_since(self, number: int) -> list[tuple[str, ItemChange, int]]:
        try:
            return catalogue_changes.since(self._reader, number)
        except sqlite3.Error as error:
            raise StoreError(f"the control store could not be read: {error}") from error

    def version(self) -> int:
        row = self._one("SELECT number FROM version")
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._reader.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"the control store could not be read: {error}") from error
        return row


def _key(row: tuple[Any, ...] | None) -> ApiKey | None:
    if row is None:
        return None
    revoked = None if row[3] is None else datetime.fromisoformat(row[3])
    return ApiKey(row[0], row[1], datetime.fromisoformat(row[2]), revoked, row[4])
