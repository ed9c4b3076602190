"""Who takes their time holds no connection for ever, over real sockets."""

import asyncio
import json

import pytest
from starlette.types import Receive, Scope, Send

from tests.serving.api.test_early_refusal import Watching, listening
from tests.serving.conftest import Running, event

PATIENCE_S = 0.5


async def until_closed(port: int, *parts: bytes, then: bytes = b"") -> bytes:
    """Everything that is answered to `parts`, and to `then` over and over, until the other side
    closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.02)
    answer = asyncio.create_task(_everything(reader))
    while not answer.done():
        writer.write(then)
        await asyncio.wait((answer,), timeout=0.02)
    writer.close()
    return answer.result()


async def _everything(reader: asyncio.StreamReader) -> bytes:
    told = b""
    try:
        while part := await reader.read(65_536):
            told += part
    except ConnectionResetError:  # it was closed while a byte was on its way
        pass
    return told


def events_request(running: Running, connection: str = "close") -> tuple[bytes, bytes]:
    """Head and body."""
    body = json.dumps({"events": [event()]}).encode()
    head = (
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {running.keys['checkout']}\r\n"
        f"Connection: {connection}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


@pytest.mark.parametrize("then", [b"", b" "], ids=["silent", "byte by byte"])
async def test_a_slow_body_is_answered_408(running: Running, then: bytes) -> None:
    head, body = events_request(running, "keep-alive")
    head = head.replace(str(len(body)).encode(), b"1000000")
    async with listening(running.app, PATIENCE_S) as port:
        answer = await until_closed(port, head, body[:20], then=then)
    assert answer.startswith(b"HTTP/1.1 408 ")
    lines, _, said = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in lines
    assert json.loads(said)["status"] == 408
    assert running.logged() == []


async def test_a_body_in_parts_is_taken_when_it_comes_in_time(running: Running) -> None:
    head, body = events_request(running)
    async with listening(running.app) as port:
        answer = await until_closed(port, head[:30], head[30:], body[:9], body[9:])
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert len(running.logged()) == 1


@pytest.mark.parametrize(
    ("parts", "then", "answer"),
    [
        ((), b"", b""),  # never used
        ((b"GET / HT",), b"", b"HTTP/1.1 408 "),
        ((b"GET / HTTP/1.1\r\nHost: x\r\nX-More: ",), b"x", b"HTTP/1.1 408 "),
        ((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",), b"\r\n", b"HTTP/1.1 204 "),
        # A body that nobody reads: it is answered at once, and the rest of it is not awaited.
        ((b"PUT / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n",), b"x", b"HTTP/1.1 204 "),
        # Half a request behind one that was answered.
        ((b"GET / HTTP/1.1\r\n\r\nGET / HT",), b"", b"HTTP/1.1 204 "),
    ],
)
async def test_nothing_is_waited_for_without_end(
    parts: tuple[bytes, ...], then: bytes, answer: bytes
) -> None:
    async with listening(Watching(), PATIENCE_S) as port:
        assert (await until_closed(port, *parts, then=then)).startswith(answer)


async def test_an_answer_may_take_as_long_as_it_does() -> None:
    app = Watching(pause_s=3 * PATIENCE_S)
    async with listening(app, PATIENCE_S) as port:
        answer = await until_closed(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert answer.count(b"HTTP/1.1 408 ") == 1  # the half request behind it, in its own turn


async def test_a_connection_that_is_used_stays() -> None:
    async def ok(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with listening(ok, PATIENCE_S) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(4):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
            await asyncio.sleep(PATIENCE_S / 2)
        writer.close()
