"""The rights of shoppers where events lie in Kafka and features in Valkey: neither gives up a
record for good (a topic keeps its messages, a server its append-only file), so what is left there
must say nothing and open under no key."""

import asyncio
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from benchmarks.valkey_process import ValkeyServer, valkey
from serving.ingest.retention import enforce
from serving.retention import Retention
from serving.state.audit import COMMAND_LINE
from serving.state.receipts import ReceiptSigner, verify
from serving.state.valkey_rows import key_of, log_key_of
from tests.serving.api.test_rights import erase, exported, read, rows_of, shopped
from tests.serving.conftest import ALL, Running, Start, event
from tests.serving.traces import (
    forms_of,
    found_in,
    messages_in,
    opened_by_any,
    states_opened_by_any,
    valkey_holds,
)

NAMES = ("visitor-who-goes", "user-who-goes", "visitor-who-stays")
AOF = ("--appendonly", "yes", "--appendfsync", "always", "--dbfilename", "copy.rdb")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    (tmp_path / "valkey").mkdir()
    with valkey(tmp_path / "valkey", *AOF) as running:
        yield running


@pytest.fixture
def topic() -> str:
    return f"events-{uuid4()}"


@pytest.fixture
def shared(addresses: str, topic: str, server: ValkeyServer) -> dict[str, str]:
    """The settings of the stores."""
    return {"event_log": f"kafka://{addresses}/{topic}", "feature_store": server.url}


async def even(running: Running) -> None:
    """Wait until all that is in the log now has become features."""
    feed, until = running.gateway.feed, time.monotonic() + 15
    assert feed is not None
    wanted = len(running.logged())
    while feed.applied < wanted or feed.behind_s > 0.5:
        assert time.monotonic() < until, (wanted, feed.applied, feed.behind_s, feed.problem)
        await asyncio.sleep(0.05)


def field_values(held: dict[bytes, dict[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Field and value of all that is held of subjects."""
    return [
        (field, value)
        for key, fields in held.items()
        if log_key_of(key) is not None
        for field, value in fields.items()
        if field != b"v"
    ]


def said_in(written: Any, names: list[str]) -> list[str]:
    """Those of `names` that stand anywhere in what was read over the wire."""
    if isinstance(written, bytes | str):
        content = written if isinstance(written, bytes) else written.encode()
        return [name for name in names if any(form in content for form in forms_of(name))]
    if isinstance(written, dict):
        written = [*written.keys(), *written.values()]
    return [name for one in written for name in said_in(one, names)]


async def test_after_an_erasure_nothing_is_left_on_any_wire_or_disk(
    start: Start,
    shared: dict[str, str],
    addresses: str,
    topic: str,
    server: ValkeyServer,
    tmp_path: Path,
) -> None:
    running = await start(**shared)
    gone = await shopped(running, NAMES[0], NAMES[1])
    stays = await shopped(running, NAMES[2])
    gateway, control_file = running.gateway, tmp_path / "state" / "control.sqlite"
    await even(running)
    person = gateway.control.person_of(gone)
    assert len(person) == 2
    keys = [gateway.control.subject_key(one) for one in person]
    log_keys = [key.log_key for key in keys if key is not None]
    everyone = [*person, stays, *NAMES]
    held = await read(running, gone)
    assert len(held["events"]) + len(held["decisions"]) == 6
    await exported(running, tmp_path / "export")
    rows = len(rows_of(tmp_path / "export"))
    assert server.ask(b"SAVE") == b"+OK"

    messages, states = messages_in(addresses, topic), valkey_holds(server.url)
    bodies = [value for _, headers, value in messages if headers]
    assert len(bodies) == len(running.logged()) == rows
    assert opened_by_any(gateway.control, control_file, bodies) == len(bodies)
    values = field_values(states)
    assert states_opened_by_any(gateway.control, control_file, values) == len(values) > 6
    assert {log_key_of(key) for key in states} > set(log_keys)
    assert {key for key, _, _ in messages} > set(log_keys)
    # Even of those who are there nothing is said outside of what is sealed.
    assert said_in([messages, states], everyone) == []
    assert found_in(tmp_path / "valkey", everyone) == []
    files = [path for path in (tmp_path / "valkey").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".aof", ".rdb"}
    # Each key stands in the append-only file, so that the file is one that could tell.
    logged = b"".join(path.read_bytes() for path in files)
    assert all(key_of(one).encode() in logged for one in log_keys)

    signed = await erase(running, gone)

    receipt = verify(signed, ReceiptSigner(gateway.control.service_key("receipt")).public_key)
    assert sorted(receipt["subject_ids"]) == sorted(person)
    assert (receipt["events_removed"], receipt["features_removed"]) == (0, True)
    assert (receipt["export_rows_removed"], receipt["control_store_clean"]) == (6, True)
    assert len(rows_of(tmp_path / "export")) == rows - 6
    await even(running)
    left, after = messages_in(addresses, topic), valkey_holds(server.url)
    bodies_left = [value for _, headers, value in left if headers]
    assert len(bodies_left) == len(bodies)  # a topic gives up nothing
    assert opened_by_any(gateway.control, control_file, bodies_left) == len(bodies) - 6
    assert not {log_key_of(key) for key in after} & set(log_keys)
    assert field_values(after)
    # What the append-only file, or a copy of it, still has opens no more.
    of_others = [one for one in values if one in field_values(after)]
    assert states_opened_by_any(gateway.control, control_file, values) == len(of_others)
    assert len(of_others) < len(values)
    assert said_in([left, after], everyone) == []
    assert [gateway.control.subject_key_by_log_key(one) for one in log_keys] == [None, None]
    assert {str(one.subject_id) for one in running.logged()} == {stays}
    assert await gateway.features.read_many(person) == [{}, {}]
    await read(running, gone, status=404)
    assert found_in(tmp_path, [*person, *NAMES]) == []
    assert server.ask(b"SAVE") == b"+OK"
    await running.stop()
    assert found_in(tmp_path, [*person, *NAMES]) == []

    # A gateway that begins with all of it, and a store that lost everything, bring nothing back.
    assert server.ask(b"FLUSHALL") == b"+OK"
    running = await start(**shared)
    await even_with(running, stays)
    assert await running.gateway.features.read_many(person) == [{}, {}]
    assert not {log_key_of(key) for key in valkey_holds(server.url)} & set(log_keys)


async def even_with(running: Running, subject: str) -> None:
    until = time.monotonic() + 15
    while not await running.gateway.features.read(subject):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_events_under_way_become_nothing(
    start: Start, shared: dict[str, str], server: ValkeyServer
) -> None:
    """They are in the topic, and in the hands of the feed, when their subject is erased."""
    running = await start(**shared)
    subject = await shopped(running, "v")
    await even(running)
    key = running.gateway.control.subject_key(subject)
    assert key is not None
    sending = [
        asyncio.create_task(
            running.post("/v1/events", {"events": [event(visitor_id="v") for _ in range(50)]})
        )
        for _ in range(4)
    ]
    await asyncio.sleep(0.02)
    await erase(running, subject)
    for one in await asyncio.gather(*sending):
        assert one.status_code == 202
    later = await running.decide(visitor_id="other", consent=ALL)
    assert later.status_code == 200
    await running.quiet()
    await asyncio.sleep(0.5)  # the feed has gone on
    assert [one for one in running.logged() if str(one.subject_id) == subject] == []
    assert await running.gateway.features.read(subject) == {}
    assert key_of(key.log_key).encode() not in valkey_holds(server.url)


async def test_a_feature_store_that_is_away_is_told_later(
    start: Start, shared: dict[str, str], server: ValkeyServer
) -> None:
    running = await start(**shared)
    subject = await shopped(running, "v")
    await even(running)
    gateway = running.gateway
    key = gateway.control.subject_key(subject)
    assert key is not None
    name, values = key_of(key.log_key).encode(), field_values(valkey_holds(server.url))
    server.signal(signal.SIGSTOP)
    signed = await erase(running, subject)
    assert signed["receipt"]["features_removed"] is False
    assert gateway.control.unfinished_erasures() == (key.log_key,)
    server.signal(signal.SIGCONT)
    control_file = gateway.settings.state / "control.sqlite"
    assert states_opened_by_any(gateway.control, control_file, values) == 0
    assert await gateway.features.read(subject) == {}
    await gateway.rights.finish()  # unless the gateway did so by itself
    assert name not in valkey_holds(server.url)
    assert gateway.control.unfinished_erasures() == ()


async def test_an_erasure_cut_short_is_finished_at_the_next_start(
    start: Start, shared: dict[str, str], server: ValkeyServer
) -> None:
    running = await start(**shared)
    subject = await shopped(running, "v")
    await even(running)
    erased = await running.gateway.control.erase(subject, COMMAND_LINE)  # and the power went
    assert erased is not None
    name = key_of(erased.log_keys[0]).encode()
    await running.stop()
    assert name in valkey_holds(server.url)
    running = await start(**shared)
    assert name not in valkey_holds(server.url)
    assert running.gateway.control.unfinished_erasures() == ()


async def test_what_was_kept_long_enough_goes(
    start: Start, shared: dict[str, str], server: ValkeyServer
) -> None:
    running = await start(**shared)
    gateway = running.gateway
    subject = await shopped(running, "old")
    await even(running)
    running.clock.at += timedelta(days=50)
    periods = Retention(behaviour=30, decisions=30, subjects=40)

    async def run() -> Any:
        return await enforce(periods, gateway.stores, gateway.rights, gateway.clock)

    done = await run()
    # As long as the topic has records of a subject, their key is kept: the brokers' setting says.
    assert (done.behaviour, done.states, done.subjects) == (0, 1, 0)
    assert all(len(rows) == 0 for rows in (await gateway.features.read(subject)).values())
    assert gateway.control.exists(subject)
    unheard = await running.post("/v1/subjects/resolve", {"visitor_id": "never-did-anything"})
    running.clock.at += timedelta(days=50)
    assert (await run()).subjects == 1
    assert not gateway.control.exists(unheard.json()["subject_id"])
    assert gateway.control.exists(subject)
    assert not any(log_key_of(key) for key in valkey_holds(server.url))
