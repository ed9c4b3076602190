"""Where a PostgreSQL database is, out of a URL and settings, and connections that never wait for
ever: neither for the server's own locks nor for a server that has stopped answering."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.conninfo import make_conninfo

from contract.errors import UserError
from serving.state.sql import for_postgresql

SCHEMES = ("postgresql", "postgresqls")
_CONNECT_SECONDS = 2
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]*")

Value = TypeVar("Value")


class BoundConnection(psycopg.Connection[Any]):
    """Gives up on a server that says nothing for `limit_s`; it is of no use afterwards."""

    limit_s = 5.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, with an end."""
        try:
            return super().wait(gen, interval, self.limit_s if timeout is None else timeout)
        except psycopg.OperationalError:
            if timeout is None:
                self.pgconn.finish()
            raise


class _Answer:
    """A cursor whose statement may be on its way still: it is waited for when it is asked."""

    def __init__(self, cursor: psycopg.Cursor[Any], pipeline: psycopg.Pipeline) -> None:
        self._cursor, self._pipeline = cursor, pipeline
        self.fetchone, self.fetchall = cursor.fetchone, cursor.fetchall

    @property
    def rowcount(self) -> int:
        self._pipeline.sync()
        return self._cursor.rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor.fetchall())


class PostgresSql:
    """A connection that takes the shared SQL. With a `pipeline` nobody waits for a statement whose
    answer is not asked for; what is wrong with it is then said later, at the commit at last."""

    def __init__(
        self, raw: psycopg.Connection[Any], pipeline: psycopg.Pipeline | None = None
    ) -> None:
        self._raw, self._pipeline = raw, pipeline

    def execute(self, text: str, values: Sequence[Any] = (), /) -> Any:
        """As of any `Sql`."""
        cursor = self._raw.execute(for_postgresql(text), values)
        return cursor if self._pipeline is None else _Answer(cursor, self._pipeline)

    def executemany(self, text: str, rows: Iterable[Sequence[Any]], /) -> None:
        """As of any `Sql`."""
        some = list(rows)
        if len(some) == 1:  # cheaper than a pipeline of its own
            self.execute(text, some[0])
        elif some:
            self._raw.cursor().executemany(for_postgresql(text), some)


@dataclass(frozen=True)
class PostgresPlace:
    """A database on a server, or on the one of several that takes writes; `options` are libpq's."""

    name: str  # to be shown
    schema: str | None
    options: Mapping[str, str] = field(repr=False)

    def connect(self, limit_s: float) -> BoundConnection:
        """A connection in autocommit mode, no statement of which takes longer than `limit_s`.

        Raises psycopg.Error.
        """
        # Whoever stops in the midst of a transaction must not hold the others up for long.
        limits = f"-c statement_timeout={int(limit_s * 1e3)} -c lock_timeout={int(limit_s * 1e3)} "
        limits += f"-c idle_in_transaction_session_timeout={int(limit_s * 2e3)}"
        if self.schema is not None:
            limits += f" -c search_path={self.schema}"
        place = make_conninfo(
            **self.options,
            options=limits,
            connect_timeout=_CONNECT_SECONDS,
            application_name="tillwise",
            target_session_attrs="read-write",
        )
        connection = BoundConnection.connect(place, autocommit=True)
        # A little more, so that the server's own word comes first.
        connection.limit_s = limit_s + 0.2
        return connection


def postgres_place(
    url: str,
    *,
    user: str | None = None,
    password: str | None = None,
    tls: Mapping[str, str] | None = None,
) -> PostgresPlace:
    """postgresql://host:5432/database, or postgresqls:// over TLS with `tls`, in libpq's words.
    Several hosts are separated by commas; `?schema=name` puts the tables into a schema.

    Raises UserError when it is no such URL.
    """
    parts = urlsplit(url)
    hosts, database = parts.netloc, parts.path.strip("/")
    asked = parse_qs(parts.query, keep_blank_values=True)
    schema = asked.pop("schema", [None])[0]
    fits = schema is None or _SCHEMA.fullmatch(schema)
    plain = parts.scheme in SCHEMES and hosts and "@" not in hosts and not asked
    places = [one.rpartition(":") for one in hosts.split(",")]
    named = all(host and port.isdigit() for host, _, port in places)
    if not plain or not named or not database or "/" in database or not fits:
        raise UserError(
            "control store: write `sqlite` or postgresql://host:5432/database (postgresqls for "
            "TLS); user and password have settings of their own"
        )
    options = {
        "host": ",".join(host.strip("[]") for host, _, _ in places),
        "port": ",".join(port for _, _, port in places),
        "dbname": database,
        "sslmode": "disable",
    }
    if user is not None:
        options["user"] = user
    if password is not None:
        options["password"] = password
    if parts.scheme == "postgresqls":
        options |= dict(tls or {})
    return PostgresPlace(f"{hosts}/{database}", schema, options)


def said(error: Exception) -> str:
    """What went wrong, in one line without the statement."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
