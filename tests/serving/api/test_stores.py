"""Gateways with the stores that several of them share: Kafka for events, Valkey for features."""

import asyncio
import json
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from benchmarks.valkey_process import ValkeyServer
from contract.errors import UserError
from serving.settings import load_settings
from serving.state.sealing import SubjectKeys
from serving.stores import open_stores
from tests.serving.conftest import Running, Start, event, purchase
from tests.serving.state.stores import control_of


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[SubjectKeys]:
    with control_of(tmp_path) as control:
        yield SubjectKeys(control)


@pytest.fixture(params=["sqlite", "kafka"])
def log_url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite"
    return f"kafka://{request.getfixturevalue('addresses')}/events-{uuid4()}"


async def until(found: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    began = time.monotonic()
    while not await found():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.05)


async def subject_of(running: Running) -> str:
    return str(running.logged()[-1].subject_id)


async def test_what_is_sent_reaches_the_features(
    start: Start, log_url: str, server: ValkeyServer
) -> None:
    running = await start(event_log=log_url, feature_store=server.url)
    answer = await running.post("/v1/events", {"events": [purchase("item-3"), event()]})
    assert [one["status"] for one in answer.json()["results"]] == ["accepted"] * 2, answer.text
    subject = await subject_of(running)

    async def there() -> bool:
        state = await running.gateway.features.read(subject)
        return len(state.get("purchases", ())) == 1 and len(state["recent_interactions"]) == 2

    await until(there)
    said = (await running.decide()).json()
    assert said["degraded"] == []
    ready = (await running.client.get("/readyz")).json()
    assert ready["status"] == "ready"
    assert "degraded" not in ready
    metrics = (await running.client.get("/metrics")).text
    applied = re.search(r"^tillwise_features_applied_events (\S+)$", metrics, re.MULTILINE)
    assert applied is not None
    assert float(applied[1]) >= 2
    behind = re.search(r"^tillwise_features_behind_seconds (\S+)$", metrics, re.MULTILINE)
    assert behind is not None
    assert 0 <= float(behind[1]) < 10


async def test_memory_over_a_topic_is_whole_after_a_restart(start: Start, addresses: str) -> None:
    url = f"kafka://{addresses}/events-{uuid4()}"
    first = await start(event_log=url)
    await first.post("/v1/events", {"events": [purchase("item-3"), event()]})
    subject = await subject_of(first)

    async def there() -> bool:
        return len(await first.gateway.features.read(subject)) > 0

    await until(there)
    await first.stop()
    again = await start(event_log=url)
    state = await again.gateway.features.read(subject)
    assert len(state["purchases"]) == 1
    assert len(state["recent_interactions"]) == 2


async def test_without_its_feature_store_a_gateway_decides_and_says_so(
    start: Start, log_url: str, server: ValkeyServer
) -> None:
    running = await start(event_log=log_url, feature_store=server.url)
    await running.post("/v1/events", {"events": [event()]})
    assert (await running.decide()).json()["degraded"] == []
    server.signal(signal.SIGSTOP)
    for _ in range(8):
        began = time.monotonic()
        answer = await running.decide(deadline_ms=200)
        assert answer.status_code == 200
        assert "features" in answer.json()["degraded"]
        assert answer.json()["recommendations"]
        assert time.monotonic() - began < 1
    sent = await running.post("/v1/events", {"events": [purchase("item-4")]})
    assert sent.status_code == 202

    async def told() -> bool:
        said = (await running.client.get("/readyz")).json()
        return "features: " in json.dumps(said.get("degraded", []))

    await until(told)
    server.signal(signal.SIGCONT)

    async def back() -> bool:
        said = (await running.decide()).json()
        state = await running.gateway.features.read(await subject_of(running))
        return said["degraded"] == [] and len(state.get("purchases", ())) == 1

    await until(back, seconds=5)


async def test_a_decision_of_one_gateway_knows_what_another_one_heard(
    start: Start, server: ValkeyServer, addresses: str
) -> None:
    """Both have the same control store, which alone has the keys to what is shared."""
    shared = {"event_log": f"kafka://{addresses}/events-{uuid4()}", "feature_store": server.url}
    one = await start(**shared)
    await one.post("/v1/events", {"events": [purchase("item-3")]})
    subject = await subject_of(one)
    other = await start(**shared)

    async def there() -> bool:
        return len(await other.gateway.features.read(subject)) > 0

    await until(there)


@pytest.mark.parametrize(
    ("named", "wrong"),
    [
        ("event_log", "kafka://"),
        ("event_log", "postgres://here/topic"),
        ("event_log", "kafka://user:secret@here:9092/topic"),
        ("feature_store", "redis"),
        ("feature_store", "valkey://"),
        ("feature_store", "valkey://here:6379/notanumber"),
        ("feature_store", "valkey://:secret@here:6379/0"),
        ("feature_store", "valkey+cluster://here:6379/3"),
    ],
)
def test_what_is_no_place_is_said_in_one_line(tmp_path: Path, named: str, wrong: str) -> None:
    with control_of(tmp_path) as control, pytest.raises(UserError) as told:
        open_stores(load_settings(state=tmp_path, **{named: wrong}), SubjectKeys(control))
    assert str(told.value).startswith(named.replace("_", " "))
    assert "secret" not in str(told.value)


async def test_secrets_of_stores_are_never_shown() -> None:
    shown = repr(load_settings(kafka_password="hidden-1", valkey_password="hidden-2"))
    assert "hidden" not in shown


async def test_a_server_that_asks_for_a_password_gets_it(
    tmp_path: Path, server: ValkeyServer, keys: SubjectKeys
) -> None:
    assert server.ask(b"CONFIG", b"SET", b"requirepass", b"word") == b"+OK"
    settings = load_settings(state=tmp_path, feature_store=server.url, valkey_password="word")
    stores = open_stores(settings, keys)
    await stores.features.check()
    await stores.features.aclose()
    stores.event_log.close()
