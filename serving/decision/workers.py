"""The few threads on which a decision computes, so that the event loop only waits."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from serving.decision.admission import Place
from serving.inference.release import compute_single_threaded

T = TypeVar("T")


class Workers:
    """A small pool. Work that nobody waits for any more is not begun; if it runs already it cannot
    be stopped, and it keeps its decision's place until it ends."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name, compute_single_threaded)
        self._threads = threads
        self._begun: set[Future[Any]] = set()  # not ended yet

    @property
    def busy(self) -> bool:
        """Whether more work would have to wait."""
        return len(self._begun) >= self._threads

    async def run(self, place: Place, work: Callable[[], T]) -> T:
        """What `work` returns or raises."""
        place.hold()
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            place.drop()
            raise

        def ended(future: Future[T]) -> None:
            self._begun.discard(future)
            place.drop()

        self._begun.add(future)
        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
