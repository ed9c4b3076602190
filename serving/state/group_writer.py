"""Group commit: one thread owns the writing connection and commits whatever waits together, so that
one durable commit serves many callers."""

import queue
import threading
from abc import ABC, abstractmethod
from asyncio import wrap_future
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Connection = TypeVar("Connection")
Result = TypeVar("Result")

MAX_GROUP = 256


class StoreError(Exception):
    """The store could not do it. Nothing of the work was written, unless the store is another
    process that went away during the commit: then nobody knows, and asking again is right."""


class Job(Generic[Connection, Result]):
    """One piece of work that somebody waits for."""

    def __init__(self, work: Callable[[Connection], Result], *, alone: bool = False) -> None:
        self.work = work
        self.alone = alone
        self.future: Future[Result] = Future()
        self.result: Result | None = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Tell what came of it, now that it is durable."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class GroupWriter(ABC, Generic[Connection]):
    """Runs small pieces of work, each all-or-nothing, and answers after their common commit. What a
    commit is, and a piece of work by itself, is for the kind of database to say."""

    def __init__(self, name: str) -> None:
        self._waiting: queue.SimpleQueue[Job[Connection, Any] | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[Connection], Result], *, alone: bool = False
    ) -> "Future[Result]":
        """`work`'s result, once it is durable. Raises StoreError after `close`.

        `alone`: outside of any transaction, after all that was submitted before.
        """
        if self._closing:
            raise StoreError("the store is closed")
        job = Job(work, alone=alone)
        self._waiting.put(job)
        return job.future

    async def run(self, work: Callable[[Connection], Result], *, alone: bool = False) -> Result:
        """As `submit`, awaited."""
        return await wrap_future(self.submit(work, alone=alone))

    def close(self) -> None:
        """Finish what waits, then end the thread. May be called twice."""
        if not self._closing:
            self._closing = True
            self._waiting.put(None)
            self._thread.join()
            self._let_go()

    def _run(self) -> None:
        ended = False
        while not ended:
            group: list[Job[Connection, Any] | None] = [self._waiting.get()]
            while len(group) < MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            ended = None in group
            together: list[Job[Connection, Any]] = []
            for job in group:
                if job is None or not job.future.set_running_or_notify_cancel():
                    continue
                if job.alone:
                    self._commit_some(together)
                    together = []
                    self._by_itself(job)
                else:
                    together.append(job)
            self._commit_some(together)

    def _commit_some(self, jobs: Sequence[Job[Connection, Any]]) -> None:
        if jobs:
            self._commit(jobs)

    @abstractmethod
    def _commit(self, jobs: Sequence[Job[Connection, Any]]) -> None:
        """Do all of `jobs` in one transaction and answer each."""

    @abstractmethod
    def _by_itself(self, job: Job[Connection, Any]) -> None:
        """Do `job` outside of any transaction and answer it."""

    @abstractmethod
    def _let_go(self) -> None:
        """The thread has ended."""
