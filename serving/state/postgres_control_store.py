"""The control store in PostgreSQL, shared by gateways wherever they run.

What is written goes to the database; what is read comes from a copy on this machine that follows it
(`LocalCopy`). So a look-up takes microseconds and no round trip, and what one gateway wrote the
others know as soon as they are told: at once by NOTIFY, and after a quarter of a second at the
latest because they ask. While the database is away, the copy counts for a second and then nothing
is known: purposes fall back to none. So it is too where the database is away from the start on.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from contract.clock import Clock
from contract.errors import UserError
from serving.state import control_keys, control_schema, postgres_transfer, remembered_keys
from serving.state.group_writer import StoreError
from serving.state.local_copy import LocalCopy
from serving.state.postgres_changes import CHANNEL, LOCK, forget_gone, track
from serving.state.postgres_place import BoundConnection, PostgresPlace, PostgresSql, said
from serving.state.postgres_writer import LIMIT_SECONDS, PostgresWriter
from serving.state.secrets import Secrets
from serving.state.sql import Sql, Step, migrate_postgresql
from serving.state.sql_control_store import SqlControlStore
from serving.state.sqlite_readers import SqliteReaders
from serving.state.sqlite_writer import READ_WAIT_SECONDS, connect

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_POLL_SECONDS = 0.25
_FOLLOWER_LIMIT_SECONDS = 1.0
_MIGRATION_LIMIT_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
# What an administrator must put right, as the server says it when it refuses a connection.
_REFUSALS = ("authentication", "does not exist", "no pg_hba.conf entry", "permission denied")


class PostgresControlStore(SqlControlStore):
    """A `ControlStore`; `folder` is where the copy lies."""

    def __init__(
        self,
        place: PostgresPlace,
        folder: Path,
        secrets: Secrets,
        clock: Clock | None = None,
        *,
        may_be_away: bool = False,
    ) -> None:
        """Raises UserError when the database can not be reached, or belongs to another version or
        another master key. `may_be_away`: not for the first of these where this folder was used
        before; then the database is followed as soon as it is there."""
        super().__init__(secrets, clock)
        self._place, self._folder = place, folder
        self._service_keys: dict[str, bytes] = {}
        self._opened = False
        self._closing = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="control-store", daemon=True)
        self._copy = LocalCopy(
            folder, control_schema.make_tables, control_schema.COPIED, control_schema.TRACES
        )
        self._readers: SqliteReaders | None = None
        self._writer = PostgresWriter(place, self._copy.catch_up)
        try:
            self._open()
        except psycopg.Error as error:
            if not (may_be_away and _is_away(error) and self._remember()):
                self.close()
                raise UserError(f"control store {place.name}: {said(error)}") from None
            log.error("control store %s: %s; nobody is known meanwhile", place.name, said(error))
        except Exception:
            self.close()
            raise
        self._follower.start()

    @property
    def opened(self) -> bool:
        return self._opened

    def _remember(self) -> bool:
        """Whether the shop's own keys are known without the database."""
        self._service_keys = remembered_keys.remembered(self._folder, self._secrets) or {}
        return bool(self._service_keys)

    def _open(self) -> None:
        with self._place.connect(_MIGRATION_LIMIT_SECONDS) as connection, connection.transaction():
            connection.execute(LOCK)  # of two first starts one makes the tables
            if self._place.schema is not None:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._place.schema}")
            self._prepare(PostgresSql(connection), lambda steps: self._migrate(connection, steps))
        with self._place.connect(_MIGRATION_LIMIT_SECONDS) as connection:
            self._copy.catch_up(connection)  # which may take longer than it counts
            self._copy.catch_up(connection)
        if self._readers is None:
            self._readers = SqliteReaders(self._copy.path, READ_WAIT_SECONDS)
        self._audit_key = self._read(
            lambda copy: control_keys.service_key(copy, self._secrets, "audit")
        )
        self._read(lambda copy: remembered_keys.remember(self._folder, copy))
        self._opened = True

    def _migrate(self, connection: BoundConnection, steps: Sequence[Step]) -> None:
        if migrate_postgresql(PostgresSql(connection), "control", steps, self._place.name):
            track(connection, control_schema.COPIED)

    def _follow(self) -> None:
        """Keep the copy true until the store is closed."""
        away = False
        while not self._closing.is_set():
            try:
                if not self._opened:
                    self._open()
                with self._place.connect(_FOLLOWER_LIMIT_SECONDS) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    if away:
                        log.warning("the control store answers again")
                    away = False
                    while not self._closing.is_set():
                        self._copy.catch_up(connection)
                        self._copy.clean()
                        for _ in connection.notifies(timeout=_POLL_SECONDS, stop_after=1):
                            pass
            except (psycopg.Error, StoreError, UserError, OSError) as error:
                if not away and not self._closing.is_set():
                    log.error("the control store can not be followed: %s", said(error))
                away = True
                self._closing.wait(_PAUSE_SECONDS)

    def service_key(self, name: str) -> bytes:
        held = self._service_keys.get(name)
        return super().service_key(name) if held is None else held

    async def _run(self, work: Callable[[Any], Result]) -> Result:
        if not self._opened:
            raise StoreError("the control store was away at the start and is not back yet")
        return await self._writer.run(work)

    def _read(self, step: Callable[[Sql], Result]) -> Result:
        with self._true_copy() as readers:
            return step(readers.own())

    @contextmanager
    def _read_beside(self) -> Iterator[Sql]:
        with self._true_copy(), closing(connect(self._copy.path, read_only=True)) as connection:
            yield connection

    @contextmanager
    def _true_copy(self) -> Iterator[SqliteReaders]:
        self._copy.check()
        if self._readers is None:
            raise StoreError("the control store is being opened")
        try:
            yield self._readers
        except sqlite3.Error as error:
            raise StoreError(f"the control store could not be read: {error}") from error

    def _read_audit(self, step: Callable[[Sql], Result]) -> Result:
        """From the database itself."""
        try:
            with self._place.connect(LIMIT_SECONDS) as connection:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                found = step(PostgresSql(connection))
                connection.execute("COMMIT")
                return found
        except psycopg.Error as error:
            raise StoreError(f"the control store could not be read: {said(error)}") from None

    async def let_go(self, audit_before: datetime, answers_before: datetime) -> tuple[int, int]:
        removed = await super().let_go(audit_before, answers_before)
        await self._run(forget_gone)
        return removed

    def see_all(self) -> None:
        try:
            with self._place.connect(LIMIT_SECONDS) as connection:
                self._copy.catch_up(connection)
        except psycopg.Error as error:
            raise StoreError(f"the control store could not be read: {said(error)}") from None

    async def scrub(self, traces: Sequence[bytes]) -> bool:
        """Of the copy here; the others clean theirs as they learn of it. What the server still has
        of it, in rows that are dead and in its write-ahead log, is not for us to look at: False."""
        await asyncio.to_thread(self._copy.clean)
        return False

    def save(self, path: Path) -> None:
        try:
            with self._place.connect(LIMIT_SECONDS) as connection:
                postgres_transfer.save(connection, path)
        except (psycopg.Error, sqlite3.Error) as error:
            raise StoreError(f"the control store could not be copied: {said(error)}") from None

    def refuse_unless_new(self) -> None:
        """Raises UserError when anything was ever written here, and StoreError."""
        self._read_audit(postgres_transfer.refuse_unless_new)

    async def load(self, path: Path) -> None:
        """Take over everything from a file that `save` made, in place of the nothing that is here.
        Raises UserError when it is not nothing, and StoreError."""
        await self._run(lambda connection: postgres_transfer.load(connection, path))
        self._audit_key = self.service_key("audit")

    def close(self) -> None:
        self._closing.set()
        if self._follower.is_alive():
            self._follower.join()
        self._writer.close()
        if self._readers is not None:
            self._readers.close()
        self._copy.close()


def _is_away(error: psycopg.Error) -> bool:
    """Whether the server could not be reached, or says that it is not there for anybody."""
    told = str(error)
    return isinstance(error, psycopg.OperationalError) and not any(one in told for one in _REFUSALS)
