"""An answer whose length is known leaves in one write; what must not wait for a body does not."""

import asyncio

import pytest
import uvicorn
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from serving.api.arrivals import StampingProtocol


class Written(asyncio.Transport):
    """A connection that notes what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.parts: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.parts.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def answered(app: ASGIApp, *requests: bytes, head_lines: bytes = b"") -> Written:
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    protocol = StampingProtocol(config, ServerState(), {})
    written = Written()
    protocol.connection_made(written)
    for request in requests:
        protocol.data_received(request + b" / HTTP/1.1\r\nhost: shop\r\n" + head_lines + b"\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    return written


async def test_head_and_body_are_one_write_each_time() -> None:
    written = await answered(Response("hello"), b"POST", b"GET")
    assert len(written.parts) == 2
    for one in written.parts:
        assert one.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-length: 5\r\n" in one
        assert one.endswith(b"\r\n\r\nhello")


async def test_an_answer_without_a_body_is_written_too() -> None:
    for method in (b"HEAD", b"GET"):
        (part,) = await _parts(Response(status_code=200), method)
        assert part.endswith(b"\r\n\r\n")
    parts = await _parts(Response(status_code=204), b"POST")
    assert parts[0].startswith(b"HTTP/1.1 204")
    assert b"".join(parts).endswith(b"\r\n\r\n")


async def test_a_stream_begins_before_its_first_part() -> None:
    came = asyncio.Event()

    async def parts() -> object:
        await came.wait()
        yield b"late"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(parts())(scope, receive, send)  # type: ignore[arg-type]

    written = await answered(app, b"GET")
    assert len(written.parts) == 1
    assert b"transfer-encoding: chunked" in written.parts[0]


async def test_who_waits_for_a_word_before_the_body_gets_it_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    lines = b"content-length: 3\r\nexpect: 100-continue\r\n"
    written = await answered(app, b"POST", head_lines=lines)
    assert written.parts == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_a_head_without_the_body_that_it_promised_is_written_and_the_connection_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    written = await answered(app, b"POST")
    assert written.closed
    assert len(written.parts) == 1
    assert b"content-length: 5" in written.parts[0]


async def _parts(app: ASGIApp, method: bytes) -> list[bytes]:
    return (await answered(app, method)).parts
