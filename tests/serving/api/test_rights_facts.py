"""An erasure reaches what a worker keeps of a subject, whatever the worker is doing."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.events import Event
from serving.experiments.rollup import FILE, Rollup
from serving.state.control_store import ControlStore
from serving.state.event_log import EventLog, Position
from serving.state.fact_file import FactFile
from tests.serving.api.test_rights import erase, shopped
from tests.serving.conftest import Running, Start


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


async def test_the_worker_of_another_gateway_looks_at_everybody_after_an_erasure(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = running.gateway
    control: ControlStore = gateway.control
    subjects = [await shopped(running, f"v{number}") for number in range(4)]
    keys = sorted(log_key(running, one) for one in subjects)
    monkeypatch.setattr("serving.experiments.rollup._LOOKED_AT", 1)
    facts = dataclasses.replace(gateway.stores.facts, alone=False)
    gateway.rights._stores = dataclasses.replace(gateway.stores, facts=facts)
    with closing(Rollup(tmp_path / FILE)) as elsewhere:
        elsewhere.follow(gateway.event_log, control)
        last = next(one for one in subjects if log_key(running, one) == keys[-1])
        receipt = (await erase(running, last))["receipt"]
        assert receipt["facts_elsewhere_until"] > receipt["erased_at"]
        assert elsewhere.forget(control) == 1
        assert tables_with(tmp_path / FILE, keys[-1]) == set()
        assert elsewhere.forget(control) == 0


async def test_where_no_worker_was_there_is_nothing_to_remove(start: Start) -> None:
    running = await start()
    receipt = (await erase(running, await shopped(running, "v")))["receipt"]
    assert receipt["facts_removed"] is receipt["finished"] is True
