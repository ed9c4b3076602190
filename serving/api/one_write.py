"""Answers in one write. uvicorn writes head and body one after the other: two calls of the system
and two packets, where the interpreter's lock changes hands both times. And it looks through every
header for line breaks: an answer that is known as a whole may be handed over as it is written.
"""

from asyncio import Transport
from typing import Final

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# The type of a message with a whole answer of status 200: its `body`, and its `head`, which are the
# lines of its headers as they are written, `content-length` among them. Only whoever finds this
# name in a scope's state may send one.
WHOLE: Final = "tillwise.whole"


class OneWrite(Transport):
    """The transport of one answer: the head of one whose length is known waits for its body, which
    comes at once."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        super().__init__()
        self._cycle, self._transport = cycle, cycle.transport
        self._head: bytes | None = b""  # None once it was written

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See Transport."""
        # Before the answer there may be a 100 Continue, which must not wait.
        if self._head is None or not self._cycle.response_started:
            self._transport.write(data)
        elif not self._head and self._cycle.chunked_encoding is False:
            self._head = bytes(data)
        else:
            head, self._head = self._head, None
            self._transport.write(head + data)

    def close(self) -> None:
        """See Transport."""
        if self._head:  # no body will come
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        """See Transport."""
        return self._transport.is_closing()


def sends_whole(cycle: RequestResponseCycle) -> Send:
    """What sends an answer of `cycle`, piece by piece or as a WHOLE."""
    piecewise: Send = cycle.send  # type: ignore[assignment]

    async def send(message: Message) -> None:
        if message["type"] != WHOLE:
            await piecewise(message)
            return
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if not cycle.disconnected:
            _write(cycle, message["head"], message["body"])

    return send


def _write(cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
    """As `RequestResponseCycle.send` does it in two steps."""
    assert not cycle.response_started, "it was answered before"
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    usual = [b"%b: %b\r\n" % (name, value) for name, value in cycle.default_headers]
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    cycle.transport.write(b"".join((b"HTTP/1.1 200 OK\r\n", *usual, head, end, body)))
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
