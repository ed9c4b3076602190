"""Impressions: what was shown, logged after the answer through a bounded queue. When the queue is
full an impression is lost and counted, never waited for."""

import asyncio
import logging
from collections.abc import Callable

from contract.consent import redact
from contract.events import Event
from serving.ingest.subjects import Subjects
from serving.state.event_log import EventLog

log = logging.getLogger(__name__)

_GROUP = 128
# How long the first of a group waits for more: a commit costs the same for one as for many, and
# nobody waits for it.
_GATHER_S = 0.02
_Offered = tuple[Callable[[], Event], frozenset[str]]


class ImpressionLog:
    """Writes `decision` events behind the traffic; `on_lost` is told how many were lost."""

    def __init__(
        self,
        subjects: Subjects,
        event_log: EventLog,
        capacity: int,
        on_lost: Callable[[int], None],
    ) -> None:
        self._subjects = subjects
        self._log = event_log
        self._writing: set[asyncio.Task[None]] = set()
        self._queue: asyncio.Queue[_Offered] = asyncio.Queue(capacity)
        self.lost = on_lost
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write, in the running loop."""
        self._task = asyncio.create_task(self._run(), name="impressions")

    def offer(self, make: Callable[[], Event], purposes: frozenset[str]) -> None:
        """Queue what may be written under `purposes` of the event that `make` will give: nothing
        without `analytics`. It is made when its group is written: the same code run several times
        at once takes half the time."""
        if "analytics" not in purposes:
            return
        try:
            self._queue.put_nowait((make, purposes))
        except asyncio.QueueFull:
            self.lost(1)

    async def write(self, event: Event, purposes: frozenset[str]) -> None:
        """Write what may be written of `event` under `purposes` now; durable when this returns.
        Raises StoreError."""
        kept = redact(event, purposes) if "analytics" in purposes else None
        if kept is not None:
            await self._start_writing([kept])

    def _start_writing(self, group: list[Event]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._write(group))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _write(self, group: list[Event]) -> None:
        """Write of `group` what is agreed to at this moment: it may have waited for a while."""
        agreed = self._subjects.as_agreed(group)
        kept = [event for event in agreed if event is not None and "analytics" in event.purposes]
        if kept:
            await self._log.append(kept)

    async def written(self) -> None:
        """Wait until nothing is being written of which consent was asked before now."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def drain(self) -> None:
        """Wait until all that was offered is written or lost."""
        await self._queue.join()

    async def stop(self) -> None:
        """Write what waits, then end."""
        if self._task is not None:
            await self.drain()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            group = [await self._queue.get()]
            await asyncio.sleep(_GATHER_S)
            while len(group) < _GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            events = self._made(group)
            try:
                await self._start_writing(events)
            except Exception as error:  # the answers are given; there is nobody left to tell
                self.lost(len(events))
                log.error("%d impressions were lost: %s", len(events), error)
            finally:
                for _ in group:
                    self._queue.task_done()

    def _made(self, group: list[_Offered]) -> list[Event]:
        events: list[Event] = []
        for make, purposes in group:
            try:
                event = redact(make(), purposes)
            except Exception:  # one that can not be made must not take the others along
                self.lost(1)
                log.exception("an impression could not be made")
            else:
                events += [] if event is None else [event]
        return events
