"""The load generator: open loop, so a slow answer never delays the requests after it, and every
latency runs from the moment at which the request was due, not from when it could be sent. Its own
lateness is measured as well: a generator that lags says nothing about the server."""

import asyncio
import gc
import os
import re
import selectors
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.http_client import BROKEN, Exchange, Pool, Request, Target
from benchmarks.latency import Latencies

LAG_LIMIT_MS = 2.0
_RUNG = re.compile(rb'"rung":\s*"(\w+)"')
_NOT_DEGRADED = re.compile(rb'"degraded":\s*\[\s*\]')
_SWEEP_SECONDS = 0.1
_LEAD_SECONDS = 0.05
_OPEN_FIRST = 8
_SUCCESS = (200, 202)
_REFUSED = 429
T = TypeVar("T")


@dataclass
class Samples:
    """What was seen of some requests; `kinds` are those that have a kind, once more by kind.

    `latencies` are of what was answered 2xx: a refusal is quick, and many would make a gateway that
    sheds look fast. How long the rest took until it failed is in `failures`."""

    latencies: Latencies = field(default_factory=Latencies)
    failures: Latencies = field(default_factory=Latencies)
    lags: Latencies = field(default_factory=Latencies)
    statuses: Counter[int] = field(default_factory=Counter)
    rungs: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    seconds: float = 0.0
    kinds: dict[str, "Samples"] = field(default_factory=dict)

    def add(self, latency: float, lag: float, status: int, body: bytes = b"") -> None:
        """One more request, in seconds; the rung of a decision is read from `body`."""
        (self.latencies if status in _SUCCESS else self.failures).add(latency)
        self.lags.add(lag)
        self.statuses[status] += 1
        if status == 200 and (rung := _RUNG.search(body)) is not None:
            self.rungs[rung.group(1).decode()] += 1
            self.degraded += _NOT_DEGRADED.search(body) is None

    @property
    def succeeded(self) -> int:
        """Requests that were answered 200 or, where they write, 202."""
        return sum(self.statuses[status] for status in _SUCCESS)

    @property
    def failed(self) -> int:
        """Requests that were not, for whatever reason."""
        return self.statuses.total() - self.succeeded

    @property
    def refused(self) -> int:
        """Requests that were told to come again (429)."""
        return self.statuses[_REFUSED]

    @property
    def errors(self) -> int:
        """Requests that neither were answered nor refused."""
        return self.failed - self.refused

    @property
    def lag_p99_ms(self) -> float:
        """How late the generator itself was."""
        return self.lags.milliseconds(99)

    @property
    def void(self) -> bool:
        """Whether the generator was too late for the latencies to mean anything."""
        return self.lag_p99_ms > LAG_LIMIT_MS

    def merge(self, other: "Samples") -> "Samples":
        """Both together."""
        kinds = {
            kind: self.kinds.get(kind, Samples()).merge(other.kinds.get(kind, Samples()))
            for kind in dict.fromkeys((*self.kinds, *other.kinds))
        }
        return Samples(
            self.latencies.merged(other.latencies),
            self.failures.merged(other.failures),
            self.lags.merged(other.lags),
            self.statuses + other.statuses,
            self.rungs + other.rungs,
            self.degraded + other.degraded,
            self.seconds + other.seconds,
            kinds,
        )

    def metrics(self) -> dict[str, list[float]]:
        """For a row of figures. The latencies are of what was answered 2xx; what was not has
        columns of its own."""
        answered = max(sum(self.rungs.values()), 1)
        shares = {
            f"rung_{name}": [number / answered] for name, number in sorted(self.rungs.items())
        }
        return {
            **{name: [ms] for name, ms in self.latencies.percentiles().items()},
            "mean_ms": [self.latencies.mean_ms()],
            "per_second": [self.succeeded / self.seconds if self.seconds else 0.0],
            "requests": [float(self.statuses.total())],
            "refused": [float(self.refused)],
            "errors": [float(self.errors)],
            **({"failed_p99_ms": [self.failures.milliseconds(99)]} if self.failed else {}),
            "lag_p99_ms": [self.lag_p99_ms],
            **shares,
            **({"degraded": [self.degraded / answered]} if self.rungs else {}),
        }


@dataclass(frozen=True)
class Options:
    """How the generator goes about it."""

    connections: int = 128
    timeout_seconds: float = 10.0


class Generator:
    """Sends `requests` in turn to `target` at the times of `planned`, and again from the first one
    on when they are fewer. A mere body goes to the target's own path."""

    def __init__(
        self,
        target: Target,
        requests: Sequence[bytes | Request],
        planned: Sequence[tuple[float, int]],
        options: Options,
    ) -> None:
        self._planned = planned
        self._requests = [Request(one) if isinstance(one, bytes) else one for one in requests]
        self._target = target
        self._payloads = [target.request(one.body, one.path) for one in self._requests]
        self._options = options
        self._pool = Pool(target, options.connections, self._ended)
        segments = max((number for _, number in planned), default=-1) + 1
        self.samples = [Samples() for _ in range(segments)]
        self._next = 0
        self._open = len(planned)
        self._began = 0.0
        self._done = asyncio.Event()

    @property
    def waited(self) -> int:
        """Requests that found every connection busy or not yet open."""
        return self._pool.waited

    async def run(self) -> list[Samples]:
        """The samples of every segment. Raises OSError when nobody listens."""
        await self._pool.open(_OPEN_FIRST)
        loop = asyncio.get_running_loop()
        self._began = loop.time() + _LEAD_SECONDS
        # A collection in the middle would look like the server's latency.
        gc.collect()
        gc.disable()
        try:
            if self._planned:
                loop.call_at(self._began + self._planned[0][0], self._fire)
            while self._open:
                try:
                    await asyncio.wait_for(self._done.wait(), _SWEEP_SECONDS)
                except TimeoutError:
                    self._pool.expire(loop.time())
        finally:
            gc.enable()
            await self._pool.close()
        return self.samples

    def _fire(self) -> None:
        """Send everything that is due, then sleep until the next one is."""
        loop = asyncio.get_running_loop()
        while self._next < len(self._planned):
            due = self._began + self._planned[self._next][0]
            now = loop.time()
            if due > now:
                loop.call_at(due, self._fire)
                return
            payload = self._payload(self._next)
            deadline = due + self._options.timeout_seconds
            exchange = Exchange(self._next, due, payload, now - due, deadline)
            self._next += 1
            self._pool.submit(exchange)

    def _payload(self, number: int) -> bytes:
        turn, place = divmod(number, len(self._payloads))
        renew = self._requests[place].renew
        if turn == 0 or renew is None:
            return self._payloads[place]
        request = self._requests[place]
        return self._target.request(renew(request.body, turn), request.path)

    def _kind(self, exchange: Exchange, status: int, body: bytes) -> str | None:
        """As what the exchange is counted apart."""
        return self._requests[exchange.number % len(self._requests)].kind

    def _ended(self, exchange: Exchange, status: int, body: bytes) -> None:
        latency = asyncio.get_running_loop().time() - exchange.scheduled
        seen = self.samples[self._planned[exchange.number][1]]
        seen.add(latency, exchange.lag, status, body)
        kind = self._kind(exchange, status, body)
        if kind is not None:
            seen.kinds.setdefault(kind, Samples()).add(latency, exchange.lag, status, body)
        self._open -= 1
        if self._open == 0:
            self._done.set()


def run_precisely(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a loop whose timers keep microseconds: epoll rounds up to whole milliseconds,
    which is half of what the generator may lag. Where the system lets it, this thread is woken
    before all others meanwhile."""
    with (
        _woken_first(),
        asyncio.Runner(
            loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
        ) as runner,
    ):
        return runner.run(work)


@contextmanager
def _woken_first() -> Iterator[None]:
    """A real-time priority for this thread alone: nothing that it starts inherits it."""
    try:
        policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (AttributeError, OSError):  # not this system's, or not without being root
        yield
        return
    try:
        yield
    finally:
        try:
            os.sched_setscheduler(0, policy, parameter)
        except OSError:  # who is not root may not have its children inherit again
            os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, parameter)


def describe_statuses(samples: Samples) -> str:
    """The statuses of what did not succeed, in words."""
    named = [
        f"{number} x {'no answer' if status == BROKEN else f'HTTP {status}'}"
        for status, number in sorted(samples.statuses.items())
        if status not in _SUCCESS
    ]
    return ", ".join(named)
