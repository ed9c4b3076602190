"""The audit log in tables: plain functions over a connection, so that a line is written in the same
transaction as what it tells of."""

from collections.abc import Iterator
from datetime import datetime

from serving.state.audit import GATEWAY, START, Entry, Head, Line, next_line, sealed_head
from serving.state.group_writer import StoreError
from serving.state.sql import Sql


def begin(connection: Sql, at: datetime, key: bytes) -> None:
    """Write the first line of a store that is being made. From then on there is always a head, and
    one that is missing was taken away."""
    written = connection.execute("SELECT 1 FROM audit LIMIT 1").fetchone()
    if written is None and head(connection) is None:
        _append(connection, Entry("log.begun", at, GATEWAY), Head(0, START, 0, START, ""), key)


def append(connection: Sql, entry: Entry, key: bytes) -> Line:
    """Write `entry` as the next line and move the head. Raises StoreError when there is none: a
    new log in its place would hide that one was removed."""
    held = head(connection)
    if held is None:
        raise StoreError(
            "the head of the audit log is missing: it was removed from outside; see `audit verify`"
        )
    return _append(connection, entry, held, key)


def _append(connection: Sql, entry: Entry, held: Head, key: bytes) -> Line:
    line = next_line(entry, held.number + 1, held.mac, key)
    connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (line.number, line.text, line.mac))
    _move(connection, sealed_head(held.base, held.base_mac, line.number, line.mac, key))
    return line


def head(connection: Sql) -> Head | None:
    """The head; None only where somebody removed it."""
    row = connection.execute("SELECT base, base_mac, number, mac, seal FROM audit_head").fetchone()
    return None if row is None else Head(*row)


def lines(connection: Sql) -> Iterator[Line]:
    """All lines in the order of their numbers."""
    for row in connection.execute("SELECT number, text, mac FROM audit ORDER BY number"):
        yield Line(*row)


# A line's text ends in the subject's name (its keys are sorted), and that end is indexed:
# PostgreSQL indexes nothing that is read out of JSON text, and gateways of the version before would
# leave a column of its own empty.
_END = 16
ABOUT = (
    f"SELECT number, text, mac FROM audit WHERE substr(text, length(text) - {_END - 1}) = ? "
    "AND json_extract(text, '$.subject') = ? ORDER BY number"
)


def lines_about(connection: Sql, name: str) -> list[Line]:
    """The lines about the subject with this audit name."""
    end = f'"subject":"{name}"}}'[-_END:]
    return [Line(*row) for row in connection.execute(ABOUT, (end, name))]


def let_go(connection: Sql, before: str, key: bytes) -> int:
    """Remove the lines from the beginning on as long as they were written before the ISO time
    `before`; the head then says where the log begins. Returns how many lines that were. A clock
    that once went wrong stamps a late line early: what stands before it stays."""
    held = head(connection)
    if held is None:
        return 0
    row = connection.execute(
        "SELECT number, mac FROM audit WHERE number < (SELECT coalesce(min(number), ?) FROM audit "
        "WHERE json_extract(text, '$.at') >= ?) ORDER BY number DESC LIMIT 1",
        (held.number + 1, before),
    ).fetchone()
    if row is None:
        return 0
    removed = int(connection.execute("DELETE FROM audit WHERE number <= ?", (row[0],)).rowcount)
    _move(connection, sealed_head(row[0], row[1], held.number, held.mac, key))
    return removed


def _move(connection: Sql, new: Head) -> None:
    connection.execute(
        "INSERT INTO audit_head VALUES (1, ?, ?, ?, ?, ?) "
        'ON CONFLICT ("only") DO UPDATE SET base = excluded.base, base_mac = excluded.base_mac, '
        "number = excluded.number, mac = excluded.mac, seal = excluded.seal",
        (new.base, new.base_mac, new.number, new.mac, new.seal),
    )
