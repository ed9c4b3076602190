"""Writing to a SQLite file by group commit: one flush to disk for many callers."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from serving.state.group_writer import MAX_GROUP, GroupWriter, Job, StoreError

__all__ = [
    "BUSY_SECONDS",
    "MAX_GROUP",
    "READ_WAIT_SECONDS",
    "GroupCommitWriter",
    "StoreError",
    "connect",
    "copy_file",
    "make_whole",
]

BUSY_SECONDS = 5.0
# A checkout waits for a read no longer than this, even while the file is being checkpointed.
READ_WAIT_SECONDS = 0.01


def connect(path: Path, *, read_only: bool = False, busy_seconds: float = BUSY_SECONDS) -> Any:
    """A connection in autocommit mode; durable to the disk on every commit."""
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten with zeros
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


def copy_file(source: Path, target: Path) -> None:
    """Copy a database as of one moment, whoever writes to it meanwhile, into one whole new file.
    Raises sqlite3.Error."""
    with closing(connect(source, read_only=True)) as read, closing(sqlite3.connect(target)) as made:
        read.backup(made)
        make_whole(made)


def make_whole(connection: sqlite3.Connection) -> None:
    """Let the file be all there is: nothing in a log beside it."""
    connection.execute("PRAGMA journal_mode=DELETE").fetchall()


class GroupCommitWriter(GroupWriter[sqlite3.Connection]):
    """The writer of one file."""

    def __init__(self, path: Path, schema: str = "") -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = connect(path)
        if schema:
            self._connection.executescript(f"BEGIN IMMEDIATE; {schema} COMMIT;")
        super().__init__(path.stem)

    def _let_go(self) -> None:
        self._connection.close()

    def _commit(self, jobs: Sequence[Job[sqlite3.Connection, Any]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for job in jobs:
                job.future.set_exception(StoreError(f"the store could not write: {error}"))
            return
        for job in jobs:
            job.answer()

    def _by_itself(self, job: Job[sqlite3.Connection, Any]) -> None:
        try:
            job.future.set_result(job.work(self._connection))
        except sqlite3.Error as error:
            job.future.set_exception(StoreError(f"the store could not do it: {error}"))
        except Exception as error:
            job.future.set_exception(error)

    def _attempt(self, job: Job[sqlite3.Connection, Any]) -> None:
        """One piece of work inside the group; its failure undoes only itself."""
        self._connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._connection)
        except sqlite3.OperationalError:  # disk full, I/O error: the whole group fails
            raise
        except Exception as error:
            job.error = error
            self._connection.execute("ROLLBACK TO job")
        self._connection.execute("RELEASE job")
