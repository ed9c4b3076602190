"""Subjects, links, consent and data keys: plain functions over a connection, each one a
whole step of a transaction that the control store opens."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import uuid4

from contract.clock import Clock
from serving.state import control_audit
from serving.state.audit import GATEWAY, Actor, Entry
from serving.state.control_records import Consent, Identity
from serving.state.secrets import KEY_BYTES, Pseudonym, Pseudonyms, Secrets
from serving.state.sql import Sql

LOG_KEY_BYTES = 16
_AT_ONCE = 500
# When a word was said, and the number of its record for two of one moment. Not the number alone: a
# word that was carried over has the time at which it was said, and a number of later.
_Said = tuple[datetime, int]
_NEVER: _Said = (datetime.min.replace(tzinfo=UTC), 0)


Named = tuple[Pseudonyms, Pseudonyms | None]  # a visitor, and the user who is logged in


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


# Of each pseudonym its subject, the user that it is linked to, the latest consent of whichever
# speaks for it, and the visitors whose history belongs to that one. One statement, because each
# hands the interpreter to other threads and has to win it back. Reads are always SQLite's.
_KNOWN = """
WITH named AS (
    SELECT s.digest, s.subject_id, l.user_subject, coalesce(l.user_subject, s.subject_id) AS speaker
    FROM subjects AS s LEFT JOIN links AS l ON l.visitor_subject = s.subject_id
    WHERE s.digest IN ({})
)
SELECT n.digest, n.subject_id, n.user_subject,
    (SELECT group_concat(visitor_subject, ' ') FROM links WHERE history_owner = n.speaker),
    c.number, c.purposes, c.recorded_at, c.source, c.wording_version
FROM named AS n LEFT JOIN consents AS c
    ON c.number = (SELECT max(number) FROM consents WHERE subject_id = n.speaker)
"""


@cache  # the same text each time is found by its hash, which is known
def _known_query(number: int) -> str:
    return _KNOWN.format(",".join("?" * number))


@dataclass(frozen=True)
class _Known:
    """What is held of one raw id; `fresh`: under the newest key."""

    subject_id: str
    linked: str | None
    consent: Consent | None
    said: _Said  # when that was, to tell which of two is newer
    histories: tuple[str, ...]
    fresh: bool


def look_up(connection: Sql, who: Sequence[Named]) -> list[Identity]:
    """Who they are, writing nothing."""
    names = (name for visitor, user in who for name in (*visitor, *(user or ())))
    digests = list(dict.fromkeys(name.digest for name in names))
    rows: dict[str, tuple[Any, ...]] = {}
    for start in range(0, len(digests), _AT_ONCE):
        some = digests[start : start + _AT_ONCE]
        # Of a few lengths, so that the statement is found again.
        places = 1 << (len(some) - 1).bit_length()
        some += some[-1:] * (places - len(some))
        asked = connection.execute(_known_query(places), some)
        rows |= {row[0]: row for row in asked.fetchall()}
    return [_named(rows, visitor, user) for visitor, user in who]


def _named(
    rows: dict[str, tuple[Any, ...]], visitor: Pseudonyms, user: Pseudonyms | None
) -> Identity:
    seen = _known(rows, visitor)
    if user is None:
        return _identity(seen, seen is not None and seen.fresh)
    known = _known(rows, user)
    # Before the link is written, a visitor who belongs to nobody else speaks for the user.
    own = seen if seen is not None and seen.linked is None else None
    linked = known is not None and seen is not None and seen.linked == known.subject_id
    settled = linked and known is not None and known.fresh and seen is not None and seen.fresh
    found = _identity(known or own, settled, joins_history=own is not None)
    if known is not None and own is not None and own.consent is not None:
        newest = own if own.said > known.said else known  # as the link will have it
        agreed = found.agreed | own.consent.purposes
        return replace(found, consent=newest.consent, agreed=agreed)
    return found


def _known(rows: dict[str, tuple[Any, ...]], names: Pseudonyms) -> _Known | None:
    """What `rows` of `_KNOWN` say of the first of `names` that is held."""
    for place, name in enumerate(names):
        row = rows.get(name.digest)
        if row is not None:
            _, subject_id, linked, visitors, number, *said = row
            histories = (linked or subject_id, *(visitors.split() if visitors else ()))
            consent = None if number is None else _consent(said)
            when = _NEVER if consent is None else (consent.recorded_at, int(number))
            return _Known(subject_id, linked, consent, when, histories, place == 0)
    return None


def _identity(found: _Known | None, settled: bool, *, joins_history: bool = False) -> Identity:
    if found is None:
        return Identity(None, None, settled, joins_history)
    speaker, consent = found.histories[0], found.consent
    held = found.histories
    return Identity(speaker, consent, settled, joins_history, held, _agreed(consent))


def _agreed(consent: Consent | None) -> frozenset[str]:
    return frozenset() if consent is None else consent.purposes


def establish(
    writing: Writing, visitor: Pseudonyms, user: Pseudonyms | None, consent: Consent | None
) -> Identity:
    """Make what is missing of subjects, link and consent."""
    connection = writing.connection
    # Of who is new there is nothing to be asked: every question is a round trip.
    visitor_subject, new = _get_or_create(writing, visitor)
    linked = None if new else _linked_user(connection, visitor_subject)
    subject = linked or visitor_subject
    if user is not None:
        subject, _ = _get_or_create(writing, user)
        if linked is None:
            _link(writing, visitor_subject, subject)
        elif linked != subject:
            connection.execute(
                "UPDATE links SET user_subject = ? WHERE visitor_subject = ?",
                (subject, visitor_subject),
            )
            writing.changed()
    held = None if new and user is None else latest_consent(connection, subject)
    if held is None and consent is not None:
        add_consent(writing, subject, consent, GATEWAY)
        held = consent
    return Identity(subject, held, settled=True, agreed=_agreed(held))


def restrict(
    writing: Writing, visitor: Pseudonyms, user: Pseudonyms | None, refused: Consent
) -> None:
    """Take the purposes of `refused` from what these ids have agreed to, with a record of it. A
    visitor who belongs to nobody yet has said so too; nobody is made known for it. The newest word
    stays the newest, and holds for what is left of the other."""
    connection = writing.connection
    seen, _ = _subject(connection, visitor)
    linked = None if seen is None else _linked_user(connection, seen)
    named = None if user is None else _subject(connection, user)[0]
    speaking = [named] if user is not None else [linked]
    if linked is None:
        speaking.append(seen)
    words = sorted((_said(connection, one), one) for one in speaking if one is not None)
    held = [(one, found) for _, one in words if (found := latest_consent(connection, one))]
    if not held:
        return
    left, written = held[-1][1].purposes - refused.purposes, False
    for one, word in held:
        # Behind an older word that is written anew the newer one has to be said again.
        if written or word.purposes & refused.purposes:
            written = True
            kept = replace(refused, purposes=word.purposes & left)
            add_consent(writing, one, kept, GATEWAY, audit_names_of_visitors(connection, one))


def owner(connection: Sql, subject_id: str) -> str:
    """Whose `subject_id` and all under it is: the user's who first logged in with that visitor, or
    its own. Who speaks on that device now may be somebody else."""
    found = linked(connection, subject_id)
    return subject_id if found is None else found[1]


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


def agreed_by(connection: Sql, subject_ids: Sequence[str]) -> dict[str, frozenset[str]]:
    """What the owners of these subjects agree to, of those who said anything."""
    agreed: dict[str, frozenset[str]] = {}
    for start in range(0, len(subject_ids), _AT_ONCE):
        some = subject_ids[start : start + _AT_ONCE]
        places = ",".join("?" * len(some))
        rows = connection.execute(
            "SELECT k.subject_id, c.purposes FROM subject_keys AS k "
            "LEFT JOIN links AS l ON l.visitor_subject = k.subject_id "
            "JOIN consents AS c ON c.number = (SELECT max(number) FROM consents "
            "WHERE subject_id = coalesce(l.history_owner, k.subject_id)) "
            f"WHERE k.subject_id IN ({places})",
            tuple(some),
        )
        agreed |= {one: frozenset(purposes.split()) for one, purposes in rows}
    return agreed


def consent_records(connection: Sql, subject_id: str) -> list[Consent]:
    """All records of exactly this subject, oldest first."""
    rows = connection.execute(
        "SELECT purposes, recorded_at, source, wording_version FROM consents "
        "WHERE subject_id = ? ORDER BY number",
        (subject_id,),
    )
    return [_consent(row) for row in rows]


def add_consent(
    writing: Writing, subject_id: str, consent: Consent, by: Actor, others: Sequence[str] = ()
) -> None:
    """Append a record; older ones stay as proof. `others`: the audit names of those who are the
    same person, so that whoever puts an earlier day back can apply the word to all of them."""
    insert_consents(writing, [subject_id], consent)
    # The purposes alone: source and wording are the caller's own words, and stand in the record.
    also = {"others": sorted(others)} if others else {}
    writing.audit("consent.recorded", by, subject_id, purposes=sorted(consent.purposes), **also)
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


def audit_names_of_visitors(connection: Sql, subject_id: str) -> list[str]:
    """The names in the audit log of the visitors whose history is read with this subject's."""
    rows = connection.execute(
        "SELECT audit_name FROM links JOIN subject_keys ON subject_id = visitor_subject "
        "WHERE history_owner = ?",
        (subject_id,),
    )
    return [row[0] for row in rows]


def linked(connection: Sql, visitor_subject: str) -> tuple[str, str] | None:
    """The user that a visitor is linked to and the one that owns its history."""
    row: tuple[str, str] | None = connection.execute(
        "SELECT user_subject, history_owner FROM links WHERE visitor_subject = ?",
        (visitor_subject,),
    ).fetchone()
    return row


def _consent(row: Sequence[Any]) -> Consent:
    return Consent(frozenset(row[0].split()), datetime.fromisoformat(row[1]), row[2], row[3])


def _link(writing: Writing, visitor_subject: str, user_subject: str) -> None:
    connection = writing.connection
    connection.execute(
        "INSERT INTO links VALUES (?, ?, ?)", (visitor_subject, user_subject, user_subject)
    )
    if _said(connection, visitor_subject) > _said(connection, user_subject):
        # A person's newest word counts, wherever it was said; above all a no.
        carried = latest_consent(connection, visitor_subject)
        assert carried is not None
        others = audit_names_of_visitors(connection, user_subject)
        add_consent(writing, user_subject, carried, GATEWAY, others)
    writing.changed()


def _said(connection: Sql, subject_id: str) -> _Said:
    """When the subject's newest word was said."""
    row = connection.execute(
        "SELECT recorded_at, number FROM consents WHERE subject_id = ? "
        "ORDER BY number DESC LIMIT 1",
        (subject_id,),
    ).fetchone()
    return _NEVER if row is None else (datetime.fromisoformat(row[0]), int(row[1]))


def _subject(connection: Sql, names: Pseudonyms) -> tuple[str | None, bool]:
    """The subject behind any of `names`, and whether it is held under the newest key."""
    for place, name in enumerate(names):
        row = connection.execute(
            "SELECT subject_id FROM subjects WHERE digest = ?", (name.digest,)
        ).fetchone()
        if row is not None:
            return row[0], place == 0
    return None, False


def _get_or_create(writing: Writing, names: Pseudonyms) -> tuple[str, bool]:
    """The subject behind `names`, and whether it was made just now."""
    found, fresh = _subject(writing.connection, names)
    newest = names[0]
    if found is None:
        found = str(uuid4())
        insert_subjects(writing, [(newest, found)])
        insert_keys(writing, [found])
        return found, True
    if not fresh:
        writing.connection.executemany(
            "DELETE FROM subjects WHERE digest = ?", [(name.digest,) for name in names[1:]]
        )
        insert_subjects(writing, [(newest, found)])
    return found, False


def _linked_user(connection: Sql, visitor_subject: str) -> str | None:
    found = linked(connection, visitor_subject)
    return None if found is None else found[0]
