"""What a merchant writes as a whole: rules, offers and the like, each a named document of which
every version is kept, with who wrote it, when, and what for. A version is never changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from serving.state.audit import Actor
from serving.state.sql import Sql

_HEAD = "version, key_id, role, written_at, note"


class DocumentConflict(Exception):  # noqa: N818 - it names what happened, not a fault
    """Somebody else has written meanwhile; `current` is the latest version, 0 where none is."""

    def __init__(self, name: str, current: int) -> None:
        super().__init__(f"{name}: version {current} is the current one")
        self.current = current


@dataclass(frozen=True)
class Version:
    """A version of a document without its body. Versions count from 1."""

    version: int
    by: Actor
    written_at: datetime
    note: str


@dataclass(frozen=True)
class Document:
    """One version of a document; `body` is JSON."""

    name: str
    head: Version
    body: str

    @property
    def version(self) -> int:
        """Its number."""
        return self.head.version


def put(connection: Sql, name: str, body: str, head: Version, expected: int | None) -> Version:
    """Add `body` as the next version, whose number replaces that of `head`.

    Raises DocumentConflict unless the latest version is the `expected` one (0: there is none yet;
    None: whichever it is).
    """
    latest = versions(connection).get(name, 0)
    if expected is not None and expected != latest:
        raise DocumentConflict(name, latest)
    row = (head.by.key_id, head.by.role, head.written_at.isoformat(), head.note)
    connection.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (f"{name}/{latest + 1}", name, latest + 1, body, *row),
    )
    return Version(latest + 1, head.by, head.written_at, head.note)


def versions(connection: Sql) -> Mapping[str, int]:
    """The latest version of every document, by name."""
    rows = connection.execute("SELECT name, max(version) FROM documents GROUP BY name")
    return {name: int(number) for name, number in rows.fetchall()}


def read(connection: Sql, name: str, version: int | None) -> Document | None:
    """The document at `version` (None: the latest); None where there is no such."""
    row = connection.execute(
        f"SELECT {_HEAD}, body FROM documents WHERE name = ? AND version = coalesce(?, "
        "(SELECT max(version) FROM documents WHERE name = ?))",
        (name, version, name),
    ).fetchone()
    return None if row is None else Document(name, _head(*row[:-1]), row[-1])


def history(connection: Sql, name: str, before: int | None, limit: int) -> list[Version]:
    """Versions below `before` (None: from the latest on), the newest first."""
    rows = connection.execute(
        f"SELECT {_HEAD} FROM documents WHERE name = ? AND version < coalesce(?, version + 1) "
        "ORDER BY version DESC LIMIT ?",
        (name, before, limit),
    )
    return [_head(*row) for row in rows.fetchall()]


def _head(version: int, key_id: str, role: str, written_at: str, note: str) -> Version:
    return Version(int(version), Actor(key_id, role), datetime.fromisoformat(written_at), note)
