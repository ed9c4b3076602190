"""The audit log in tables: plain functions over a connection, so that a line is written in the same
transaction as what it tells of."""

from collections.abc import Iterator

from serving.state.audit import START, Entry, Head, Line, next_line, sealed_head
from serving.state.sql import Sql


def append(connection: Sql, entry: Entry, key: bytes) -> Line:
    """Write `entry` as the next line and move the head."""
    held = head(connection)
    base, base_mac = (0, START) if held is None else (held.base, held.base_mac)
    number, previous = (0, START) if held is None else (held.number, held.mac)
    line = next_line(entry, number + 1, previous, key)
    connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (line.number, line.text, line.mac))
    _move(connection, sealed_head(base, base_mac, line.number, line.mac, key))
    return line


def head(connection: Sql) -> Head | None:
    """The head, None while nothing was ever written."""
    row = connection.execute("SELECT base, base_mac, number, mac, seal FROM audit_head").fetchone()
    return None if row is None else Head(*row)


def lines(connection: Sql) -> Iterator[Line]:
    """All lines in the order of their numbers."""
    for row in connection.execute("SELECT number, text, mac FROM audit ORDER BY number"):
        yield Line(*row)


def lines_about(connection: Sql, name: str) -> list[Line]:
    """The lines about the subject with this audit name."""
    rows = connection.execute(
        "SELECT number, text, mac FROM audit WHERE json_extract(text, '$.subject') = ? "
        "ORDER BY number",
        (name,),
    )
    return [Line(*row) for row in rows]


def let_go(connection: Sql, before: str, key: bytes) -> int:
    """Remove the lines written before the ISO time `before`, from the beginning on; the head then
    says where the log begins. Returns how many lines that were."""
    held = head(connection)
    if held is None:
        return 0
    row = connection.execute(
        "SELECT number, mac FROM audit WHERE json_extract(text, '$.at') < ? "
        "ORDER BY number DESC LIMIT 1",
        (before,),
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
