"""Erasure in the control store: which records are one person's, and their removal in one step."""

from collections.abc import Sequence
from uuid import uuid4

from serving.state import control_audit, erasure_records
from serving.state.audit import Actor, Entry
from serving.state.control_records import Erased
from serving.state.control_subjects import Writing, audit_name, histories, owner
from serving.state.sql import Sql


def person_of(connection: Sql, subject_id: str) -> tuple[str, ...]:
    """The subjects that are this person: the one that `subject_id` belongs to, the visitors whose
    history is read with it, and `subject_id` itself. Not whoever else used a shared device."""
    return tuple(dict.fromkeys((*histories(connection, owner(connection, subject_id)), subject_id)))


def erase(writing: Writing, subject_id: str, by: Actor) -> Erased:
    """Remove everything that this store holds about the person, keys first; what other stores
    still hold opens no more, and is listed for removal (`erasures`, `erasure_records`) until that
    is done."""
    connection = writing.connection
    person = person_of(connection, subject_id)
    name = audit_name(connection, subject_id)
    # So that whoever puts an earlier day back can erase all of the person again.
    names = [audit_name(connection, one) for one in person]
    others = sorted(one for one in names if one not in (None, name))
    traces, log_keys = _keys(connection, person)
    for one in person:
        connection.execute("DELETE FROM subject_keys WHERE subject_id = ?", (one,))
        connection.execute("DELETE FROM consents WHERE subject_id = ?", (one,))
        _unlink(connection, one)
        connection.execute("DELETE FROM subjects WHERE subject_id = ?", (one,))
    connection.executemany(
        "INSERT INTO erasures VALUES (?) ON CONFLICT DO NOTHING",
        [(log_key,) for log_key in log_keys],
    )
    connection.execute("UPDATE erasure_count SET number = number + 1")
    entry = Entry(
        "subject.erased", writing.clock.now(), by, name, {"records": len(person), "others": others}
    )
    line = control_audit.append(connection, entry, writing.audit_key)
    (number,) = connection.execute("SELECT number FROM erasure_count").fetchone()
    rows = connection.execute("SELECT export_id FROM exports").fetchall()
    exports = tuple(str(export_id) for (export_id,) in rows)
    erased = Erased(
        *(str(uuid4()), person, tuple(log_keys), tuple(traces), line, exports), number=int(number)
    )
    erasure_records.add(connection, writing.secrets, erased)
    writing.changed()
    return erased


def _keys(connection: Sql, person: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
    """What must be found nowhere afterwards, and the log keys."""
    traces: list[bytes] = []
    log_keys: list[bytes] = []
    for one in person:
        traces.append(one.encode())
        query = "SELECT digest FROM subjects WHERE subject_id = ?"
        traces += [digest.encode() for (digest,) in connection.execute(query, (one,))]
        row = connection.execute(
            "SELECT log_key, wrapped FROM subject_keys WHERE subject_id = ?", (one,)
        ).fetchone()
        if row is not None:
            log_keys.append(row[0])
            traces.append(row[1])
    return traces, log_keys


def _unlink(connection: Sql, subject_id: str) -> None:
    """Undo the links of `subject_id`. A device that somebody else used first goes back to that one
    without being recognised again: nobody knows who holds it now."""
    connection.execute(
        "DELETE FROM links WHERE visitor_subject = ? OR history_owner = ?",
        (subject_id, subject_id),
    )
    shared = connection.execute(
        "SELECT visitor_subject FROM links WHERE user_subject = ?", (subject_id,)
    ).fetchall()
    for (visitor,) in shared:
        connection.execute(
            "UPDATE links SET user_subject = history_owner WHERE visitor_subject = ?", (visitor,)
        )
        connection.execute("DELETE FROM subjects WHERE subject_id = ?", (visitor,))
