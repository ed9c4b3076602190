"""From the event log to a feature store that is not simply told of every event: one that several
gateways share, or one that hears what other gateways wrote.

Every event has its effect at least once, and twice is the same as once. How far the log has been
applied is noted in the store itself, after the features. So when the store is away nothing is kept
anywhere but in the log, and when it comes back with less than it had, its own note says from where
to go on; without a note it gets everything again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from serving.state.event_log import EventLog, Offsets, Tail
from serving.state.feature_store import FeatureStore
from serving.state.sqlite_writer import StoreError

log = logging.getLogger(__name__)

_AT_ONCE = 256
_WAIT_S, _UNPLACED_WAIT_S = 0.2, 0.02
_BEAT_S = 1.0  # how often the store is looked at when there is nothing to apply
_AGAIN_S = 0.25


class FeatureFeed:
    """Follows `event_log` and applies it to `store`, until it is stopped. `group`: which gateways
    share the work; None where each one needs everything. `before`: done
    before events are applied, whenever it is asked anew how far the store has come."""

    def __init__(
        self,
        event_log: EventLog,
        store: FeatureStore,
        *,
        group: str | None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._log = event_log
        self._store = store
        self._group = group
        self._before = before
        self._marks: dict[int, int | None] = {}  # as they stand in the store, as far as we know
        self._task: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._even_at = time.monotonic()
        self.problem: str | None = None
        self.applied = 0

    @property
    def behind_s(self) -> float:
        """For how long there has been something left to apply, as far as is known."""
        return time.monotonic() - self._even_at

    def start(self) -> None:
        """Begin to follow, in the running loop."""
        self._task = asyncio.create_task(self._run(), name="feature feed")

    async def stop(self) -> None:
        """End; what was not applied is applied after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        tail: Tail | None = None
        try:
            while True:
                try:
                    if tail is None:  # a log that is away can not be followed yet
                        tail = await asyncio.to_thread(self._log.tail, self._group)
                    await self._step(tail)
                    if self.problem is not None:
                        log.info("features are written again")
                        self.problem = None
                except StoreError as error:
                    self._failed(tail, str(error))
                    await asyncio.sleep(_AGAIN_S)
                except Exception as error:  # must not end: nobody else would apply anything
                    self._failed(tail, type(error).__name__)
                    log.exception("following the event log failed")
                    await asyncio.sleep(_AGAIN_S)
        finally:
            if tail is not None:
                await tail.close()

    def _failed(self, tail: Tail | None, problem: str) -> None:
        if self.problem is None:
            log.warning("features are not written: %s", problem)
        self.problem = problem
        if tail is not None:
            tail.rewind()

    async def _step(self, tail: Tail) -> None:
        events = await tail.take(_AT_ONCE, _UNPLACED_WAIT_S if tail.unplaced else _WAIT_S)
        if events:
            await self._store.absorb(events)
            self.applied += len(events)
        if tail.unplaced:
            await self._place(tail)
            return
        offsets = tail.offsets
        if self._moved(offsets) or time.monotonic() - self._looked_at > _BEAT_S:
            await self._note(tail, offsets)
        if len(events) < _AT_ONCE:
            self._even_at = time.monotonic()

    async def _place(self, tail: Tail) -> None:
        held = tail.unplaced
        marks = await self._store.marks(self._log.log_id, held)
        if self._before is not None:
            await self._before()
        self._marks = {part: marks.get(part) for part in held}
        await tail.place({part: marks.get(part, 0) for part in held})

    def _moved(self, offsets: Offsets) -> bool:
        return any(self._marks.get(part) != at for part, at in offsets.items() if at)

    async def _note(self, tail: Tail, offsets: Offsets) -> None:
        """Note in the store how far it has come; where the store says otherwise it has lost
        something, or another gateway has taken over: then ask it anew."""
        known = {part: at for part, at in offsets.items() if part in self._marks}
        moves = {part: (self._marks[part], at) for part, at in known.items() if at}
        refused: frozenset[int] = frozenset()
        if moves:
            refused = await self._store.advance(self._log.log_id, moves)
        else:
            await self._store.check()
        self._looked_at = time.monotonic()
        if refused:
            tail.rewind()
            return
        self._marks |= {part: at for part, at in known.items() if at}
        await tail.commit(known)
