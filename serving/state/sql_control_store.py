"""The control store in tables: what does not depend on the database that has them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from contract.catalogue import ItemChange
from serving.state import (
    catalogue_changes,
    control_audit,
    control_keys,
    control_schema,
    documents,
    erasure_records,
    review_items,
)
from serving.state.audit import GATEWAY, Actor, Entry, Head, Line
from serving.state.catalogue_changes import Patch
from serving.state.control_records import StoredAnswer
from serving.state.control_subjects import Writing
from serving.state.documents import Document, Version
from serving.state.sql import Sql, Step
from serving.state.sql_control_erasures import SqlErasures
from serving.state.sql_control_keys import SqlKeys
from serving.state.sql_control_reviews import SqlReviews
from serving.state.sql_control_subjects import SqlSubjects


class SqlControlStore(SqlSubjects, SqlKeys, SqlErasures, SqlReviews):
    """A `ControlStore` but for where its tables lie: how to read them, to write them, and to see to
    it that what was erased is gone from the files."""

    @property
    def opened(self) -> bool:
        return True

    @abstractmethod
    def see_all(self) -> None:
        """As of any control store."""

    @abstractmethod
    async def scrub(self, traces: Sequence[bytes]) -> bool:
        """As of any control store."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write all of it, as of one moment, as a new SQLite file that may be opened as a store.
        Raises StoreError."""

    @abstractmethod
    def close(self) -> None:
        """As of any control store."""

    def _prepare(self, connection: Sql, migrate: Callable[[Sequence[Step]], object]) -> None:
        """Take the steps that are missing, with `migrate`, and draw the shop's own keys."""
        migrate(control_schema.steps(self._writing(connection)))
        control_keys.draw_service_keys(connection, self._secrets)

    def note(self, name: str) -> str | None:
        """A remark that `import_subjects` or `note_run` left."""
        row = self._one("SELECT value FROM notes WHERE name = ?", name)
        return None if row is None else str(row[0])

    async def audit(self, entry: Entry) -> Line:
        return await self._write(
            lambda writing: control_audit.append(writing.connection, entry, writing.audit_key)
        )

    def audit_log(self) -> tuple[list[Line], Head | None]:
        return self._read_audit(
            lambda connection: (
                list(control_audit.lines(connection)),
                control_audit.head(connection),
            )
        )

    async def let_go(self, audit_before: datetime, answers_before: datetime) -> tuple[int, int]:
        def write(writing: Writing) -> tuple[int, int]:
            connection, key = writing.connection, writing.audit_key
            lines = control_audit.let_go(connection, audit_before.isoformat(), key)
            erasure_records.let_go(connection, answers_before.isoformat())
            review_items.let_go(connection, audit_before.isoformat())
            answers = connection.execute(
                "DELETE FROM answers WHERE given_at < ?", (answers_before.isoformat(),)
            )
            return lines, answers.rowcount

        return await self._write(write)

    def last_run(self, job: str) -> datetime | None:
        said = self.note(f"{job}.ran_at")
        return None if said is None else datetime.fromisoformat(said)

    async def note_run(self, job: str, at: datetime) -> None:
        await self._run(
            lambda connection: connection.execute(
                "INSERT INTO notes VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (f"{job}.ran_at", at.isoformat()),
            )
        )

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
        def write(connection: Sql) -> None:
            connection.execute("DELETE FROM answers WHERE given_at < ?", (expired.isoformat(),))
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (scope, answer.body_digest, answer.status, answer.answer, at.isoformat()),
            )

        await self._run(write)

    async def change_items(self, patches: Sequence[tuple[str, Patch]], by: Actor = GATEWAY) -> int:
        def write(writing: Writing) -> int:
            number = catalogue_changes.patch(writing.connection, patches)
            writing.audit("catalogue.changed", by, number=number, items=len(patches))
            writing.changed()
            return number

        return await self._write(write)

    def items_changed_since(self, number: int) -> list[tuple[str, ItemChange, int]]:
        return self._read(lambda connection: catalogue_changes.since(connection, number))

    async def put_document(
        self, name: str, body: str, expected: int | None, by: Actor, note: str = ""
    ) -> Version:
        def write(writing: Writing) -> Version:
            head = Version(0, by, self._clock.now(), note)
            written = documents.put(writing.connection, name, body, head, expected)
            writing.audit("document.written", by, name=name, version=written.version, note=note)
            writing.changed()
            return written

        return await self._write(write)

    def document(self, name: str, version: int | None = None) -> Document | None:
        return self._read(lambda connection: documents.read(connection, name, version))

    def document_history(
        self, name: str, before: int | None = None, limit: int = 50
    ) -> list[Version]:
        return self._read(lambda connection: documents.history(connection, name, before, limit))

    def document_versions(self) -> Mapping[str, int]:
        return self._read(documents.versions)

    def version(self) -> int:
        row = self._one("SELECT number FROM version")
        return 0 if row is None else int(row[0])
