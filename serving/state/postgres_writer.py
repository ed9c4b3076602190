"""Writing to PostgreSQL by group commit: what waits shares one transaction, and so its round trips
and its flush. All gateways take turns by one lock (`postgres_changes.LOCK`)."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from serving.state.group_writer import GroupWriter, Job, StoreError
from serving.state.postgres_changes import LOCK
from serving.state.postgres_place import BoundConnection, PostgresPlace, PostgresSql, said

log = logging.getLogger(__name__)

LIMIT_SECONDS = 5.0
_AWAY_SECONDS = 0.5
_OURS = psycopg.errors.PipelineAborted  # something before it went wrong


class PostgresWriter(GroupWriter[PostgresSql]):
    """The writer of one process."""

    def __init__(self, place: PostgresPlace, committed: Callable[[BoundConnection], None]) -> None:
        """`committed` is called after every commit, before anybody is answered."""
        self._place = place
        self._committed = committed
        self._connection: BoundConnection | None = None
        self._away_until = 0.0
        super().__init__("postgresql")

    def _commit(self, jobs: Sequence[Job[PostgresSql, Any]]) -> None:
        try:
            self._transact(jobs)
        except Exception as error:
            if isinstance(error, psycopg.OperationalError) and not isinstance(error, _OURS):
                self._drop()
                self._fail(jobs, error)  # the server, not one of the pieces
                return
            self._end("ROLLBACK")
            if len(jobs) > 1:  # one of them is wrong, and the others must not suffer for it
                for job in jobs:
                    self._commit([job])
            elif isinstance(error, psycopg.Error):
                self._fail(jobs, error)
            else:
                jobs[0].future.set_exception(error)
        else:
            for job in jobs:
                job.answer()

    def _transact(self, jobs: Sequence[Job[PostgresSql, Any]]) -> None:
        connection = self._begun()
        with connection.pipeline() as pipeline:
            sql = PostgresSql(connection, pipeline)
            for job in jobs:
                job.result = job.work(sql)
            connection.execute("COMMIT")
        try:
            self._committed(connection)
        except (psycopg.Error, StoreError) as error:  # it is written all the same
            log.warning("a write was not read back: %s", said(error))
            self._drop()

    def _begun(self) -> BoundConnection:
        """A connection with a transaction under way that holds the lock. One that was idle when the
        server went is replaced; nothing was asked of it yet."""
        if self._connection is not None:
            try:
                self._connection.execute(f"BEGIN; {LOCK}")
                return self._connection
            except psycopg.OperationalError:
                self._drop()
        if time.monotonic() < self._away_until:
            raise psycopg.OperationalError("the server was not there a moment ago")
        try:
            self._connection = self._place.connect(LIMIT_SECONDS)
        except psycopg.OperationalError:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            raise
        self._connection.execute(f"BEGIN; {LOCK}")
        return self._connection

    def _by_itself(self, job: Job[PostgresSql, Any]) -> None:
        self._commit([job])  # nothing of ours can not be in a transaction

    def _fail(self, jobs: Sequence[Job[PostgresSql, Any]], error: Exception) -> None:
        for job in jobs:
            problem = StoreError(f"the control store could not write: {said(error)}")
            job.future.set_exception(problem)

    def _end(self, how: str) -> None:
        if self._connection is not None:
            try:
                self._connection.execute(how)
            except psycopg.Error:
                self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _let_go(self) -> None:
        self._drop()
