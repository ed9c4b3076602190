"""The event log: once each, in order, durable when answered."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.state.event_log import SqliteEventLog
from serving.state.sqlite_writer import GroupCommitWriter, StoreError, connect
from tests.serving.state.events import random_events, stored_event

ROUNDS = 30 if os.environ.get("TILLWISE_PROVE") else 3
ROOT = Path(__file__).resolve().parents[3]


async def test_events_come_back_as_they_went_in(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "events.sqlite")
    events = random_events(seed=1, count=50)
    assert await log.append(events) == ["accepted"] * 50
    assert [event for _, event in log.read_from(0)] == events
    assert [event for _, event in log.read_from(47)] == events[47:]
    assert log.last_position == 50
    log.close()


async def test_an_event_is_kept_once(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "events.sqlite")
    first, second = stored_event(1), stored_event(2)
    assert await log.append([first, first, second]) == ["accepted", "duplicate", "accepted"]
    assert await log.append([second]) == ["duplicate"]
    assert [event.event_id for _, event in log.read_from(0)] == [first.event_id, second.event_id]
    log.close()


async def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "events.sqlite")
    await log.append([stored_event(1), stored_event(2)])
    log.close()
    log = SqliteEventLog(tmp_path / "events.sqlite")
    assert log.last_position == 2
    assert await log.append([stored_event(2), stored_event(3)]) == ["duplicate", "accepted"]
    assert [event.event_id.int for _, event in log.read_from(2)] == [3]
    log.close()
    with pytest.raises(StoreError):
        await log.append([stored_event(4)])


async def test_waiting_appends_share_one_commit(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "events.sqlite")
    blocker = sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # what comes now has to wait, and then goes together
    waiting = [asyncio.create_task(log.append([stored_event(n)])) for n in range(1, 101)]
    await asyncio.sleep(0)
    blocker.execute("ROLLBACK")
    assert await asyncio.gather(*waiting) == [["accepted"]] * 100
    assert log.last_position == 100
    blocker.close()
    log.close()


async def test_failing_work_undoes_only_itself(tmp_path: Path) -> None:
    writer = GroupCommitWriter(tmp_path / "any.sqlite", "CREATE TABLE t (a INTEGER UNIQUE);")

    def insert(number: int) -> Callable[[sqlite3.Connection], None]:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            if number < 0:
                raise ValueError("no")

        return work

    jobs = [writer.submit(insert(number)) for number in (1, -2, 3, 3, 4)]
    errors = [type(job.exception()).__name__ for job in jobs]
    assert errors == ["NoneType", "ValueError", "NoneType", "IntegrityError", "NoneType"]
    writer.close()
    held = sqlite3.connect(tmp_path / "any.sqlite").execute("SELECT a FROM t ORDER BY a")
    assert [row[0] for row in held] == [1, 3, 4]


def test_a_commit_goes_to_the_disk(tmp_path: Path) -> None:
    # A killed process does not show this, only a machine that loses its power.
    connection = connect(tmp_path / "any.sqlite")
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    answered: set[str] = set()
    for round_number in range(ROUNDS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.state.log_writer", str(path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(60 + 17 * round_number % 50):
            answered.add(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        answered.update(process.stdout.read().split())
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        log = SqliteEventLog(path)
        held = [str(event.event_id) for _, event in log.read_from(0)]
        log.close()
        assert len(held) == len(set(held))
        assert answered <= set(held), f"{len(answered - set(held))} answered events were lost"
    assert len(answered) >= 60 * ROUNDS
