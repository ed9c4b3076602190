"""The control store in tables: what does not depend on the database that has them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from contract.catalogue import ItemChange
from contract.clock import Clock, SystemClock
from contract.reviews import Finding, Review, Source, State
from serving.state import (
    catalogue_changes,
    control_audit,
    control_erasure,
    control_keys,
    control_schema,
    documents,
    erasure_records,
    review_items,
)
from serving.state import control_subjects as subjects
from serving.state.audit import GATEWAY, Actor, Entry, Head, Line
from serving.state.catalogue_changes import Patch
from serving.state.control_store import (
    ApiKey,
    Consent,
    Erased,
    Export,
    Identity,
    ReviewMessage,
    StoredAnswer,
    SubjectKey,
    SubjectRecord,
)
from serving.state.control_subjects import Writing
from serving.state.documents import Document, Version
from serving.state.held_keys import HeldKeys
from serving.state.secrets import Pseudonym, Pseudonyms, Secrets
from serving.state.sql import Sql, Step

Result = TypeVar("Result")

_KEY = "SELECT key_id, role, created_at, revoked_at, sealed FROM api_keys"


class SqlControlStore(ABC):
    """A `ControlStore` but for where its tables lie: how to read them, to write them, and to see to
    it that what was erased is gone from the files."""

    def __init__(self, secrets: Secrets, clock: Clock | None) -> None:
        self._secrets = secrets
        self._clock = clock or SystemClock()
        self._audit_key = b""
        self._by_digest, self._by_id = HeldKeys(), HeldKeys()

    @abstractmethod
    def _read(self, step: Callable[[Sql], Result]) -> Result:
        """`step` on what is committed, from any thread. Raises StoreError."""

    @abstractmethod
    def _read_beside(self) -> AbstractContextManager[Sql]:
        """A connection of its own for a long read on another thread. Raises StoreError."""

    @abstractmethod
    def _read_audit(self, step: Callable[[Sql], Result]) -> Result:
        """`step` on the audit log, as of one moment. Raises StoreError."""

    @abstractmethod
    async def _run(self, work: Callable[[Any], Result]) -> Result:
        """`work` as one transaction. Raises StoreError."""

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

    def _writing(self, connection: Sql) -> Writing:
        return Writing(connection, self._secrets, self._audit_key, self._clock)

    async def _write(self, step: Callable[[Writing], Result]) -> Result:
        """`step` as one transaction."""
        return await self._run(lambda connection: step(self._writing(connection)))

    def look_up(self, visitor: Pseudonyms, user: Pseudonyms | None) -> Identity:
        return self._read(lambda connection: subjects.look_up(connection, visitor, user))

    async def establish(
        self, visitor: Pseudonyms, user: Pseudonyms | None, consent: Consent | None
    ) -> Identity:
        return await self._write(
            lambda writing: subjects.establish(writing, visitor, user, consent)
        )

    def exists(self, subject_id: str) -> bool:
        return self._one("SELECT 1 FROM subject_keys WHERE subject_id = ?", subject_id) is not None

    def histories(self, subject_id: str) -> tuple[str, ...]:
        return self._read(lambda connection: subjects.histories(connection, subject_id))

    def consent_of(self, subject_id: str) -> Consent | None:
        return self._read(
            lambda connection: subjects.latest_consent(
                connection, subjects.owner(connection, subject_id)
            )
        )

    def agreed_by(self, subject_ids: Sequence[str]) -> Mapping[str, frozenset[str]]:
        return self._read(lambda connection: subjects.agreed_by(connection, subject_ids))

    async def record_consent(self, subject_id: str, consent: Consent, by: Actor = GATEWAY) -> None:
        def write(writing: Writing) -> None:
            owner = subjects.owner(writing.connection, subject_id)
            if subjects.audit_name(writing.connection, owner) is None:
                return  # erased meanwhile: nothing is to be remembered about them
            others = subjects.audit_names_of_visitors(writing.connection, owner)
            subjects.add_consent(writing, owner, consent, by, others)

        await self._write(write)

    async def restrict(
        self, visitor: Pseudonyms, user: Pseudonyms | None, refused: Consent
    ) -> None:
        await self._write(lambda writing: subjects.restrict(writing, visitor, user, refused))

    async def import_subjects(
        self, rows: Iterable[tuple[Pseudonym, str]], consent: Consent, note: tuple[str, str]
    ) -> int:
        """Add subjects with fixed ids and their consent, and a note of it, all or none."""

        made = list(rows)
        subject_ids = [subject_id for _, subject_id in made]

        def write(writing: Writing) -> int:
            subjects.insert_subjects(writing, made)
            subjects.insert_keys(writing, subject_ids)
            subjects.insert_consents(writing, subject_ids, consent)
            writing.connection.execute("INSERT INTO notes VALUES (?, ?)", note)
            writing.audit("subjects.imported", GATEWAY, count=len(made))
            writing.changed()
            return len(made)

        return await self._write(write)

    def note(self, name: str) -> str | None:
        """A remark that `import_subjects` or `note_run` left."""
        row = self._one("SELECT value FROM notes WHERE name = ?", name)
        return None if row is None else str(row[0])

    def subject_key(self, subject_id: str) -> SubjectKey | None:
        return self._read(
            lambda connection: control_keys.subject_key(
                connection, self._secrets, "subject_id", subject_id
            )
        )

    def subject_key_by_log_key(self, log_key: bytes) -> SubjectKey | None:
        return self._read(
            lambda connection: control_keys.subject_key(
                connection, self._secrets, "log_key", log_key
            )
        )

    def subject_keys(
        self, *, subject_ids: Iterable[str] = (), log_keys: Iterable[bytes] = ()
    ) -> Iterator[SubjectKey]:
        with self._read_beside() as connection:
            found = control_keys.subject_keys
            yield from found(connection, self._secrets, "subject_id", subject_ids)
            yield from found(connection, self._secrets, "log_key", log_keys)

    def service_key(self, name: str) -> bytes:
        return self._read(
            lambda connection: control_keys.service_key(connection, self._secrets, name)
        )

    def key_versions(self) -> dict[str, dict[str, int]]:
        """By table: how many keys hang on which master key."""
        return self._read(control_keys.versions)

    def unseen(self) -> list[str]:
        """Of the people who are found by an older master key alone, the subject that owns their
        history."""
        newest = self._secrets.newest
        return self._read(lambda connection: control_keys.unseen(connection, newest))

    async def drop_older_digests(self) -> None:
        """Forget by which older master keys subjects were found."""
        newest = self._secrets.newest
        await self._run(
            lambda connection: connection.execute(
                "DELETE FROM subjects WHERE key_version <> ?", (newest,)
            )
        )

    async def rewrap(self, by: Actor) -> int:
        """Wrap every key anew that is not under the newest master key, some in a transaction;
        returns how many. Raises UnknownMasterKey: those done before stay done."""
        total = 0
        while done := await self._write(
            lambda writing: control_keys.rewrap_some(writing.connection, self._secrets)
        ):
            total += done
        newest = self._secrets.newest
        await self._write(
            lambda writing: writing.audit("keys.rewrapped", by, count=total, master=newest)
        )
        return total

    def person_of(self, subject_id: str) -> tuple[str, ...]:
        return self._read(lambda connection: control_erasure.person_of(connection, subject_id))

    def record_of(self, subject_id: str) -> SubjectRecord | None:
        row = self._one(
            "SELECT made_at, audit_name FROM subject_keys WHERE subject_id = ?", subject_id
        )
        if row is None:
            return None
        made_at, name = row
        user, owner = self._read(lambda found: subjects.linked(found, subject_id)) or (None, None)
        consents = self._read(lambda found: subjects.consent_records(found, subject_id))
        lines = self._read_audit(lambda found: control_audit.lines_about(found, name))
        made = datetime.fromisoformat(made_at)
        return SubjectRecord(subject_id, name, made, tuple(consents), user, owner, tuple(lines))

    def subject_ids(self) -> list[str]:
        rows = self._read(
            lambda connection: connection.execute("SELECT subject_id FROM subject_keys").fetchall()
        )
        return [row[0] for row in rows]

    def audit_names(self) -> dict[str, str]:
        """The subjects by their names in the audit log."""
        rows = self._read(
            lambda connection: connection.execute(
                "SELECT audit_name, subject_id FROM subject_keys"
            ).fetchall()
        )
        return dict(rows)

    def subjects_without_consent_since(self, before: datetime) -> list[str]:
        rows = self._read(
            lambda connection: connection.execute(
                "SELECT subject_id FROM subject_keys AS k WHERE made_at < ? AND NOT EXISTS "
                "(SELECT 1 FROM consents AS c WHERE c.subject_id = k.subject_id "
                "AND c.recorded_at >= ?)",
                (before.isoformat(), before.isoformat()),
            ).fetchall()
        )
        return [row[0] for row in rows]

    async def erase(self, subject_id: str, by: Actor) -> Erased | None:
        def write(writing: Writing) -> Erased | None:
            if subjects.audit_name(writing.connection, subject_id) is None:
                return None
            return control_erasure.erase(writing, subject_id, by)

        return await self._write(write)

    def erasures(self) -> int:
        row = self._one("SELECT number FROM erasure_count")
        return 0 if row is None else int(row[0])

    def unfinished_erasures(self) -> tuple[bytes, ...]:
        rows = self._read(
            lambda connection: connection.execute("SELECT log_key FROM erasures").fetchall()
        )
        return tuple(row[0] for row in rows)

    async def finish_erasures(self, log_keys: Sequence[bytes]) -> None:
        await self._run(
            lambda connection: connection.executemany(
                "DELETE FROM erasures WHERE log_key = ?", [(one,) for one in log_keys]
            )
        )

    def erasures_kept(self) -> list[Erased]:
        return self._read(lambda connection: erasure_records.held(connection, self._secrets))

    async def note_erasure(self, erased: Erased) -> None:
        at = self._clock.now().isoformat()
        await self._run(
            lambda connection: erasure_records.change(connection, self._secrets, erased, at)
        )

    async def drop_erasure(self, erasure_id: str) -> None:
        await self._run(lambda connection: erasure_records.drop(connection, erasure_id))

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

    def exports(self) -> list[Export]:
        rows = self._read(
            lambda connection: connection.execute(
                "SELECT export_id, folder, made_at, wrapped FROM exports ORDER BY made_at"
            ).fetchall()
        )
        unwrap = self._secrets.unwrap
        return [
            Export(one, folder, datetime.fromisoformat(at), unwrap(b"export:" + one.encode(), key))
            for one, folder, at, key in rows
        ]

    async def add_export(self, export: Export) -> None:
        wrapped = self._secrets.wrap(b"export:" + export.export_id.encode(), export.key)
        row = (export.export_id, export.folder, export.made_at.isoformat(), wrapped)
        await self._run(
            lambda connection: connection.execute("INSERT INTO exports VALUES (?, ?, ?, ?)", row)
        )

    async def drop_export(self, export_id: str) -> None:
        await self._run(
            lambda connection: connection.execute(
                "DELETE FROM exports WHERE export_id = ?", (export_id,)
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

    async def add_key(self, key: ApiKey, digest: str, by: Actor = GATEWAY) -> None:
        def write(writing: Writing) -> None:
            writing.connection.execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?, NULL, ?)",
                (key.key_id, digest, key.role, key.created_at.isoformat(), key.sealed),
            )
            writing.audit("key.created", by, key_id=key.key_id, role=key.role)
            writing.changed()

        await self._write(write)

    def key_by_digest(self, digest: str) -> ApiKey | None:
        query = f"{_KEY} WHERE digest = ? AND revoked_at IS NULL"
        return self._by_digest.of(digest, lambda digest: _key(self._one(query, digest)))

    def key_by_id(self, key_id: str) -> ApiKey | None:
        query = f"{_KEY} WHERE key_id = ? AND revoked_at IS NULL"
        return self._by_id.of(key_id, lambda key_id: _key(self._one(query, key_id)))

    def list_keys(self) -> list[ApiKey]:
        rows = self._read(
            lambda connection: connection.execute(f"{_KEY} ORDER BY created_at, key_id").fetchall()
        )
        return [key for row in rows if (key := _key(row)) is not None]

    async def revoke_key(self, key_id: str, at: datetime, by: Actor = GATEWAY) -> bool:
        def write(writing: Writing) -> bool:
            cursor = writing.connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL",
                (at.isoformat(), key_id),
            )
            if cursor.rowcount:
                writing.audit("key.revoked", by, key_id=key_id)
                writing.changed()
            return bool(cursor.rowcount)

        revoked = await self._write(write)
        self._by_digest.clear()
        self._by_id.clear()
        return revoked

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

    def reviews(self, state: State | None = None, limit: int = 100) -> list[Review]:
        return self._read(lambda connection: review_items.listed(connection, state, limit))

    def review(self, review_id: str) -> Review | None:
        return self._read(lambda connection: review_items.read(connection, review_id))

    async def note_findings(
        self,
        source: Source,
        findings: Sequence[Finding],
        *,
        complete: bool = True,
        by: Actor = GATEWAY,
    ) -> list[Review]:
        return await self._write(
            lambda writing: review_items.note_findings(writing, source, findings, complete, by)
        )

    async def move_review(
        self,
        review_id: str,
        to: Literal["acknowledged", "closed"],
        by: Actor,
        *,
        who: str = "",
        note: str = "",
    ) -> Review | None:
        return await self._write(
            lambda writing: review_items.move(writing, review_id, to, by, who, note)
        )

    def review_messages_due(self) -> bool:
        now = self._clock.now()
        return self._read(lambda connection: review_items.due(connection, now))

    async def take_review_message(self) -> ReviewMessage | None:
        return await self._write(
            lambda writing: review_items.take(writing.connection, writing.clock.now())
        )

    async def settle_review_message(
        self, message: ReviewMessage, problem: str | None = None, wait_s: float = 0.0
    ) -> bool:
        return await self._write(
            lambda writing: review_items.settle(
                writing.connection, message, writing.clock.now(), problem, wait_s
            )
        )

    def version(self) -> int:
        row = self._one("SELECT number FROM version")
        return 0 if row is None else int(row[0])

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._read(
            lambda connection: connection.execute(query, values).fetchone()
        )
        return row


def _key(row: tuple[Any, ...] | None) -> ApiKey | None:
    if row is None:
        return None
    revoked = None if row[3] is None else datetime.fromisoformat(row[3])
    return ApiKey(row[0], row[1], datetime.fromisoformat(row[2]), revoked, row[4])
