"""Group commit for SQLite: one thread owns the writing connection and commits whatever waits
together, so that a durable write costs one flush to disk for many callers."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

MAX_GROUP = 256
BUSY_SECONDS = 5.0


class StoreError(Exception):
    """The store could not do it; nothing of the work was written."""


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


class _Job(Generic[Result]):
    def __init__(self, work: Callable[[sqlite3.Connection], Result], *, alone: bool) -> None:
        self.work = work
        self.alone = alone
        self.future: Future[Result] = Future()
        self.result: Result | None = None
        self.error: BaseException | None = None


class GroupCommitWriter:
    """Runs small pieces of work, each all-or-nothing, and answers after their common commit."""

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = connect(path)
        self._connection.executescript(f"BEGIN IMMEDIATE; {schema} COMMIT;")
        self._waiting: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"writer-{path.stem}", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[sqlite3.Connection], Result], *, alone: bool = False
    ) -> "Future[Result]":
        """`work`'s result, once it is durable. Raises StoreError after `close`.

        `alone`: outside of any transaction, after all that was submitted before.
        """
        if self._closing:
            raise StoreError("the store is closed")
        job = _Job(work, alone=alone)
        self._waiting.put(job)
        return job.future

    async def run(
        self, work: Callable[[sqlite3.Connection], Result], *, alone: bool = False
    ) -> Result:
        """As `submit`, awaited."""
        return await asyncio.wrap_future(self.submit(work, alone=alone))

    def close(self) -> None:
        """Finish what waits, then end the thread. May be called twice."""
        if not self._closing:
            self._closing = True
            self._waiting.put(None)
            self._thread.join()
            self._connection.close()

    def _run(self) -> None:
        ended = False
        while not ended:
            group: list[_Job[Any] | None] = [self._waiting.get()]
            while len(group) < MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            ended = None in group
            together: list[_Job[Any]] = []
            for job in group:
                if job is None or not job.future.set_running_or_notify_cancel():
                    continue
                if job.alone:
                    self._commit(together)
                    together = []
                    self._by_itself(job)
                else:
                    together.append(job)
            self._commit(together)

    def _commit(self, jobs: list[_Job[Any]]) -> None:
        if not jobs:
            return
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
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)

    def _by_itself(self, job: _Job[Any]) -> None:
        try:
            job.future.set_result(job.work(self._connection))
        except sqlite3.Error as error:
            job.future.set_exception(StoreError(f"the store could not do it: {error}"))
        except Exception as error:
            job.future.set_exception(error)

    def _attempt(self, job: _Job[Any]) -> None:
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
