"""Subjects, links and consent in SQLite: plain functions over a connection, each one a whole step
of a transaction that the control store opens."""

import sqlite3
from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

from serving.state.control_store import Consent, Identity
from serving.state.secrets import Pseudonyms

SCHEMA = """
CREATE TABLE IF NOT EXISTS subjects (
    digest TEXT PRIMARY KEY,
    key_version TEXT NOT NULL,
    subject_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subjects_by_id ON subjects (subject_id);
CREATE TABLE IF NOT EXISTS links (
    visitor_subject TEXT PRIMARY KEY,
    user_subject TEXT NOT NULL,
    history_owner TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_owner ON links (history_owner);
CREATE TABLE IF NOT EXISTS consents (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_id TEXT NOT NULL,
    purposes TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    source TEXT NOT NULL,
    wording_version TEXT
);
CREATE INDEX IF NOT EXISTS consents_by_subject ON consents (subject_id, number);
"""

Changed = Callable[[sqlite3.Connection], None]  # called with every change others must notice


def look_up(
    connection: sqlite3.Connection, visitor: Pseudonyms, user: Pseudonyms | None
) -> Identity:
    """Who this is, writing nothing."""
    visitor_subject, fresh = _subject(connection, visitor)
    linked = _linked_user(connection, visitor_subject) if visitor_subject else None
    if user is None:
        subject = linked or visitor_subject
        return Identity(subject, _consent_if(connection, subject), subject is not None and fresh)
    user_subject, user_fresh = _subject(connection, user)
    # Before the link is written, a visitor who belongs to nobody else speaks for the user.
    own = visitor_subject if linked is None else None
    consent = _consent_if(connection, user_subject) or _consent_if(connection, own)
    settled = user_subject is not None and linked == user_subject and fresh and user_fresh
    return Identity(user_subject or own, consent, settled, joins_history=own is not None)


def establish(
    connection: sqlite3.Connection,
    visitor: Pseudonyms,
    user: Pseudonyms | None,
    consent: Consent | None,
    changed: Changed,
) -> Identity:
    """Make what is missing of subjects, link and consent."""
    visitor_subject = _get_or_create(connection, visitor)
    linked = _linked_user(connection, visitor_subject)
    subject = linked or visitor_subject
    if user is not None:
        subject = _get_or_create(connection, user)
        if linked is None:
            _link(connection, visitor_subject, subject, changed)
        elif linked != subject:
            connection.execute(
                "UPDATE links SET user_subject = ? WHERE visitor_subject = ?",
                (subject, visitor_subject),
            )
            changed(connection)
    held = latest_consent(connection, subject)
    if held is None and consent is not None:
        add_consent(connection, subject, consent, changed)
        held = consent
    return Identity(subject, held, settled=True)


def current(connection: sqlite3.Connection, subject_id: str) -> str:
    """The subject that speaks for `subject_id` now: the linked user's, or itself."""
    return _linked_user(connection, subject_id) or subject_id


def histories(connection: sqlite3.Connection, subject_id: str) -> tuple[str, ...]:
    """`subject_id` and the visitors that first logged in as it."""
    rows = connection.execute(
        "SELECT visitor_subject FROM links WHERE history_owner = ?", (subject_id,)
    )
    return (subject_id, *(row[0] for row in rows))


def latest_consent(connection: sqlite3.Connection, subject_id: str) -> Consent | None:
    """The newest record of exactly this subject."""
    row = connection.execute(
        "SELECT purposes, recorded_at, source, wording_version FROM consents "
        "WHERE subject_id = ? ORDER BY number DESC LIMIT 1",
        (subject_id,),
    ).fetchone()
    if row is None:
        return None
    return Consent(frozenset(row[0].split()), datetime.fromisoformat(row[1]), row[2], row[3])


def add_consent(
    connection: sqlite3.Connection, subject_id: str, consent: Consent, changed: Changed
) -> None:
    """Append a record; older ones stay as proof."""
    connection.execute(
        "INSERT INTO consents (subject_id, purposes, recorded_at, source, wording_version) "
        "VALUES (?, ?, ?, ?, ?)",
        (
            subject_id,
            " ".join(sorted(consent.purposes)),
            consent.recorded_at.isoformat(),
            consent.source,
            consent.wording_version,
        ),
    )
    changed(connection)


def _link(
    connection: sqlite3.Connection, visitor_subject: str, user_subject: str, changed: Changed
) -> None:
    connection.execute(
        "INSERT INTO links VALUES (?, ?, ?)", (visitor_subject, user_subject, user_subject)
    )
    carried = latest_consent(connection, visitor_subject)
    if carried is not None and latest_consent(connection, user_subject) is None:
        add_consent(connection, user_subject, carried, changed)
    changed(connection)


def _subject(connection: sqlite3.Connection, names: Pseudonyms) -> tuple[str | None, bool]:
    """The subject behind any of `names`, and whether it is held under the newest key."""
    for place, name in enumerate(names):
        row = connection.execute(
            "SELECT subject_id FROM subjects WHERE digest = ?", (name.digest,)
        ).fetchone()
        if row is not None:
            return row[0], place == 0
    return None, False


def _get_or_create(connection: sqlite3.Connection, names: Pseudonyms) -> str:
    found, fresh = _subject(connection, names)
    newest = names[0]
    if found is None:
        found = str(uuid4())
        insert_subject(connection, newest.digest, newest.key_version, found)
    elif not fresh:
        connection.executemany(
            "DELETE FROM subjects WHERE digest = ?", [(name.digest,) for name in names[1:]]
        )
        insert_subject(connection, newest.digest, newest.key_version, found)
    return found


def insert_subject(
    connection: sqlite3.Connection, digest: str, key_version: str, subject_id: str
) -> None:
    """Write the pseudonym of a new or re-keyed subject."""
    connection.execute("INSERT INTO subjects VALUES (?, ?, ?)", (digest, key_version, subject_id))


def _linked_user(connection: sqlite3.Connection, visitor_subject: str) -> str | None:
    row = connection.execute(
        "SELECT user_subject FROM links WHERE visitor_subject = ?", (visitor_subject,)
    ).fetchone()
    return None if row is None else str(row[0])


def _consent_if(connection: sqlite3.Connection, subject_id: str | None) -> Consent | None:
    return None if subject_id is None else latest_consent(connection, subject_id)
