"""A gateway that is killed again and again in the middle of writing: what was answered is there,
and what callers send again because they had no answer counts once."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pyarrow as pa
import pytest

from contract import features
from contract.events import Event
from contract.features import FEATURES, SubjectState
from contract.frames import EVENT_SCHEMA, event_row, explode
from serving.settings import Settings, load_settings
from serving.state.event_log import Position
from serving.state.feature_store import FeatureStore
from serving.state.group_writer import StoreError
from serving.state.sealing import SubjectKeys
from serving.state.secrets import load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL
from serving.stores import OpenStores, open_stores
from tests.serving.commands.processes import Place, Served
from tests.serving.conftest import ALL
from tests.serving.release_factory import Factory

KILLS = 50 if os.environ.get("TILLWISE_PROVE") else 2
LOOKS = 5  # kills between two looks at the features
SENDERS, BATCH, VISITORS = 4, 25, 8
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Senders:
    """Callers that send batches until each was answered, again after every failure."""

    def __init__(self, key: str) -> None:
        self._headers = {"Authorization": f"Bearer {key}"}
        self._chance = random.Random(5)
        self.sent: dict[str, dict[str, Any]] = {}
        self.answered: set[str] = set()
        self._open: list[list[dict[str, Any]]] = []  # batches without an answer

    async def run(self, url: str) -> None:
        """Send until the gateway is gone."""
        async with httpx.AsyncClient(base_url=url, headers=self._headers, timeout=10) as client:
            await asyncio.gather(*(self._send(client) for _ in range(SENDERS)))

    async def _send(self, client: httpx.AsyncClient) -> None:
        while True:
            batch = self._open.pop() if self._open else self._fresh()
            if not await self._answered(client, batch):
                self._open.append(batch)
                return

    async def finish(self, url: str) -> None:
        """Send what had no answer yet."""
        async with httpx.AsyncClient(base_url=url, headers=self._headers, timeout=10) as client:
            while self._open:
                assert await self._answered(client, self._open.pop())

    async def _answered(self, client: httpx.AsyncClient, batch: list[dict[str, Any]]) -> bool:
        try:
            answer = await client.post("/v1/events", json={"events": batch})
        except httpx.HTTPError:
            return False
        if answer.status_code != 202:
            return False
        for one in answer.json()["results"]:
            assert one["status"] in ("accepted", "duplicate"), one
            self.answered.add(one["event_id"])
        return True

    def _fresh(self) -> list[dict[str, Any]]:
        batch = [self._event(len(self.sent) + n) for n in range(BATCH)]
        self.sent |= {one["event_id"]: one for one in batch}
        return batch

    def _event(self, number: int) -> dict[str, Any]:
        occurred = BEGIN + timedelta(seconds=self._chance.randrange(10**6))
        return {
            "schema_version": 2,
            "event_id": str(uuid4()),
            "event_name": self._chance.choice(("purchase", "view_item")),
            "occurred_at": occurred.isoformat(),
            "session_id": f"session-{number % 50}",
            "visitor_id": f"visitor-{number % VISITORS}",
            "items": [{"item_id": f"item-{self._chance.randrange(40)}"}],
            "transaction_id": f"t-{number}",
            "consent": ALL,
        }


@pytest.fixture(params=["files", "shared"])
def stores(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of the stores."""
    if request.param == "files":
        return {"event_log": "sqlite", "feature_store": "memory"}
    topic = f"kafka://{request.getfixturevalue('addresses')}/events-{uuid4()}"
    return {"event_log": topic, "feature_store": request.getfixturevalue("server").url}


@pytest.fixture
def place(release_root: Factory, tmp_path: Path) -> Place:
    return Place(release_root, tmp_path / "state")


@pytest.fixture
def key(place: Place) -> str:
    return place.call("keys", "create", "--role", "checkout").stdout.strip()


async def test_nothing_is_lost_and_nothing_counts_twice(
    place: Place, key: str, stores: dict[str, str]
) -> None:
    chance = random.Random(11)
    environment = {f"TILLWISE_{name.upper()}": value for name, value in stores.items()}
    settings = load_settings(state=place.state, **stores)
    senders, held = Senders(key), Held()
    for kill in range(KILLS):
        with place.gateway(**environment) as served:
            await until_killed(senders, served, chance.uniform(0.05, 0.8))
        held.read(settings)
        if kill % LOOKS == LOOKS - 1:
            await assert_counted(held, settings)
    with place.gateway(**environment) as served:
        await senders.finish(served.url)
    assert senders.answered == set(senders.sent)
    assert len(senders.sent) >= BATCH * KILLS
    held.read(settings)
    assert set(held.events) == set(senders.sent)
    assert not held.repeated or settings.event_log != "sqlite"
    await assert_counted(held, settings)


async def until_killed(senders: Senders, served: Served, seconds: float) -> None:
    sending = asyncio.create_task(senders.run(served.url))
    await asyncio.sleep(seconds)
    served.end(signal.SIGKILL)
    assert served.process.returncode == -signal.SIGKILL
    await sending


class Held:
    """What the log holds, read on after every kill: the mock brokers keep 5 MB of a partition and
    drop what is older. In a topic a batch that was cut off may follow once more, see there."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.repeated = 0
        self._position: Position = 0

    def read(self, settings: Settings) -> None:
        with opened(settings) as stores:
            found: list[str] = []
            for position, event in stores.event_log.read_from(self._position):
                self._position = position
                if event.event_name != "decision":
                    found.append(str(event.event_id))
                    self.repeated += found[-1] in self.events
                    self.events[found[-1]] = event
        assert len(found) == len(set(found))


@contextmanager
def opened(settings: Settings) -> Iterator[OpenStores]:
    """The stores as the gateway opens them, without the feed."""
    control = SqliteControlStore(settings.state / CONTROL, load_secrets(settings.state, None))
    stores = open_stores(settings, SubjectKeys(control))
    try:
        yield stores
    finally:
        stores.event_log.close()
        control.close()


async def assert_counted(held: Held, settings: Settings) -> None:
    """Features are what the events that were read lead to."""
    # Before the feed starts: it shares the loop with this.
    rows = [event_row(event) for event in held.events.values()]
    expected = features.replay(explode(pa.Table.from_pylist(rows, EVENT_SCHEMA)))
    assert len(expected) == VISITORS
    assert all(UUID(subject) for subject in expected)
    with opened(settings) as stores:
        if stores.feed is not None:
            stores.feed.start()
        try:
            async with asyncio.timeout(120):
                for subject, state in expected.items():
                    while not await holds(stores.features, subject, state):
                        await asyncio.sleep(0.1)
        finally:
            if stores.feed is not None:
                await stores.feed.stop()
            await stores.features.aclose()


async def holds(store: FeatureStore, subject: str, state: SubjectState) -> bool:
    """Not yet, where the store did not answer in time."""
    try:
        held = await store.read(subject)
    except StoreError:
        return False
    return all(
        np.array_equal(held.get(one.name, one.nothing), state.get(one.name, one.nothing))
        for one in FEATURES
    )
