"""The ledger's database: a SQLite file of the gateway's own, or PostgreSQL shared by all. Work is
done on threads, as both block; a piece of it is one transaction, tried again where two met."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from contract.errors import UserError
from serving.state.sql import for_postgresql
from serving.state.sqlite_writer import READ_WAIT_SECONDS, StoreError, connect

log = logging.getLogger(__name__)

T = TypeVar("T")
MIGRATIONS = Path(__file__).with_name("ledger_migrations")
NEWEST_STEP = "0004"  # the last of them
VERSION_TABLE = "ledger_version"
_READS = "ledger_reads"  # an execution option: this transaction only reads
_TRIES = 5
_PAUSE_SECONDS = 0.01


class LedgerDatabase:
    """Runs work in transactions. `threads` work beside each other where the database can."""

    def __init__(
        self,
        engine: Engine,
        threads: int,
        lock: Callable[[Connection], None],
        beside: Callable[[], sqlite3.Connection] | None = None,
        *,
        at_once: bool = True,
    ) -> None:
        """`lock` keeps others from migrating at the same time; `beside` opens one more connection,
        to look things up at once, where the database is a file. `at_once`: open it now, instead of
        when it is first used. Raises UserError, StoreError."""
        self._engine, self._lock = engine, lock
        self._opened, self._opening = False, Lock()
        self._beside: sqlite3.Connection | None = None
        self._writers = ThreadPoolExecutor(threads, "ledger")
        self._readers = ThreadPoolExecutor(1, "ledger-reads")
        if at_once:
            try:
                self._open()
            except (StoreError, UserError):
                self.close()
                raise
        if beside is not None:
            self._beside = beside()

    @property
    def looks_beside(self) -> bool:
        """Whether `look` answers without waiting."""
        return self._beside is not None

    def _open(self) -> None:
        """Take the steps that are missing, once. Raises UserError, StoreError."""
        with self._opening:
            if self._opened:
                return
            try:
                with self._engine.begin() as connection:
                    self._lock(connection)
                    _migrate(connection)
            except SQLAlchemyError as error:
                said = f"the coupon ledger can not be opened: {_said(error)}"
                raise StoreError(said) from error
            self._opened = True

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, durable. Raises what it raises, then nothing was written, and
        StoreError."""
        return await asyncio.get_running_loop().run_in_executor(
            self._writers, self._attempts, work, False
        )

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, as of one moment. Raises StoreError."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._attempts, work, True
        )

    async def look(self, query: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """The rows of a small `query` of the shared SQL (`serving.state.sql`), as of now. Those of
        a file are read where they are asked for: to hand a question to another thread costs ten
        times its answer. Raises StoreError."""
        if self._beside is None:
            return await self.read(lambda connection: rows_of(connection, query, values))
        try:
            return self._beside.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the coupon ledger: {_said(error)}") from error

    def close(self) -> None:
        """Finish what is under way."""
        self._writers.shutdown()
        self._readers.shutdown()
        if self._beside is not None:
            self._beside.close()
        self._engine.dispose()

    def _attempts(self, work: Callable[[Connection], T], reads: bool) -> T:
        if not self._opened:
            try:
                self._open()
            except UserError as error:
                raise StoreError(str(error)) from error
        for left in reversed(range(_TRIES)):
            try:
                opened = self._engine.connect().execution_options(**{_READS: reads})
                with opened as connection, connection.begin():
                    return work(connection)
            except (OperationalError, IntegrityError) as error:
                # Two met (a deadlock, two first uses of one row), or the connection was a dead one.
                if not left or not _worth_trying(error):
                    raise StoreError(f"the coupon ledger: {_said(error)}") from error
                time.sleep(_PAUSE_SECONDS)
            except SQLAlchemyError as error:
                raise StoreError(f"the coupon ledger: {_said(error)}") from error
        raise AssertionError("the last attempt returns or raises")


def rows_of(connection: Connection, query: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """The rows of a `query` of the shared SQL in a transaction under way."""
    return done_with(connection, query, values).fetchall()


def done_with(connection: Connection, statement: str, values: Sequence[Any]) -> CursorResult[Any]:
    """What a `statement` of the shared SQL does in a transaction under way."""
    if connection.dialect.name == "postgresql":
        statement = for_postgresql(statement)
    return connection.exec_driver_sql(statement, tuple(values))


def _worth_trying(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    met = state in {"40001", "40P01"}  # could not serialise, deadlock
    return error.connection_invalidated or met or isinstance(error, IntegrityError)


def _said(error: BaseException) -> str:
    """What went wrong, in one line without the statement and its values."""
    orig = getattr(error, "orig", None) or error
    return (str(orig).strip().splitlines() or [type(orig).__name__])[0]


def _migrate(connection: Connection) -> None:
    if _is_new(connection):
        return
    # A second of every start, and wanted only after an upgrade.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise UserError("the coupon ledger was made by a newer version of Tillwise") from None


def _is_new(connection: Connection) -> bool:
    if not inspect(connection).has_table(VERSION_TABLE):
        return False
    held = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalars().all()
    return held == [NEWEST_STEP]


def sqlite_ledger_database(path: Path) -> LedgerDatabase:
    """The file at `path`, made if need be. One writer at a time is all that SQLite has."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine("sqlite://", creator=lambda: connect(path), poolclass=QueuePool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Writers queue at the beginning: one that has read before it writes would fail instead.
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    def look() -> sqlite3.Connection:
        found: sqlite3.Connection = connect(path, read_only=True, busy_seconds=READ_WAIT_SECONDS)
        return found

    return LedgerDatabase(engine, 1, lambda _: None, look)
