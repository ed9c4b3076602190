"""A lean HTTP/1.1 client for load: one protocol object per kept-alive connection, no task and no
future per request, so that the generator takes as little as it can from what it measures."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from contract.errors import UserError

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
BROKEN = 0  # the status of an exchange that got no whole answer
# A server may close an idle connection in the very moment it is used again. That is no failure, but
# only after a rest: whoever hangs up on a connection in use has failed.
_RESTED_SECONDS = 1.0


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    path: str
    secure: bool
    key: str | None

    @classmethod
    def of(cls, url: str, path: str, key: str | None) -> "Target":
        """`path` at the server that `url` names. Raises UserError."""
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            raise UserError(f"{url!r} is not a URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r} is not a URL; write http://127.0.0.1:8080")
        secure = parts.scheme == "https"
        whole = parts.path.rstrip("/") + path
        return cls(parts.hostname, port or (443 if secure else 80), whole, secure, key)

    def request(self, body: bytes, path: str | None = None) -> bytes:
        """The bytes of a POST of `body` to `path`, by default the target's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"POST {path or self.path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        if self.key is not None:
            lines.append(f"Authorization: Bearer {self.key}")
        return "\r\n".join(lines).encode() + _HEAD_END + body


@dataclass(frozen=True)
class Request:
    """What is asked: a body, its path where it is not the target's, and the kind that it counts as.
    `renew` makes of its body and the number of a later turn the one to be sent then, where the same
    would be a repetition."""

    body: bytes
    path: str | None = None
    kind: str | None = None
    renew: Callable[[bytes, int], bytes] | None = None


@dataclass
class Exchange:
    """One request on its way. Times are the loop's, in seconds."""

    number: int
    scheduled: float
    payload: bytes
    lag: float = 0.0
    deadline: float = 0.0
    resent: bool = False
    over: bool = False
    head: bytes = b""  # of the answer, each line ended


# Told once per exchange: its status (BROKEN without a whole answer) and the answer's body.
Ended = Callable[[Exchange, int, bytes], None]


class _Connection(asyncio.Protocol):
    """One kept-alive connection; at most one exchange at a time."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._clock = asyncio.get_running_loop().time
        self._rests_since = self._clock()
        self._rested = 0.0
        self.exchange: Exchange | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def send(self, exchange: Exchange) -> None:
        """Write the request out."""
        assert self._transport is not None
        assert self.exchange is None
        self.exchange = exchange
        self._rested = self._clock() - self._rests_since
        self._transport.write(exchange.payload)

    def abort(self) -> None:
        """Close without ado."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            return
        head = bytes(self._buffer[: head_end + 2])
        body_at = head_end + len(_HEAD_END)
        length = _LENGTH.search(head)
        if length is not None:
            whole = len(self._buffer) - body_at >= int(length.group(1))
        elif _CHUNKED.search(head):
            whole = self._buffer.endswith(b"0\r\n\r\n")
        else:
            return  # ends with the connection, which no gateway of ours does
        if whole:
            self._answered(head, bytes(self._buffer[body_at:]))

    def _answered(self, head: bytes, body: bytes) -> None:
        status, closes = int(head[9:12]), _CLOSES.search(head)
        exchange, self.exchange = self.exchange, None
        self._buffer.clear()
        self._rests_since = self._clock()
        if closes is not None:
            self.abort()
        if exchange is not None:
            exchange.head = head
            self._pool.answered(self, exchange, status, body)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        exchange, self.exchange = self.exchange, None
        stale = self._rested >= _RESTED_SECONDS and not self._buffer
        self._pool.lost(self, exchange, stale=stale)


class Pool:
    """At most `size` connections to `target`; what finds none free waits, and its clock runs."""

    def __init__(self, target: Target, size: int, ended: Ended) -> None:
        self._target = target
        self._size = size
        self._ended = ended
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[Exchange] = deque()
        self._secure = ssl.create_default_context() if target.secure else None
        self.waited = 0  # exchanges that found no connection free
        self.resent = 0  # exchanges that met a connection being closed

    async def open(self, number: int) -> None:
        """Open some connections in advance. Raises OSError."""
        self._idle += [await self._connect() for _ in range(min(number, self._size))]

    def submit(self, exchange: Exchange) -> None:
        """Send it now, or as soon as a connection is free."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                connection.send(exchange)
                return
        self.waited += 1
        self._wait(exchange)

    def expire(self, now: float) -> None:
        """Give up what has waited for its answer beyond its deadline."""
        for connection in list(self._all):
            late = connection.exchange
            if late is not None and late.deadline < now:
                connection.exchange = None
                connection.abort()
                self._end(late, BROKEN, b"")
        while self._waiting and self._waiting[0].deadline < now:
            self._end(self._waiting.popleft(), BROKEN, b"")

    async def close(self) -> None:
        """Close every connection."""
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._all):
            connection.abort()

    def answered(
        self, connection: _Connection, exchange: Exchange, status: int, body: bytes
    ) -> None:
        """An answer came."""
        self._end(exchange, status, body)
        if connection.open:
            self._use(connection)

    def lost(self, connection: _Connection, exchange: Exchange | None, *, stale: bool) -> None:
        """A connection is gone, perhaps with an exchange on it."""
        self._all.discard(connection)
        if exchange is None:
            return
        if stale and not exchange.resent:
            exchange.resent = True
            self.resent += 1
            self._wait(exchange)
        else:
            self._end(exchange, BROKEN, b"")

    def _wait(self, exchange: Exchange) -> None:
        self._waiting.append(exchange)
        if len(self._all) + len(self._opening) < self._size:
            task = asyncio.get_running_loop().create_task(self._open_one())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open_one(self) -> None:
        try:
            self._use(await self._connect())
        except OSError:
            if self._waiting:
                self._end(self._waiting.popleft(), BROKEN, b"")

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self), self._target.host, self._target.port, ssl=self._secure
        )
        self._all.add(connection)
        return connection

    def _use(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _end(self, exchange: Exchange, status: int, body: bytes) -> None:
        assert not exchange.over
        exchange.over = True
        self._ended(exchange, status, body)
