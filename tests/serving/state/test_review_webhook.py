"""The webhook for review items against a receiver over real sockets that misbehaves: slow, 500, an
answer that is lost after the message was read, one that comes drop by drop, a redirect, an answer
without end."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contract.clock import FixedClock
from contract.errors import UserError
from serving.state import review_webhook
from serving.state.audit import Actor
from serving.state.review_items import GIVEN_UP_AFTER
from serving.state.review_webhook import ReviewWebhook, WebhookPlace
from serving.state.sql_control_store import SqlControlStore
from tests.serving.conftest import Start
from tests.serving.state.control_places import in_sqlite
from tests.serving.state.test_reviews import NOW, found

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver:
    """A shop's own system: checks each message as Standard Webhooks tells receivers to."""

    def __init__(self) -> None:
        self.url = ""
        self.faults: list[str] = []
        self.asked = 0
        self.told: dict[str, dict[str, Any]] = {}  # by id, so that repeats are dropped
        self.order: list[str] = []

    def take(self, headers: Any, body: bytes) -> None:
        """Raises AssertionError unless it is signed as it should be."""
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        made = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{made}"
        if headers["webhook-id"] not in self.told:
            self.told[headers["webhook-id"]] = json.loads(body)
            self.order.append(json.loads(body)["type"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    held = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return None

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            held.asked += 1
            fault = held.faults.pop(0) if held.faults else ""
            if fault == "slow":
                threading.Event().wait(1.0)
            if fault in ("", "lost", "endless"):
                held.take(self.headers, body)
            if fault in ("lost", "slow"):
                self.close_connection = True
                return
            if fault == "dripping":
                self._drip()
                return
            status = {"500": 500, "redirect": 307, "busy": 503}.get(fault, 204)
            self.send_response(200 if fault == "endless" else status)
            if fault == "redirect":
                self.send_header("location", f"{held.url}/elsewhere")
            if fault == "busy":
                self.send_header("retry-after", "120")
            self.send_header("content-length", "1000000000" if fault == "endless" else "0")
            self.end_headers()

        def _drip(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 204 No Content\r\n")
                for _ in range(100):  # ten seconds, of which none is silent
                    threading.Event().wait(0.1)
                    self.wfile.write(b"x-more: of it\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    held.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[SqlControlStore]:
    opened = in_sqlite(tmp_path).open(clock=clock)
    yield opened
    opened.close()


async def delivered(store: SqlControlStore, receiver: Receiver, clock: FixedClock) -> int:
    webhook = ReviewWebhook(store, WebhookPlace.of(receiver.url, SECRET), clock)
    try:
        return await webhook.deliver()
    finally:
        await webhook.aclose()


async def test_a_receiver_that_misbehaves_is_told_everything_in_order(
    store: SqlControlStore, receiver: Receiver, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_webhook, "_TIMEOUT_S", 0.3)
    (opened,) = await store.note_findings("kpi", [found()])
    await store.move_review(opened.review_id, "closed", Actor("anna", "admin"), note="known")
    receiver.faults = ["500", "slow", "dripping", "redirect", "lost", "endless", "500"]
    for _ in range(10):
        await asyncio.wait_for(delivered(store, receiver, clock), 8)
        clock.at += timedelta(minutes=20)
    assert receiver.order == ["review.opened", "review.closed"]
    first = next(iter(receiver.told.values()))
    assert first["data"]["review_id"] == opened.review_id
    assert first["data"]["finding"]["metric"] == "conversion"
    # 500, slow, dripping, redirect and lost come again, and then: the first without end, 500, the
    # second.
    assert receiver.asked == 8
    assert not store.review_messages_due()


async def test_retry_after_is_heeded_and_a_day_is_enough(
    store: SqlControlStore, receiver: Receiver, clock: FixedClock
) -> None:
    await store.note_findings("kpi", [found()])
    receiver.faults = ["busy"] + ["500"] * 200
    await delivered(store, receiver, clock)
    clock.at += timedelta(seconds=119)
    assert await delivered(store, receiver, clock) == 0
    assert receiver.asked == 1
    clock.at += timedelta(seconds=1)
    await delivered(store, receiver, clock)
    assert receiver.asked == 2
    clock.at += GIVEN_UP_AFTER
    await delivered(store, receiver, clock)
    assert receiver.asked == 3
    clock.at += timedelta(days=1)
    assert await delivered(store, receiver, clock) == 0
    assert (receiver.asked, receiver.told) == (3, {})


async def test_a_gateway_tells_it_without_being_asked(start: Start, receiver: Receiver) -> None:
    running = await start(review_webhook_url=receiver.url, review_webhook_secret=SECRET)
    await running.gateway.control.note_findings(
        "kpi", [found(since=datetime(2017, 11, 20, tzinfo=UTC))]
    )
    for _ in range(100):
        if receiver.told:
            break
        await asyncio.sleep(0.05)
    assert receiver.order == ["review.opened"]


@pytest.mark.parametrize(
    ("url", "secret", "said"),
    [
        ("http://shop.example/hook", SECRET, "use https"),
        ("ftp://shop.example/hook", SECRET, "send https"),
        ("https://", SECRET, "send https"),
        ("https://[::1", SECRET, "is not an address"),
        ("https://a:b@shop.example/", SECRET, "no password"),
        ("https://shop.example/hook", "c2hvcnQ=", "24 to 64 random bytes"),
        ("https://shop.example/hook", "", "24 to 64 random bytes"),
        ("https://shop.example/hook", "not base64!", "24 to 64 random bytes"),
    ],
)
async def test_settings_that_are_wrong(start: Start, url: str, secret: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        WebhookPlace.of(url, secret)
    with pytest.raises(UserError, match=said), suppress(StopAsyncIteration):
        await start(review_webhook_url=url, review_webhook_secret=secret)


@pytest.mark.parametrize("url", ["https://shop.example/x", "http://localhost:1/", "http://[::1]/"])
def test_settings_that_are_right(url: str) -> None:
    assert WebhookPlace.of(url, SECRET).secret == KEY
    assert SECRET[6:] not in repr(WebhookPlace.of(url, SECRET))


def test_the_signature_of_the_specification() -> None:
    """The example of Standard Webhooks' own libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = review_webhook.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
