"""An answer whose length is known leaves in one write; what must not wait for a body does not."""

import asyncio
import json

import httpx
import pytest
import uvicorn
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from serving.api.arrivals import StampingProtocol
from serving.api.one_write import WHOLE
from tests.serving.api.test_early_refusal import listening
from tests.serving.conftest import Running, checkout


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

    def pause_reading(self) -> None:
        """Nothing is read that was not given."""

    def resume_reading(self) -> None:
        """The same."""


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


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["state"][WHOLE]
    head = b"content-length: 5\r\nx-own: 1\r\n"
    await send({"type": WHOLE, "head": head, "body": b"hello"})


async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-length", b"5"), (b"x-own", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize("lines", [b"", b"connection: close\r\n", b"content-length: 0\r\n"])
async def test_a_whole_answer_is_written_as_its_pieces_would_be(lines: bytes) -> None:
    at_once = await answered(whole, b"POST", b"GET", head_lines=lines)
    piecewise = await answered(in_pieces, b"POST", b"GET", head_lines=lines)
    assert at_once.parts == piecewise.parts
    assert len(at_once.parts) == (1 if b"close" in lines else 2)


async def test_the_next_request_on_the_connection_is_begun_after_a_whole_answer() -> None:
    head = b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n"
    written = await answered(whole, head + head + b"GET")
    assert len(written.parts) == 3
    assert len(set(written.parts)) == 1


async def test_a_decision_has_the_headers_that_any_answer_has(running: Running) -> None:
    usual = await running.decide()
    async with (
        listening(running.app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        path = "/v1/checkout/decide"
        for _ in range(2):  # on one connection
            answer = await client.post(path, json=checkout(), headers=running.bearer())
            assert answer.status_code == 200
            assert json.loads(answer.content)["rung"] == usual.json()["rung"]
            own = {name: said for name, said in answer.headers.items() if name in usual.headers}
            expected = dict(usual.headers) | {"content-length": str(len(answer.content))}
            assert own == expected
        from_page = await client.post(
            path, json=checkout(), headers=running.bearer() | {"Origin": "https://shop.example"}
        )
    assert set(usual.headers) <= set(from_page.headers)
    metrics = (await running.client.get("/metrics", headers=running.bearer("admin"))).text
    counted = 'tillwise_http_requests_total{method="POST",route="/v1/checkout/decide",status="200"}'
    assert f"{counted} 4.0" in metrics


async def _parts(app: ASGIApp, method: bytes) -> list[bytes]:
    return (await answered(app, method)).parts
