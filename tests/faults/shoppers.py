"""A gateway process under a steady stream of checkouts, and what it answered when."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.serving.commands.processes import Served
from tests.serving.conftest import checkout

RATE = 25.0


@dataclass
class Shoppers:
    """Checkouts at RATE per second; every answer with the moment it was asked for."""

    served: Served
    key: str
    answers: list[tuple[float, int, str]] = field(default_factory=list)

    async def shop(self) -> None:
        """Go on until cancelled; answers still under way are awaited."""
        tasks: set[asyncio.Task[None]] = set()
        headers = {"Authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(headers=headers, timeout=10, trust_env=False) as client:
            due = time.monotonic()
            try:
                while True:
                    task = asyncio.create_task(self._ask(client))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    due += 1 / RATE
                    await asyncio.sleep(max(due - time.monotonic(), 0))
            finally:
                await asyncio.gather(*tasks)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        began = time.monotonic()
        body = checkout(deadline_ms=300)
        try:
            answer = await client.post(f"{self.served.url}/v1/checkout/decide", json=body)
            self.answers.append((began, answer.status_code, answer.json().get("rung", "")))
        except httpx.HTTPError as error:
            self.answers.append((began, 0, repr(error)))

    def since(self, moment: float) -> set[str]:
        """Rungs of the answers to what was asked after `moment`; all of them must be 200."""
        return set(self._rungs(moment))

    def _rungs(self, moment: float) -> list[str]:
        self.all_answered()
        return [rung for began, _, rung in sorted(self.answers) if began >= moment]

    def all_answered(self) -> None:
        """Nobody was left without an answer."""
        wrong = [answer for answer in self.answers if answer[1] != 200]
        assert wrong == [], wrong[:5]

    async def sees(self, rung: str, seconds: float) -> None:
        """Wait until, of ten answers in a row to what is asked from now on, at least eight are of
        `rung`: a busy machine sheds one now and then. Fails after `seconds`."""
        began = time.monotonic()
        while True:
            rungs = self._rungs(began)
            if len(rungs) >= 10 and rungs[-10:].count(rung) >= 8:
                return
            assert time.monotonic() - began < seconds, f"no {rung} within {seconds} s: {rungs[-9:]}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def shopping(served: Served, key: str) -> AsyncIterator[Shoppers]:
    """The stream, for the block; at its end every answer must have been 200."""
    shoppers = Shoppers(served, key)
    task = asyncio.create_task(shoppers.shop())
    try:
        yield shoppers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    shoppers.all_answered()
