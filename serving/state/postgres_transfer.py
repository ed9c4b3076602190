"""The control store's tables between PostgreSQL and a SQLite file, in both directions."""

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from contract.errors import UserError
from serving.state.control_schema import STEPS, TABLES, make_tables
from serving.state.postgres_changes import begin_again
from serving.state.postgres_place import PostgresSql
from serving.state.sql import Sql
from serving.state.sqlite_writer import connect

_AT_ONCE = 1_000
# Whoever has one of these is somebody's store already.
_HELD = ("subjects", "api_keys", "audit", "exports", "catalogue_changes", "documents")


def save(raw: Any, path: Path) -> None:
    """All tables as of one moment, from the psycopg connection `raw` into a new file. Raises
    psycopg.Error and sqlite3.Error."""
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("BEGIN")
        make_tables(made)
        raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name in TABLES:
            named, insert = _columns(made, name)
            made.execute(f"DELETE FROM {name}")
            with raw.cursor(name="saved") as cursor:
                cursor.itersize = _AT_ONCE
                cursor.execute(f"SELECT {named} FROM {name}")
                made.executemany(insert, cursor)
        raw.execute("COMMIT")
        made.execute(f"PRAGMA user_version = {len(STEPS)}")
        made.execute("COMMIT")


def refuse_unless_new(connection: Sql) -> None:
    """Raises UserError when it is somebody's store already."""
    for name in _HELD:
        made = " WHERE number > 1" if name == "audit" else ""  # the first line says that it began
        if connection.execute(f"SELECT 1 FROM {name}{made} LIMIT 1").fetchone() is not None:
            raise UserError("the control store is not empty: restore into a new one")


def load(connection: PostgresSql, path: Path) -> None:
    """All tables from the file at `path`, in the transaction under way. Raises UserError when there
    is something already."""
    refuse_unless_new(connection)
    with closing(connect(path, read_only=True)) as read:
        for name in TABLES:
            named, insert = _columns(read, name)
            connection.execute(f"DELETE FROM {name}")
            rows = iter(read.execute(f"SELECT {named} FROM {name}"))
            while some := list(islice(rows, _AT_ONCE)):
                connection.executemany(insert, some)
    connection.execute(
        "SELECT setval(pg_get_serial_sequence('consents', 'number'), "
        "(SELECT coalesce(max(number), 0) + 1 FROM consents), false)"
    )
    begin_again(connection)


def _columns(connection: sqlite3.Connection, name: str) -> tuple[str, str]:
    """The columns of a table, and the statement that inserts them."""
    columns = [one[1] for one in connection.execute(f"PRAGMA table_info({name})")]
    named = ",".join(f'"{one}"' for one in columns)
    return named, f"INSERT INTO {name} ({named}) VALUES ({','.join('?' * len(columns))})"
