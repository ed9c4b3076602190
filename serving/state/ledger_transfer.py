"""The coupon ledger's tables between PostgreSQL and a SQLite file, in both directions."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select

from contract.errors import UserError
from serving.state.ledger_database import LedgerDatabase, sqlite_ledger_database
from serving.state.ledger_tables import METADATA
from serving.state.sqlite_writer import connect, make_whole

_AT_ONCE = 1_000


async def save_ledger(database: LedgerDatabase, path: Path) -> None:
    """Write all of it, as of one moment, as a new SQLite file. Raises StoreError."""
    sqlite_ledger_database(path).close()  # makes the tables

    def save(connection: Connection) -> None:
        with closing(connect(path)) as made:
            made.execute("BEGIN")
            for table in METADATA.sorted_tables:
                places = ",".join("?" * len(table.columns))
                rows = connection.execution_options(yield_per=_AT_ONCE).execute(select(table))
                for some in rows.partitions():
                    made.executemany(
                        f"INSERT INTO {table.name} ({','.join(table.columns.keys())}) "
                        f"VALUES ({places})",
                        [tuple(row) for row in some],
                    )
            made.execute("COMMIT")
            make_whole(made)

    await database.read(save)


async def load_ledger(database: LedgerDatabase, path: Path) -> None:
    """Take over everything from the file of a ledger. Raises UserError when there is something
    already, and StoreError."""
    sqlite_ledger_database(path).close()  # brings one of an earlier version to the newest step

    def load(connection: Connection) -> None:
        for table in METADATA.sorted_tables:
            if connection.execute(select(func.count()).select_from(table)).scalar_one():
                raise UserError("the coupon ledger is not empty: restore into a new one")
            with closing(connect(path, read_only=True)) as read:
                for some in _rows(read, table.name, table.columns.keys()):
                    connection.execute(insert(table), some)

    await database.write(load)


def _rows(read: Any, name: str, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(read.execute(f"SELECT {','.join(columns)} FROM {name}"))
    while some := list(islice(rows, _AT_ONCE)):
        yield [dict(zip(columns, row, strict=True)) for row in some]
