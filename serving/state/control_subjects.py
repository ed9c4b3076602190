"""Subjects, links, consent and data keys: plain functions over a connection, each one a
whole step of a transaction that the control store opens."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from contract.clock import Clock
from serving.state import control_audit
from serving.state.audit import GATEWAY, Actor, Entry
from serving.state.control_store import Consent, Identity
from serving.state.secrets import KEY_BYTES, Pseudonym, Pseudonyms, Secrets
from serving.state.sql import Sql

LOG_KEY_BYTES = 16
# Who speaks for a visitor, and their newest word.
_VISITOR = """
SELECT coalesce(l.user_subject, s.subject_id), c.purposes, c.recorded_at, c.source,
    c.wording_version
FROM subjects AS s
LEFT JOIN links AS l ON l.visitor_subject = s.subject_id
LEFT JOIN consents AS c ON c.number = (
    SELECT max(number) FROM consents
    WHERE subject_id = coalesce(l.user_subject, s.subject_id)
)
WHERE s.digest = ?
"""


@dataclass(frozen=True)
class Writing:
    """A transaction under way, and what its steps write with."""

    connection: Sql
    secrets: Secrets
    audit_key: bytes
    clock: Clock

    def changed(self) -> None:
        """Let everybody who reads this store notice."""
        self.connection.execute("UPDATE version SET number = number + 1")

    def audit(
        self, action: str, by: Actor, subject_id: str | None = None, **detail: object
    ) -> None:
        """Write that `by` did `action`, to the subject if there is one."""
        name = None if subject_id is None else audit_name(self.connection, subject_id)
        entry = Entry(action, self.clock.now(), by, name, detail)
        control_audit.append(self.connection, entry, self.audit_key)


def look_up(connection: Sql, visitor: Pseudonyms, user: Pseudonyms | None) -> Identity:
    """Who this is, writing nothing."""
    if user is None:
        return _visitor(connection, visitor)
    visitor_subject, fresh = _subject(connection, visitor)
    linked = _linked_user(connection, visitor_subject) if visitor_subject else None
    user_subject, user_fresh = _subject(connection, user)
    # Before the link is written, a visitor who belongs to nobody else speaks for the user.
    own = visitor_subject if linked is None else None
    consent = _consent_if(connection, user_subject) or _consent_if(connection, own)
    settled = user_subject is not None and linked == user_subject and fresh and user_fresh
    return Identity(user_subject or own, consent, settled, joins_history=own is not None)


def _visitor(connection: Sql, names: Pseudonyms) -> Identity:
    """The usual case in one read: it is done for everybody whose events come."""
    for place, name in enumerate(names):
        row = connection.execute(_VISITOR, (name.digest,)).fetchone()
        if row is not None:
            consent = None if row[1] is None else _consent(row[1:])
            return Identity(row[0], consent, settled=place == 0)
    return Identity(None, None, settled=False)


def establish(
    writing: Writing, visitor: Pseudonyms, user: Pseudonyms | None, consent: Consent | None
) -> Identity:
    """Make what is missing of subjects, link and consent."""
    connection = writing.connection
    visitor_subject = _get_or_create(writing, visitor)
    linked = _linked_user(connection, visitor_subject)
    subject = linked or visitor_subject
    if user is not None:
        subject = _get_or_create(writing, user)
        if linked is None:
            _link(writing, visitor_subject, subject)
        elif linked != subject:
            connection.execute(
                "UPDATE links SET user_subject = ? WHERE visitor_subject = ?",
                (subject, visitor_subject),
            )
            writing.changed()
    held = latest_consent(connection, subject)
    if held is None and consent is not None:
        add_consent(writing, subject, consent, GATEWAY)
        held = consent
    return Identity(subject, held, settled=True)


def current(connection: Sql, subject_id: str) -> str:
    """The subject that speaks for `subject_id` now: the linked user's, or itself."""
    return _linked_user(connection, subject_id) or subject_id


def histories(connection: Sql, subject_id: str) -> tuple[str, ...]:
    """`subject_id` and the visitors that first logged in as it."""
    rows = connection.execute(
        "SELECT visitor_subject FROM links WHERE history_owner = ?", (subject_id,)
    )
    return (subject_id, *(row[0] for row in rows))


def latest_consent(connection: Sql, subject_id: str) -> Consent | None:
    """The newest record of exactly this subject."""
    row = connection.execute(
        "SELECT purposes, recorded_at, source, wording_version FROM consents "
        "WHERE subject_id = ? ORDER BY number DESC LIMIT 1",
        (subject_id,),
    ).fetchone()
    return None if row is None else _consent(row)


def consent_records(connection: Sql, subject_id: str) -> list[Consent]:
    """All records of exactly this subject, oldest first."""
    rows = connection.execute(
        "SELECT purposes, recorded_at, source, wording_version FROM consents "
        "WHERE subject_id = ? ORDER BY number",
        (subject_id,),
    )
    return [_consent(row) for row in rows]


def add_consent(writing: Writing, subject_id: str, consent: Consent, by: Actor) -> None:
    """Append a record; older ones stay as proof."""
    insert_consents(writing, [subject_id], consent)
    # The purposes alone: source and wording are the caller's own words, and stand in the record.
    writing.audit("consent.recorded", by, subject_id, purposes=sorted(consent.purposes))
    writing.changed()


def insert_consents(writing: Writing, subject_ids: Sequence[str], consent: Consent) -> None:
    """The record of each alone, without telling anybody."""
    purposes, at = " ".join(sorted(consent.purposes)), consent.recorded_at.isoformat()
    writing.connection.executemany(
        "INSERT INTO consents (subject_id, purposes, recorded_at, source, wording_version) "
        "VALUES (?, ?, ?, ?, ?)",
        [(one, purposes, at, consent.source, consent.wording_version) for one in subject_ids],
    )


def insert_subjects(writing: Writing, rows: Sequence[tuple[Pseudonym, str]]) -> None:
    """Write the pseudonyms of new or re-keyed subjects."""
    writing.connection.executemany(
        "INSERT INTO subjects VALUES (?, ?, ?)",
        [(name.digest, name.key_version, subject_id) for name, subject_id in rows],
    )


def insert_keys(writing: Writing, subject_ids: Sequence[str]) -> None:
    """Draw the data keys of new subjects, and the random names under which the event log and the
    audit log know them."""
    at, wrap = writing.clock.now().isoformat(), writing.secrets.wrap
    writing.connection.executemany(
        "INSERT INTO subject_keys VALUES (?, ?, ?, ?, ?)",
        [
            (
                one,
                os.urandom(LOG_KEY_BYTES),
                os.urandom(LOG_KEY_BYTES).hex(),
                at,
                wrap(one.encode(), os.urandom(KEY_BYTES)),
            )
            for one in subject_ids
        ],
    )


def audit_name(connection: Sql, subject_id: str) -> str | None:
    """The subject's name in the audit log."""
    row = connection.execute(
        "SELECT audit_name FROM subject_keys WHERE subject_id = ?", (subject_id,)
    ).fetchone()
    return None if row is None else str(row[0])


def linked(connection: Sql, visitor_subject: str) -> tuple[str, str] | None:
    """The user that a visitor is linked to and the one that owns its history."""
    row: tuple[str, str] | None = connection.execute(
        "SELECT user_subject, history_owner FROM links WHERE visitor_subject = ?",
        (visitor_subject,),
    ).fetchone()
    return row


def _consent(row: tuple[str, str, str, str | None]) -> Consent:
    return Consent(frozenset(row[0].split()), datetime.fromisoformat(row[1]), row[2], row[3])


def _link(writing: Writing, visitor_subject: str, user_subject: str) -> None:
    connection = writing.connection
    connection.execute(
        "INSERT INTO links VALUES (?, ?, ?)", (visitor_subject, user_subject, user_subject)
    )
    carried = latest_consent(connection, visitor_subject)
    if carried is not None and latest_consent(connection, user_subject) is None:
        add_consent(writing, user_subject, carried, GATEWAY)
    writing.changed()


def _subject(connection: Sql, names: Pseudonyms) -> tuple[str | None, bool]:
    """The subject behind any of `names`, and whether it is held under the newest key."""
    for place, name in enumerate(names):
        row = connection.execute(
            "SELECT subject_id FROM subjects WHERE digest = ?", (name.digest,)
        ).fetchone()
        if row is not None:
            return row[0], place == 0
    return None, False


def _get_or_create(writing: Writing, names: Pseudonyms) -> str:
    found, fresh = _subject(writing.connection, names)
    newest = names[0]
    if found is None:
        found = str(uuid4())
        insert_subjects(writing, [(newest, found)])
        insert_keys(writing, [found])
    elif not fresh:
        writing.connection.executemany(
            "DELETE FROM subjects WHERE digest = ?", [(name.digest,) for name in names[1:]]
        )
        insert_subjects(writing, [(newest, found)])
    return found


def _linked_user(connection: Sql, visitor_subject: str) -> str | None:
    found = linked(connection, visitor_subject)
    return None if found is None else found[0]


def _consent_if(connection: Sql, subject_id: str | None) -> Consent | None:
    return None if subject_id is None else latest_consent(connection, subject_id)
