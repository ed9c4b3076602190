"""The control store in one SQLite file. Any number of processes may share it: a read always sees
the latest commit of all of them, but for keys that another process revoked a moment ago."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from contract.clock import Clock
from serving.state.secrets import Secrets
from serving.state.sql import Sql, migrate_sqlite
from serving.state.sql_control_store import SqlControlStore
from serving.state.sqlite_readers import SqliteReaders
from serving.state.sqlite_scrub import scrub
from serving.state.sqlite_writer import (
    READ_WAIT_SECONDS,
    GroupCommitWriter,
    StoreError,
    connect,
    copy_file,
)

Result = TypeVar("Result")


class SqliteControlStore(SqlControlStore):
    """A `ControlStore`; every thread reads by itself."""

    def __init__(self, path: Path, secrets: Secrets, clock: Clock | None = None) -> None:
        """Raises UserError when the file belongs to another version or another master key."""
        super().__init__(secrets, clock)
        self._path = path
        self._writer = GroupCommitWriter(path)
        self._readers: SqliteReaders | None = None
        try:
            self._writer.submit(self._prepare_file).result()
            self._readers = SqliteReaders(path, READ_WAIT_SECONDS)
            self._audit_key = self.service_key("audit")
        except Exception:
            self.close()
            raise

    def _prepare_file(self, connection: sqlite3.Connection) -> None:
        self._prepare(connection, lambda steps: migrate_sqlite(connection, steps, self._path.name))

    async def _run(self, work: Callable[[Any], Result]) -> Result:
        return await self._writer.run(work)

    def _read(self, step: Callable[[Sql], Result]) -> Result:
        # Not `_said`: every checkout comes through here.
        assert self._readers is not None
        try:
            return step(self._readers.own())
        except sqlite3.Error as error:
            raise _unread(error) from error

    @contextmanager
    def _read_beside(self) -> Iterator[Sql]:
        with _said(), closing(connect(self._path, read_only=True)) as connection:
            yield connection

    def _read_audit(self, step: Callable[[Sql], Result]) -> Result:
        with self._read_beside() as connection:
            connection.execute("BEGIN")
            return step(connection)

    def see_all(self) -> None:
        """Every read does."""

    async def scrub(self, traces: Sequence[bytes]) -> bool:
        return await self._writer.run(
            lambda connection: scrub(connection, self._path, traces), alone=True
        )

    def save(self, path: Path) -> None:
        with _said():
            copy_file(self._path, path)

    def close(self) -> None:
        self._writer.close()
        if self._readers is not None:
            self._readers.close()


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _unread(error) from error


def _unread(error: sqlite3.Error) -> StoreError:
    return StoreError(f"the control store could not be read: {error}")
