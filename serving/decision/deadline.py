"""The time a decision has, and the one way in which its stages may spend it."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar

from contract.errors import UserError
from serving.inference.breaker import Breaker
from serving.inference.time_left import within

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told about stages while they run; how long they took stands in the deadline."""

    def stage_span(self, name: str) -> AbstractContextManager[object]:
        """Wraps the stage `name`."""
        ...

    def stage_past(self, name: str, began: float, ended: float, wrong: str | None) -> None:
        """The stage `name` ran between two perf_counters, without a `stage_span`; `wrong` names
        the exception that ended it."""
        ...


_UNSEEN: AbstractContextManager[object] = nullcontext()


class Deadline:
    """Runs stages within what is left of `budget_ms` since `began` (a perf_counter; default: now).

    `degraded` names the stages that failed, in order; `timings_ms` says how long each one took.
    `crowded` says whether stages may be late for queueing only.
    """

    def __init__(
        self,
        budget_ms: float,
        observer: Observer | None = None,
        began: float | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.budget_ms = budget_ms
        self.degraded: list[str] = []
        self.timings_ms: dict[str, float] = {}
        self._observer = observer
        self.crowded = crowded
        self._began = time.perf_counter() if began is None else began

    def elapsed_ms(self) -> float:
        """Time since the beginning."""
        return (time.perf_counter() - self._began) * 1_000

    def remaining_ms(self) -> float:
        """What is left, never less than zero."""
        return max(self.budget_ms - self.elapsed_ms(), 0.0)

    def told_ms(self) -> dict[str, float]:
        """The time of each stage, and in all until now, as an answer says it."""
        told = {name: round(ms, 3) for name, ms in self.timings_ms.items()}
        told["total"] = round(self.elapsed_ms(), 3)
        return told

    def degrade(self, name: str) -> None:
        """Say that the stage `name` did not do its part."""
        if name not in self.degraded:
            self.degraded.append(name)

    async def stage(
        self,
        name: str,
        budget_ms: float,
        work: Callable[[], Awaitable[T]],
        fallback: T,
        *,
        reserve_ms: float = 0.0,
        breaker: Breaker | None = None,
    ) -> T:
        """What `work` returns, or `fallback` when it fails or takes longer than `budget_ms` or than
        what remains after `reserve_ms`, which later stages need.

        Only UserError (invalid input) and cancellation come out. With a `breaker` that is open
        nothing is tried.
        """
        allowed_ms = min(budget_ms, self.remaining_ms() - reserve_ms)
        if allowed_ms <= 0 or (breaker is not None and not breaker.allows()):
            self._over(name, 0.0, degraded=True)
            return fallback
        verdict: Callable[[], None] | None = breaker.abandoned if breaker is not None else None
        began, crowded = time.perf_counter(), self.crowded()
        degraded = True
        try:
            with self._span(name), within(allowed_ms / 1_000):
                async with asyncio.timeout(allowed_ms / 1_000):
                    outcome = await work()
            degraded = False
            verdict = breaker.succeeded if breaker is not None else None
            return outcome
        except TimeoutError:
            if breaker is not None:
                verdict = partial(breaker.late, allowed_ms, crowded=crowded or self.crowded())
        except UserError:
            degraded = False
            raise
        except Exception as error:
            verdict = breaker.failed if breaker is not None else None
            tell(name, error)
        except asyncio.CancelledError:
            degraded = False
            raise
        finally:
            if verdict is not None:
                verdict()
            self._over(name, time.perf_counter() - began, degraded=degraded)
        return fallback

    def inline(self, name: str, work: Callable[[], T], fallback: T) -> T:
        """The same for a short computation that does not wait and must run even when no time is
        left, because there is no answer without it."""
        began, degraded = time.perf_counter(), False
        try:
            if self._observer is None:
                return work()
            with self._observer.stage_span(name):
                return work()
        except UserError:
            raise
        except Exception as error:
            degraded = True
            tell(name, error)
        finally:
            self._over(name, time.perf_counter() - began, degraded=degraded)
        return fallback

    def at_once(self, name: str, work: Callable[[], Coroutine[Any, Any, T]], fallback: T) -> T:
        """The same for `work` that waits for nothing either, but is not tried where no time is
        left: without the timer of a `stage`, which costs more than most such work."""
        if self.remaining_ms() <= 0:
            self._over(name, 0.0, degraded=True)
            return fallback
        return self.inline(name, lambda: _finished(work()), fallback)

    def record(self, stages: Iterable[tuple[str, float, float, str | None]]) -> None:
        """Each of `stages` ran elsewhere between two perf_counters; the last value names what kept
        it from doing its part."""
        spent, observer = self.timings_ms, self._observer
        for name, began, ended, wrong in stages:
            if observer is not None:
                observer.stage_past(name, began, ended, wrong)
            spent[name] = spent.get(name, 0.0) + (ended - began) * 1_000
            if wrong is not None:
                self.degrade(name)

    def _over(self, name: str, seconds: float, *, degraded: bool) -> None:
        self.timings_ms[name] = self.timings_ms.get(name, 0.0) + seconds * 1_000
        if degraded:
            self.degrade(name)

    def _span(self, name: str) -> AbstractContextManager[object]:
        return _UNSEEN if self._observer is None else self._observer.stage_span(name)


def _finished(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    work.close()
    raise RuntimeError("it waits for something")


def tell(name: str, error: Exception) -> None:
    """Where it failed, without the message, which may hold what a caller sent."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].name}:{frames[-1].lineno}" if frames else "?"
    _log.warning("stage %s failed: %s in %s", name, type(error).__name__, where)
