"""A real gateway over a tiny real release, for everything that speaks HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import limits.aio.storage.memory
import pytest
from fastapi import FastAPI

from contract.clock import FixedClock
from serving.api.auth import digest_of_key, new_key
from serving.api.gateway import Gateway
from serving.app import create_app
from serving.opening import open_gateway
from serving.settings import Settings
from serving.state.control_records import Role
from tests.serving.release_factory import Factory

NOON = datetime(2017, 11, 20, 12, tzinfo=UTC)
MOMENT_S = NOON.timestamp()
ALL = {"personalization": True, "analytics": True, "offers": True}


@dataclass
class Running:
    """A gateway behind an HTTP client."""

    gateway: Gateway
    app: FastAPI
    client: httpx.AsyncClient
    clock: FixedClock
    keys: dict[Role, str]
    lifespan: AbstractAsyncContextManager[Any]
    stopped: bool = False

    async def stop(self) -> None:
        """Shut down as the server does on SIGTERM."""
        if not self.stopped:
            self.stopped = True
            await self.client.aclose()
            await self.lifespan.__aexit__(None, None, None)

    def bearer(self, role: Role | None = "checkout") -> dict[str, str]:
        """Headers with the key of `role`."""
        return {} if role is None else {"Authorization": f"Bearer {self.keys[role]}"}

    async def post(
        self,
        path: str,
        body: Any,
        role: Role | None = "checkout",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """POST `body` (an object, or raw bytes) as JSON."""
        raw = {"content": body} if isinstance(body, bytes) else {"json": body}
        sent = {"content-type": "application/json"} | self.bearer(role) | dict(headers or {})
        return await self.client.post(path, headers=sent, **raw)

    async def decide(self, **changed: Any) -> httpx.Response:
        """A plain checkout with some fields changed."""
        return await self.post("/v1/checkout/decide", checkout(**changed))

    async def quiet(self) -> None:
        """Wait until everything that goes on after the answers has been written."""
        await self.gateway.impressions.drain()

    def logged(self) -> list[Any]:
        """The events of the log, oldest first."""
        return [event for _, event in self.gateway.event_log.read_from(0)]


Start = Callable[..., Awaitable[Running]]
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def checkout(**changed: Any) -> dict[str, Any]:
    """The body of a plain checkout."""
    body = {
        "visitor_id": "visitor-raw-1",
        "session_id": "session-1",
        "cart": {
            "cart_id": "cart-1",
            "currency": "USD",
            "items": [{"item_id": "item-1", "quantity": 1, "price": 101}],
        },
        "deadline_ms": 1_000,
    }
    return body | changed


def event(**changed: Any) -> dict[str, Any]:
    """The body of a plain event, with an id of its own."""
    body = {
        "event_id": str(uuid4()),
        "event_name": "view_item",
        "occurred_at": "2017-11-20T11:00:00Z",
        "session_id": "session-1",
        "visitor_id": "visitor-raw-1",
        "items": [{"item_id": "item-3"}],
        "consent": ALL,
    }
    return body | changed


def purchase(*item_ids: str, **changed: Any) -> dict[str, Any]:
    """The body of a purchase."""
    items = [{"item_id": item_id, "quantity": 1, "price": 100} for item_id in item_ids]
    return event(event_name="purchase", transaction_id="t-1", items=items) | changed


@pytest.fixture(scope="session")
def release_root(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """A tiny release that no test changes."""
    factory = Factory(tmp_path_factory.mktemp("release"))
    factory.write()
    return factory


@pytest.fixture
async def start(release_root: Factory, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts gateways on one state folder; all are shut down at the end of the test."""
    started: list[Running] = []

    async def start_one(clock: FixedClock | None = None, **settings: Any) -> Running:
        clock = clock or FixedClock(NOON)
        usual: dict[str, Any] = {
            "releases": release_root.releases_dir,
            "models": release_root.models_dir,
            "state": tmp_path / "state",
            "identity_wait_ms": 1_000,
        }
        chosen = Settings(**(usual | settings))
        gateway = await open_gateway(chosen, clock)
        app = create_app(gateway)
        lifespan = app.router.lifespan_context(app)
        await lifespan.__aenter__()
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers={"User-Agent": BROWSER}
        )
        keys: dict[Role, str] = {}
        for role in ("checkout", "collect", "admin"):
            keys[role], key = new_key(role, clock.now(), gateway.secrets)
            await gateway.control.add_key(key, digest_of_key(keys[role]))

        running = Running(gateway, app, client, clock, keys, lifespan)
        started.append(running)
        return running

    yield start_one
    for running in started:
        await running.stop()


@pytest.fixture
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits on pages see one moment: their windows end with the minutes of the wall clock, and
    where one ends in the middle of a test, one more request than the limit is let in."""
    monkeypatch.setattr(limits.aio.storage.memory, "time", SimpleNamespace(time=lambda: MOMENT_S))


@pytest.fixture
async def running(start: Start) -> Running:
    """One gateway at noon of 2017-11-20."""
    return await start()
