"""The log as Parquet: each event once, however often and with whatever interruptions it is made."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from benchmarks.kafka_brokers import brokers
from contract.errors import UserError
from contract.event_parts import PARTS_FILE, read_parts
from contract.events import SCHEMA_VERSION, Event
from contract.frames import event_row
from contract.whole_file import replacing
from serving.state import parquet_parts
from serving.state.event_log import EventLog, SqliteEventLog
from serving.state.kafka_event_log import KafkaEventLog
from serving.state.kafka_place import kafka_place
from serving.state.parquet_parts import export, open_parts
from serving.state.secrets import load_secrets
from serving.state.state_folder import EVENTS
from tests.serving.commands.processes import ROOT, Place
from tests.serving.release_factory import Factory
from tests.serving.state.events import random_events, stored_event
from tests.serving.state.stores import Stores
from tests.training.shop import build_shop
from training.data.source import Source, read_source
from training.data.storage import check_events, read_events

KILLS = 20 if os.environ.get("TILLWISE_PROVE") else 3


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    (tmp_path / "state").mkdir()
    opened = SqliteEventLog(tmp_path / "state" / EVENTS)
    yield opened
    opened.close()


def brought_up(log: EventLog, output: Path, at_once: int = 40) -> tuple[int, int]:
    with open_parts(output, log.log_id) as parts:
        return export(log, parts, at_once=at_once)


def exported(output: Path) -> list[str]:
    return sorted(read_events(output)["event_id"].to_pylist())


def ids(events: Sequence[Event]) -> list[str]:
    return sorted(str(event.event_id) for event in events)


def days(count: int) -> list[Event]:
    """Events on several days, in mixed order."""
    events = [stored_event(n * 17) for n in range(1, count + 1)]
    random.Random(count).shuffle(events)
    return events


async def test_what_is_exported_is_what_was_logged(tmp_path: Path, log: SqliteEventLog) -> None:
    events = random_events(seed=1, count=120)
    await log.append(events)
    assert brought_up(log, tmp_path / "data") == (120, 120)
    check_events(tmp_path / "data")
    rows = {row["event_id"]: row for row in read_events(tmp_path / "data").to_pylist()}
    assert len(rows) == 120
    for event in events:
        assert rows[str(event.event_id)] == event_row(event)
    for file in (tmp_path / "data" / "events").glob("day=*/*.parquet"):
        day = file.parent.name.removeprefix("day=")
        found = pq.ParquetFile(file).read(columns=["occurred_at"])["occurred_at"].to_pylist()
        assert {str(moment.date()) for moment in found} == {day}


async def test_it_grows_by_what_is_new_and_late(tmp_path: Path, log: SqliteEventLog) -> None:
    events = days(150)
    await log.append(events[:100])
    assert brought_up(log, tmp_path / "data") == (100, 100)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.parquet")}
    assert brought_up(log, tmp_path / "data") == (0, 0)
    await log.append(events[100:])  # of days that are there already
    assert brought_up(log, tmp_path / "data") == (50, 50)
    assert exported(tmp_path / "data") == ids(events)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())  # none was touched


async def test_a_reader_sees_a_round_as_a_whole_or_not_at_all(
    tmp_path: Path, log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = days(90)
    await log.append(events[:40])
    brought_up(log, tmp_path / "data")
    await log.append(events[40:])
    written = 0

    def full_disk(path: Path):  # type: ignore[no-untyped-def]
        nonlocal written
        written += 1
        if written == 3:  # the files are there, the list of them is not
            raise OSError(28, "No space left on device")
        return replacing(path)

    with monkeypatch.context() as patched:
        patched.setattr(parquet_parts, "replacing", full_disk)
        with pytest.raises(OSError, match="No space"):
            brought_up(log, tmp_path / "data")
    assert len(list((tmp_path / "data").rglob("*.parquet"))) > len(
        read_parts((tmp_path / "data/events" / PARTS_FILE).read_text()).parts
    )
    assert exported(tmp_path / "data") == ids(events[:40])
    brought_up(log, tmp_path / "data")
    assert exported(tmp_path / "data") == ids(events)


async def test_an_export_that_is_killed_is_gone_on_with(
    tmp_path: Path, log: SqliteEventLog
) -> None:
    events = days(3_000)
    await log.append(events)
    output, chance = tmp_path / "data", random.Random(3)
    kills = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.commands.slow_export", str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        time.sleep(chance.uniform(0.02, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kills += process.returncode == -signal.SIGKILL
        if (output / "events" / PARTS_FILE).exists():
            seen = exported(output)
            assert len(seen) == len(set(seen))
            assert set(seen) <= set(ids(events))
    assert kills > 1
    brought_up(log, output, at_once=1_000)
    assert exported(output) == ids(events)


def test_a_repeat_that_stands_in_the_log_is_exported_once(tmp_path: Path) -> None:
    async def twice(url: str) -> None:
        for _ in range(2):  # the second time nobody remembers
            log = KafkaEventLog(kafka_place(url))
            await log.append(days(40))
            brought_up(log, tmp_path / "data", at_once=15)
            log.close()

    with brokers() as addresses:
        asyncio.run(twice(f"kafka://{addresses}/events-{uuid4()}"))
    assert exported(tmp_path / "data") == ids(days(40))


async def test_training_reads_an_export_as_it_reads_an_import(
    tmp_path: Path, log: SqliteEventLog
) -> None:
    shop = build_shop(tmp_path / "shop")
    events = []
    for row in read_events(shop).to_pylist():
        kept = {name: held for name, held in row.items() if held is not None}
        kept["items"] = [{k: v for k, v in one.items() if v is not None} for one in row["items"]]
        events.append(Event.model_validate(kept | {"schema_version": SCHEMA_VERSION}))
    random.Random(0).shuffle(events)  # a log is in the order of receipt
    for start in range(0, len(events), 400):
        await log.append(events[start : start + 400])
        brought_up(log, tmp_path / "data", at_once=300)
    for name in ("catalogue.parquet", "split.json"):
        (tmp_path / "data" / name).write_bytes((shop / name).read_bytes())
    ours, theirs = read_source(tmp_path / "data"), read_source(shop)
    assert ours.window == theirs.window
    assert ours.baskets.occurred_us.tolist() == theirs.baskets.occurred_us.tolist()
    held = [{key: sorted(items) for key, items in baskets(one)} for one in (ours, theirs)]
    assert held[0] == held[1]
    assert len(held[0]) > 1_000


def baskets(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Moment of every basket with the items in it."""
    rows, items = source.baskets, source.baskets.item
    for number, occurred_us in enumerate(rows.occurred_us.tolist()):
        start, end = rows.offsets[number], rows.offsets[number + 1]
        yield occurred_us, [str(rows.item_ids[n]) for n in items[start:end]]


async def test_the_command_and_its_refusals(tmp_path: Path, release_root: Factory) -> None:
    events = days(30)
    place = Place(release_root, tmp_path / "shop")
    place.state.mkdir()
    stores = Stores(place.state, load_secrets(place.state, None))
    await stores.add_subjects(1)
    await stores.log.append(events)
    data = tmp_path / "data"
    # A thread, as a command has no running loop.
    done = await asyncio.to_thread(place.call, "export", "--output", str(data), "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["metrics"]["events"]["mean"] == 30
    assert exported(data) == ids(events)
    assert read_source_needs(data) == {"catalogue.parquet", "events"}
    again = await asyncio.to_thread(place.call, "export", "--output", str(data))
    assert "0 events more" in again.stdout
    log_id = stores.log.log_id
    stores.close()

    empty = Place(release_root, tmp_path / "nothing").call("export", "--output", str(data))
    assert (empty.returncode, "does not exist" in empty.stderr) == (2, True)
    other = SqliteEventLog(tmp_path / "other.sqlite")
    with pytest.raises(UserError, match="another log"), open_parts(data, other.log_id):
        pass
    other.close()
    twice = pytest.raises(UserError, match="another export")
    with open_parts(data, log_id), twice, open_parts(data, log_id):
        pass
    imported = build_shop(tmp_path / "imported")
    with pytest.raises(UserError, match="of an import"), open_parts(imported, log_id):
        pass
    listed = data / "events" / PARTS_FILE
    listed.write_text('{"log_id": "x", "position": 0, "rounds": 1, "parts": ["../../etc"]}')
    with pytest.raises(UserError, match="outside"):
        read_events(data)
    broken = place.call("export", "--output", str(data))
    assert (broken.returncode, "outside" in broken.stderr) == (2, True)


async def test_kept_up_it_goes_on_whatever_fails_and_ends_when_told(
    tmp_path: Path, release_root: Factory
) -> None:
    """As a container of a pod, which would be out of service each time that it ends."""
    place, data = Place(release_root, tmp_path / "shop"), tmp_path / "data"
    command = ["-m", "serving", "export", "--output", str(data), "--every", "0.1"]
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=place.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = await asyncio.to_thread(process.stderr.readline)
        assert "trying again" in line, line  # there is no state folder yet
        place.state.mkdir()
        stores = Stores(place.state, load_secrets(place.state, None))
        await stores.add_subjects(1)
        await stores.log.append(days(30))
        until = time.monotonic() + 60
        while not (data / "catalogue.parquet").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        stores.close()
        assert exported(data) == ids(days(30))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def read_source_needs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
