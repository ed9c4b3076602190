"""A server whose every answer is known: the generator's figures can be checked against it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BODY = b'{"recommendations":[{"item_id":"item-1"}],"degraded":[],"rung":"full"}'


@dataclass(frozen=True)
class Answer:
    """How one request is answered: after `delay` seconds, with `status`; 0 hangs up instead.

    `stall` seconds hold up everything; `closes` ends the connection afterwards without a word.
    """

    delay: float = 0.0
    status: int = 200
    stall: float = 0.0
    closes: bool = False
    body: bytes = BODY
    headers: str = ""  # more of them, each line ended


Plan = Callable[[int], Answer]


class TinyServer:
    """Answers the n-th request as `plan(n)` says."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.port = 0
        self.requests = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, started: threading.Event, ended: asyncio.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await ended.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answered(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        answer = self._plan(self.requests)
        self.requests += 1
        time.sleep(answer.stall)
        await asyncio.sleep(answer.delay)
        if answer.status == 0:
            return False
        length = len(answer.body)
        told = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {length}\r\n{answer.headers}\r\n"
        writer.write(told.encode())
        writer.write(answer.body)
        await writer.drain()
        return not answer.closes


@contextmanager
def serving(plan: Plan) -> Iterator[TinyServer]:
    """A server in a thread of its own."""
    server = TinyServer(plan)
    started = threading.Event()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ended = asyncio.Event()
        thread = threading.Thread(target=lambda: runner.run(server.serve(started, ended)))
        thread.start()
        assert started.wait(10)
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(10)
