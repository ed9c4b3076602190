"""Who is who and what they agreed to, in tables."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from serving.state import control_audit, control_erasure
from serving.state import control_subjects as subjects
from serving.state.audit import GATEWAY, Actor
from serving.state.control_records import Consent, Identity, SubjectRecord
from serving.state.control_subjects import Writing
from serving.state.secrets import Pseudonym, Pseudonyms
from serving.state.sql_control_tables import ControlTables


class SqlSubjects(ControlTables):
    """Subjects, links and consent of a `ControlStore`."""

    def look_up(self, visitor: Pseudonyms, user: Pseudonyms | None) -> Identity:
        (found,) = self.look_up_all([(visitor, user)])
        return found

    def look_up_all(self, who: Sequence[subjects.Named]) -> list[Identity]:
        return self._read(lambda connection: subjects.look_up(connection, who))

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
