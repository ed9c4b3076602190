"""Offers to speak another protocol, over real connections to a real gateway: they are ignored, and
the request is answered like any other."""

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.commands.processes import Place, Served
from tests.serving.conftest import checkout
from tests.serving.release_factory import Factory

DECIDE = "/v1/checkout/decide"
BODY = json.dumps(checkout()).encode()
# As Java's HttpClient sends them, and a browser.
OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    "HTTP2-Settings: AAEAAEAAAAIA\r\n",
    "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "two": "Upgrade: TLS/1.0, h2c\r\nConnection: keep-alive, upgrade\r\n",
}


@pytest.fixture(scope="module")
def place(release_root: Factory, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(release_root, tmp_path_factory.mktemp("upgrade") / "state")


@pytest.fixture(scope="module")
def key(place: Place) -> str:
    return place.call("keys", "create", "--role", "checkout").stdout.strip()


@pytest.fixture(scope="module")
def served(place: Place, key: str) -> Iterator[Served]:
    with place.gateway() as running:
        yield running


def connected(served: Served) -> socket.socket:
    port = int(served.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def head(key: str, offer: str = "", *, length: int = len(BODY), version: str = "1.1") -> bytes:
    return (
        f"POST {DECIDE} HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\n{offer}Content-Length: {length}\r\n\r\n"
    ).encode()


def answered(connection: socket.socket) -> tuple[int, bytes]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


@pytest.mark.parametrize("offer", OFFERS)
def test_the_body_is_read_and_the_connection_goes_on(served: Served, key: str, offer: str) -> None:
    with connected(served) as connection:
        for _ in range(2):
            connection.sendall(head(key, OFFERS[offer]) + BODY)
            status, said = answered(connection)
            assert (status, json.loads(said)["rung"]) == (200, "full")
        connection.sendall(head(key) + BODY)
        assert answered(connection)[0] == 200


@pytest.mark.parametrize("offer", OFFERS)
def test_in_pieces_of_any_size(served: Served, key: str, offer: str) -> None:
    whole = head(key, OFFERS[offer]) + BODY
    for cut in (len(whole) - len(BODY), len(whole) - len(BODY) - 1, 150, len(whole) - 3):
        with connected(served) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(whole[:cut])
            httpx.get(f"{served.url}/healthz")  # by now the first piece has been read
            connection.sendall(whole[cut:])
            assert answered(connection)[0] == 200, cut


def test_chunked_and_sent_in_one_go_with_others(served: Served, key: str) -> None:
    chunked = (
        head(key, OFFERS["h2c"]).replace(
            f"Content-Length: {len(BODY)}".encode(), b"Transfer-Encoding: chunked"
        )
        + f"{len(BODY):x}\r\n".encode()
        + BODY
        + b"\r\n0\r\n\r\n"
    )
    asked = [head(key) + BODY, chunked, head(key, OFFERS["websocket"]) + BODY, head(key) + BODY]
    with connected(served) as connection:
        connection.sendall(b"".join(asked))
        stream = connection.makefile("rb")
        for _ in asked:
            assert stream.readline().startswith(b"HTTP/1.1 200")
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            assert json.loads(stream.read(length))["rung"] == "full"


def test_an_old_client_is_not_kept_waiting(served: Served, key: str) -> None:
    with connected(served) as connection:
        connection.sendall(head(key, OFFERS["h2c"], version="1.0") + BODY)
        assert answered(connection)[0] == 200
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "wrong", ["CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_what_is_no_request_of_ours_is_refused(served: Served, wrong: str) -> None:
    with connected(served) as connection:
        connection.sendall(wrong.encode())
        assert answered(connection)[0] == 400
        assert connection.recv(1) == b""


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
def test_an_open_offer_does_not_disturb_the_end(
    release_root: Factory, tmp_path: Path, offer: str
) -> None:
    place = Place(release_root, tmp_path / "state")
    key = place.call("keys", "create", "--role", "checkout").stdout.strip()
    with place.gateway() as served, connected(served) as stranger, connected(served) as shop:
        stranger.sendall(head("nobody", OFFERS[offer], length=40) + b"x" * 40)
        assert answered(stranger)[0] == 401
        shop.sendall(head(key, OFFERS[offer]) + BODY[:50])
        httpx.get(f"{served.url}/healthz")  # by now the half request has arrived
        served.process.send_signal(signal.SIGTERM)
        shop.sendall(BODY[50:])
        assert answered(shop)[0] == 200
        log = served.end()
    assert served.process.returncode == 0
    assert "Traceback" not in log
