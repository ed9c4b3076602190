"""Erasures and retention periods reach what a worker keeps of a subject, whatever it is doing."""

import asyncio
import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag

import pytest

from contract.events import Event
from serving.commands.worker_duties import Bench, duties
from serving.experiments.rollup import FILE, Rollup
from serving.monitoring.alarms import KpiAlarms
from serving.monitoring.drift import FILE as DRIFT_FILE
from serving.monitoring.drift import DriftWatch
from serving.monitoring.fairness_watch import FairnessWatch
from serving.retention import Retention
from serving.state.event_log import EventLog, Position
from serving.state.fact_file import FactFile
from tests.serving.api.test_rights import erase, read, shopped
from tests.serving.conftest import NOON, Running, Start, purchase
from tests.serving.experiments.test_report import FIRST, put


@pytest.fixture
def rollup(running: Running) -> Iterator[Rollup]:
    """The worker's, on the gateway's state folder."""
    made = Rollup(running.gateway.settings.state / FILE)
    yield made
    made.close()


def log_key(running: Running, subject: str) -> str:
    key = running.gateway.control.subject_key(subject)
    assert key is not None
    return key.log_key.hex()


def tables_with(path: Path, subject: str) -> set[str]:
    with closing(sqlite3.connect(path)) as file:
        tables = [
            row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            table
            for table in tables
            if any(subject in map(str, row) for row in file.execute(f"SELECT * FROM {table}"))
        }


def bytes_with(folder: Path, subject: str) -> list[str]:
    files = folder.glob(f"{FILE}*")
    return [path.name for path in files if subject.encode() in path.read_bytes()]


async def test_the_facts_are_gone_when_the_receipt_is_given(
    running: Running, rollup: Rollup
) -> None:
    gateway, state = running.gateway, running.gateway.settings.state
    subject, other = await shopped(running, "v"), await shopped(running, "w")
    key, stays = log_key(running, subject), log_key(running, other)
    rollup.follow(gateway.event_log, gateway.control)
    assert {"kpi_facts", "orders", "bought"} <= tables_with(state / FILE, key)
    receipt = (await erase(running, subject))["receipt"]
    assert receipt["facts_removed"] is receipt["finished"] is True
    assert receipt["facts_elsewhere_until"] is None
    assert tables_with(state / FILE, key) == set()
    assert bytes_with(state, key) == []
    assert "kpi_facts" in tables_with(state / FILE, stays)
    counted = "SELECT sum(orders) FROM kpi_sums WHERE cut = 'all' AND grain = 86400000000"
    assert rollup.file.execute(counted).fetchone() == (2,)  # sums lead to nobody


async def test_what_is_counted_of_a_shopper_can_be_read(running: Running, rollup: Rollup) -> None:
    gateway = running.gateway
    await put(running, FIRST)
    subject = await shopped(running, "v")
    await shopped(running, "w")
    assert (await read(running, subject))["counted"] == {}
    rollup.follow(gateway.event_log, gateway.control)
    held = (await read(running, subject))["counted"]
    at = NOON.isoformat()
    assert held["checkouts"] == [{"session": "session-1", "at": at, "last": at}]
    (order,) = held["orders"]
    assert (order["transaction_id"], order["revenue"]) == ("t-1", 200)
    assert {one["item"] for one in held["bought"]} == {"item-3", "item-4"}
    (told,) = held["kpi_facts"]
    assert told["visits"]["session-1"]["last"] == at
    assert told["orders"]["t-1"]["items"] == ["item-3", "item-4"]
    assert [*told["seen"].values()] == [at]
    said = json.dumps(held)
    assert log_key(running, subject) not in said
    assert "margin" not in said


def does(running: Running, rollup: Rollup, duty: str) -> None:
    """One duty of a worker with the gateway's settings and clock, once. On a thread, where a loop
    is running."""
    gateway, settings = running.gateway, running.gateway.settings
    file, told = settings.state / FILE, (gateway.control, settings.releases, gateway.clock)
    alarms, fairness = KpiAlarms(file, *told), FairnessWatch(file, *told)
    with closing(DriftWatch(settings.state / DRIFT_FILE, *told)) as drift:
        made = gateway.clock, gateway.control, gateway.event_log, rollup, alarms, drift, fairness
        bench = Bench(settings, *made, Flag())
        (one,) = [one for one in duties(bench, 1, 1) if one.name == duty]
        one.act()


async def test_facts_are_kept_no_longer_than_behaviour(start: Start) -> None:
    running = await start(retention=Retention(behaviour=3, decisions=3))
    gateway = running.gateway
    path = gateway.settings.state / FILE
    await put(running, FIRST)
    gateway.experiments.follow()
    subject = await shopped(running, "v")
    back = purchase("item-3", visitor_id="v", event_name="refund", value=50)
    await running.post("/v1/events", {"events": [back]})
    key = log_key(running, subject)
    with closing(Rollup(path)) as rollup:
        rollup.follow(gateway.event_log, gateway.control)
        everywhere = tables_with(path, key)
        assert everywhere >= {
            *("kpi_facts", "kpi_transactions", "exposures", "checkouts"),
            *("shown", "orders", "bought", "refunds"),
        }
        running.clock.at += timedelta(days=2)
        does(running, rollup, "tidy")
        assert tables_with(path, key) == everywhere
        running.clock.at += timedelta(days=2)
        does(running, rollup, "tidy")
        assert tables_with(path, key) == set()


async def test_refunds_of_a_version_without_their_time_go_as_well(
    running: Running, tmp_path: Path
) -> None:
    path = tmp_path / FILE
    await shopped(running, "v")
    with closing(Rollup(path)) as rollup:
        rollup.follow(running.gateway.event_log, running.gateway.control)
        rollup.file.execute("DROP TABLE refunds")
        rollup.file.execute(
            "CREATE TABLE refunds (event_id PRIMARY KEY, subject, transaction_id, amount) "
            "WITHOUT ROWID"
        )
        rollup.file.execute("INSERT INTO refunds VALUES ('e', 'aa', 't-1', 5)")
    with closing(Rollup(path)) as rollup:
        latest_us = rollup.kpis.latest_us
        rollup.tidy(latest_us)
        assert tables_with(path, "aa") == {"refunds"}
        rollup.tidy(latest_us + 1)
        assert tables_with(path, "aa") == set()


@dataclasses.dataclass
class ReadBefore:
    """A log of which a worker has read a batch already."""

    log: EventLog
    events: list[tuple[Position, Event]]

    @property
    def log_id(self) -> str:
        return self.log.log_id

    @property
    def last_position(self) -> Position:
        return self.log.last_position

    def read_from(self, position: Position) -> list[tuple[Position, Event]]:
        return self.events


async def test_a_batch_that_was_read_before_brings_nothing_back(
    running: Running, rollup: Rollup
) -> None:
    gateway, state = running.gateway, running.gateway.settings.state
    subject = await shopped(running, "v")
    key = log_key(running, subject)
    read = ReadBefore(gateway.event_log, list(gateway.event_log.read_from(0)))
    assert (await erase(running, subject))["receipt"]["facts_removed"] is True
    assert rollup.follow(read, gateway.control) == len(read.events)  # type: ignore[arg-type]
    assert tables_with(state / FILE, key) == set()


async def test_a_receipt_waits_for_a_worker_that_writes(running: Running, rollup: Rollup) -> None:
    gateway, state = running.gateway, running.gateway.settings.state
    subject = await shopped(running, "v")
    key = log_key(running, subject)
    rollup.follow(gateway.event_log, gateway.control)
    facts = FactFile(state / FILE, alone=True, busy_seconds=0.05)
    gateway.rights._stores = dataclasses.replace(gateway.stores, facts=facts)
    rollup.file.execute("BEGIN IMMEDIATE")
    receipt = (await erase(running, subject))["receipt"]
    assert receipt["facts_removed"] is receipt["finished"] is False
    rollup.file.execute("COMMIT")
    assert await gateway.rights.finish() == 1
    assert tables_with(state / FILE, key) == set()
    receipt = (await erase(running, subject))["receipt"]
    assert receipt["facts_removed"] is receipt["finished"] is True


def not_alone(running: Running) -> None:
    """As where gateways share the control store."""
    gateway = running.gateway
    facts = dataclasses.replace(gateway.stores.facts, alone=False)
    gateway.rights._stores = dataclasses.replace(gateway.stores, facts=facts)


async def told(running: Running, worker: Rollup) -> int:
    """A round of a worker as far as erasures are concerned; how many subjects it let go of."""
    count = worker.forget(running.gateway.control)
    await asyncio.to_thread(worker.tell, running.gateway.control, running.clock.now())
    return count


async def test_a_receipt_waits_for_the_workers_of_other_gateways(
    running: Running, rollup: Rollup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = running.gateway
    subjects = [await shopped(running, f"v{number}") for number in range(4)]
    last = max(subjects, key=lambda one: log_key(running, one))
    key = log_key(running, last)
    monkeypatch.setattr("serving.experiments.rollup._LOOKED_AT", 1)
    not_alone(running)
    with closing(Rollup(tmp_path / FILE)) as elsewhere:
        for worker in (rollup, elsewhere):
            await told(running, worker)
            worker.follow(gateway.event_log, gateway.control)
        receipt = (await erase(running, last))["receipt"]
        # The one beside this gateway need not say anything: its file was looked at.
        assert tables_with(gateway.settings.state / FILE, key) == set()
        assert receipt["facts_removed"] is receipt["finished"] is False
        assert receipt["facts_elsewhere_until"] > receipt["erased_at"]
        reader = sqlite3.connect(tmp_path / FILE)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM kpi_facts").fetchone()
        elsewhere.file.execute("PRAGMA busy_timeout = 50")
        assert await told(running, elsewhere) == 1
        # What is deleted still stands in its write-ahead log, because somebody reads it.
        assert (await erase(running, last))["receipt"]["finished"] is False
        reader.close()
        assert await told(running, elsewhere) == 0
        assert tables_with(tmp_path / FILE, key) == set()
        assert bytes_with(tmp_path, key) == []
        assert await gateway.rights.finish() == 1
        receipt = (await erase(running, last))["receipt"]
        assert receipt["facts_removed"] is receipt["finished"] is True
        assert receipt["facts_elsewhere_until"] is None


async def test_a_worker_that_is_gone_for_good_holds_up_nothing(
    running: Running, tmp_path: Path
) -> None:
    subject = await shopped(running, "v")
    not_alone(running)
    with closing(Rollup(tmp_path / FILE)) as elsewhere:
        await told(running, elsewhere)
    receipt = (await erase(running, subject))["receipt"]
    assert receipt["finished"] is False
    running.clock.at += timedelta(minutes=16)
    receipt = (await erase(running, subject))["receipt"]
    assert receipt["facts_removed"] is receipt["finished"] is True
    assert receipt["facts_elsewhere_until"] > receipt["erased_at"]  # it may run again


async def test_where_no_worker_was_there_is_nothing_to_remove(start: Start) -> None:
    running = await start()
    receipt = (await erase(running, await shopped(running, "v")))["receipt"]
    assert receipt["facts_removed"] is receipt["finished"] is True
