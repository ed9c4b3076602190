"""The commands about data: proof of the audit log and of receipts, rotation, export, retention, and
the encryption of what an earlier version left."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.kafka_brokers import brokers
from contract import features
from contract.events import Event
from contract.features import FEATURES, feature_hash
from serving.state.audit import COMMAND_LINE, Entry
from serving.state.kafka_event_log import KafkaEventLog
from serving.state.kafka_place import kafka_place
from serving.state.parquet_parts import ParquetParts, Row
from serving.state.receipts import ReceiptSigner
from serving.state.sealing import SealedCodec
from serving.state.secrets import KEY_FILE, load_secrets
from serving.state.state_folder import SEED, SNAPSHOT
from tests.serving.commands.processes import Place
from tests.serving.commands.small_import import write_import
from tests.serving.release_factory import Factory
from tests.serving.state.events import BEGIN, random_events, stored_event
from tests.serving.state.stores import Stores, destroy_key


@pytest.fixture
def place(release_root: Factory, tmp_path: Path) -> Place:
    """A state folder of its own beside the tiny release."""
    return Place(release_root, tmp_path / "state")


def stores_of(place: Place) -> Stores:
    place.state.mkdir(exist_ok=True)
    return Stores(place.state, load_secrets(place.state, None))


def filled(place: Place, count: int = 50) -> None:
    """Four subjects and some events."""

    async def fill() -> None:
        stores = stores_of(place)
        await stores.add_subjects(4)
        await stores.log.append(random_events(seed=1, count=count))
        stores.close()

    asyncio.run(fill())


def test_a_whole_audit_log_is_proven_and_harm_ends_with_status_3(place: Place) -> None:
    for role in ("checkout", "admin", "collect"):
        assert place.call("keys", "create", "--role", role).returncode == 0
    proven = place.call("audit", "verify")
    assert (proven.returncode, proven.stderr) == (0, "")
    assert "4 lines" in proven.stdout
    shown = place.call("audit", "show").stdout.splitlines()
    actions = [json.loads(one)["line"]["action"] for one in shown]
    assert actions == ["log.begun", *["key.created"] * 3]
    seen = proven.stdout.split()[-1]
    with sqlite3.connect(place.state / "control.sqlite") as connection:
        connection.execute("UPDATE audit SET text = replace(text, 'admin', 'owner')")
    connection.close()
    harmed = place.call("audit", "verify")
    assert harmed.returncode == 3
    assert "line 3 was changed" in harmed.stderr
    assert len(harmed.stderr.splitlines()) == 1
    assert seen.startswith("4:")


def test_a_wiped_audit_log_is_never_content(place: Place) -> None:
    assert place.call("keys", "create", "--role", "admin").returncode == 0
    with closing(sqlite3.connect(place.state / "control.sqlite")) as connection, connection:
        connection.execute("DELETE FROM audit")
        connection.execute("DELETE FROM audit_head")
    wiped = place.call("audit", "verify")
    assert (wiped.returncode, "head is missing" in wiped.stderr) == (3, True)
    # Nothing begins a new log in its place.
    assert place.call("keys", "create", "--role", "admin").returncode != 0
    assert place.call("audit", "verify").returncode == 3


def test_lines_kept_elsewhere_are_proven_too(place: Place, tmp_path: Path) -> None:
    for _ in range(3):
        place.call("keys", "create", "--role", "admin")
    copy = tmp_path / "audit.jsonl"
    lines = place.call("audit", "show").stdout.splitlines(keepends=True)
    for kept, status in (
        (lines, 0),
        ([lines[1], lines[0], *lines[2:]], 3),
        (lines[1:], 3),
        (lines[:2], 3),
        (["nonsense\n"], 3),
    ):
        copy.write_text("".join(kept))
        assert place.call("audit", "verify", "--lines", str(copy)).returncode == status


def test_a_folder_put_back_to_an_earlier_day_is_found(place: Place, tmp_path: Path) -> None:
    place.call("keys", "create", "--role", "admin")
    shutil.copytree(place.state, tmp_path / "earlier")
    place.call("keys", "create", "--role", "checkout")
    seen = place.call("audit", "verify").stdout.split()[-1]
    assert place.call("audit", "verify", "--at-least", seen).returncode == 0
    shutil.rmtree(place.state)
    shutil.copytree(tmp_path / "earlier", place.state)
    assert place.call("audit", "verify").returncode == 0
    assert place.call("audit", "verify", "--at-least", seen).returncode == 3
    assert place.call("audit", "verify", "--at-least", "x").returncode == 2


def test_receipts_are_verified(place: Place, tmp_path: Path) -> None:
    stores = stores_of(place)
    signer = ReceiptSigner(stores.control.service_key("receipt"))
    stores.close()
    receipt = {"subject_id": "s", "erased_at": "2017-11-20", "events_removed": 3}
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(signer.sign(receipt)))
    assert place.call("receipt", "verify", str(file)).returncode == 0
    public = place.call("receipt", "key").stdout.strip()
    assert public == signer.public_key
    elsewhere = Place(place.factory, tmp_path / "nowhere")
    held = elsewhere.call("receipt", "verify", str(file), "--public-key", public)
    assert held.returncode == 0, held.stderr
    file.write_text(file.read_text().replace('"events_removed": 3', '"events_removed": 2'))
    refused = place.call("receipt", "verify", str(file))
    assert refused.returncode == 3
    assert "changed" in refused.stderr
    file.write_text("{")
    assert place.call("receipt", "verify", str(file)).returncode == 2


def test_a_rotated_key_file_opens_everything_and_loses_the_old_key(place: Place) -> None:
    filled(place)
    key = place.call("keys", "create", "--role", "checkout").stdout.strip()
    first = (place.state / KEY_FILE).read_text().split()
    done = place.call("keys", "rotate")
    assert done.returncode == 0, done.stderr
    second = (place.state / KEY_FILE).read_text().split()
    assert second[1:] == first
    assert second[0] not in first
    assert (place.state / KEY_FILE).stat().st_mode & 0o077 == 0
    status = place.call("keys", "status").stdout
    assert next(line for line in status.splitlines() if "older" in line).startswith("subjects ")
    refused = place.call("keys", "rotate", "--drop-old")
    assert refused.returncode == 2
    assert "4 people" in refused.stderr
    assert (place.state / KEY_FILE).read_text().split() == second
    back_again(place)
    assert place.call("keys", "rotate", "--drop-old").returncode == 0
    assert (place.state / KEY_FILE).read_text().split() == second[:1]
    stores = stores_of(place)
    assert len(list(stores.log.read_from(0))) == 50
    assert [one.role for one in stores.control.list_keys()] == ["checkout"]
    (held,) = stores.control.list_keys()
    assert len(load_secrets(place.state, None).unseal(held.key_id, held.sealed)) == 1
    stores.close()
    assert key.startswith("tw_checkout_")
    assert place.call("audit", "verify").returncode == 0


def back_again(place: Place, *but: int) -> None:
    """As if every subject but these had come back since the newest master key came."""
    newest = load_secrets(place.state, None).newest
    with sqlite3.connect(place.state / "control.sqlite") as connection:
        for number in {1, 2, 3, 4} - set(but):
            connection.execute(
                "UPDATE subjects SET key_version = ? WHERE subject_id = ?",
                (newest, str(UUID(int=number))),
            )
    connection.close()


def test_who_has_not_come_back_is_erased_with_the_old_key_and_not_forgotten(place: Place) -> None:
    filled(place)
    assert place.call("keys", "rotate").returncode == 0
    back_again(place, 2, 3)
    # 3 is a device of 4, who came back: only the device becomes unknown.
    with sqlite3.connect(place.state / "control.sqlite") as connection:
        linked = (str(UUID(int=3)), str(UUID(int=4)), str(UUID(int=4)))
        connection.execute("INSERT INTO links VALUES (?, ?, ?)", linked)
    connection.close()
    assert place.call("keys", "rotate", "--erase-unseen").returncode == 2
    refused = place.call("keys", "rotate", "--drop-old")
    assert refused.returncode == 2
    assert "2 look-up digests" in refused.stderr
    assert "1 people" in refused.stderr
    done = place.call("keys", "rotate", "--drop-old", "--erase-unseen")
    assert done.returncode == 0, done.stderr
    assert "1 shoppers erased" in done.stdout
    stores = stores_of(place)
    held = {event.subject_id.int for _, event in stores.log.read_from(0)}
    assert held == {1, 3, 4}
    assert not stores.control.exists(str(UUID(int=2)))
    assert set(stores.control.key_versions()["subjects"]) == {stores.control._secrets.newest}
    stores.close()


def test_a_key_from_the_environment_is_rotated_there(place: Place) -> None:
    old, new = "b" * 43 + "=", "c" * 43 + "="
    assert place.call("keys", "create", "--role", "admin", TILLWISE_MASTER_KEY=old).returncode == 0
    refused = place.call("keys", "rotate", TILLWISE_MASTER_KEY=old)
    assert refused.returncode == 2
    assert "keys rewrap" in refused.stderr
    wrong = place.call("keys", "list", TILLWISE_MASTER_KEY=new)
    assert wrong.returncode == 2
    assert "needed and not held" in wrong.stderr
    both = place.call("keys", "rewrap", TILLWISE_MASTER_KEY=f"{new},{old}")
    assert both.returncode == 0
    assert place.call("keys", "list", TILLWISE_MASTER_KEY=new).returncode == 0


def test_the_master_key_may_lie_elsewhere(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("d" * 43 + "=\n")
    made = place.call("keys", "create", "--role", "admin", TILLWISE_MASTER_KEY_FILE=str(file))
    assert made.returncode == 0, made.stderr
    assert not (place.state / KEY_FILE).exists()
    without = place.call("keys", "list")
    assert without.returncode == 2
    assert "is gone" in without.stderr
    assert len(without.stderr.splitlines()) == 1
    assert not (place.state / KEY_FILE).exists()
    missing = place.call("keys", "list", TILLWISE_MASTER_KEY_FILE=str(tmp_path / "none"))
    assert missing.returncode == 2
    assert "No such file" in missing.stderr


def test_an_export_is_a_training_input_under_pseudonyms(place: Place, tmp_path: Path) -> None:
    filled(place)
    folder = tmp_path / "export"
    done = place.call("export", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    rows = rows_of(folder)
    events = {str(one.event_id): one for one in random_events(seed=1, count=50)}
    assert {row["event_id"] for row in rows} == events.keys()
    named = {str(events[row["event_id"]].subject_id): row["subject_id"] for row in rows}
    assert len(set(named.values())) == len(named) == 4
    assert not set(named) & set(named.values())
    assert "0 events more" in place.call("export", "--output", str(folder)).stdout
    # Where nobody knows under which pseudonyms its rows stand, nothing is added.
    folder.rename(tmp_path / "moved")
    moved = place.call("export", "--output", str(tmp_path / "moved"))
    assert (moved.returncode, "was moved" in moved.stderr) == (2, True)


def test_an_export_of_a_topic_grows_and_loses_whoever_is_erased_meanwhile(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(place, count=0)
    events = random_events(seed=2, count=60)
    folder = tmp_path / "export"
    with brokers() as addresses:
        url = f"kafka://{addresses}/events"

        def written(some: list[Event]) -> None:
            stores = stores_of(place)
            log = KafkaEventLog(kafka_place(url), SealedCodec(stores.keys))
            asyncio.run(log.append(some))
            log.close()
            stores.close()

        def exported(added: int) -> set[str]:
            done = place.call("export", "--output", str(folder), TILLWISE_EVENT_LOG=url)
            assert f"{added} events more" in done.stdout, done.stderr
            return {row["subject_id"] for row in rows_of(folder)}

        written(events[:30])
        assert len(exported(30)) == 4
        add = ParquetParts.add

        def adding(parts: ParquetParts, rows: list[Row], position: Any) -> int:
            stores = stores_of(place)
            destroy_key(stores.control, 2)
            stores.close()
            return add(parts, rows, position)

        written(events[30:])
        with monkeypatch.context() as patched:
            patched.setattr(ParquetParts, "add", adding)
            assert len(exported(30)) == 3
        assert len(exported(0)) == 3
    left = [one for one in events if one.subject_id.int != 2]
    assert {row["event_id"] for row in rows_of(folder)} == {str(one.event_id) for one in left}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((folder / "events").glob("**/*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def test_retention_is_enforced_by_command(place: Place, tmp_path: Path) -> None:
    filled(place)
    periods = {"TILLWISE_RETENTION": '{"behaviour": 30, "subjects": 60}'}
    report = tmp_path / "figures.json"
    early = ("retention", "--as-of", "2017-06-20", "--json", str(report))
    assert place.call(*early, **periods).returncode == 0
    metrics = json.loads(report.read_text())["rows"][0]["metrics"]
    assert metrics["behaviour"]["mean"] == 0
    late = ("retention", "--as-of", "2017-09-20", "--json", str(report))
    assert place.call(*late, **periods).returncode == 0
    metrics = json.loads(report.read_text())["rows"][0]["metrics"]
    assert metrics["behaviour"]["mean"] == 50
    wrong = place.call("retention", TILLWISE_RETENTION='{"behaviour": 0}')
    assert wrong.returncode == 2
    assert "TILLWISE_RETENTION" in wrong.stderr


def plain_folder(place: Place) -> None:
    """A state folder as the version before encryption left it."""
    filled(place, count=0)
    events = random_events(seed=2, count=60)
    (place.state / "events.sqlite").unlink()
    with sqlite3.connect(place.state / "events.sqlite") as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(
            "CREATE TABLE events (position INTEGER PRIMARY KEY AUTOINCREMENT, "
            "event_id BLOB NOT NULL UNIQUE, body TEXT NOT NULL)"
        )
        connection.executemany(
            "INSERT INTO events (event_id, body) VALUES (?, ?)",
            [(one.event_id.bytes, one.model_dump_json(exclude_none=True)) for one in events],
        )
    connection.close()
    with sqlite3.connect(place.state / "control.sqlite") as connection:
        connection.execute("DELETE FROM subject_keys")
        connection.execute("PRAGMA user_version = 0")
    connection.close()
    state = features.update({}, stored_event(1_000))
    arrays = {
        "feature_hash": np.array(feature_hash()),
        "position": np.array(0),
        "subjects": np.array([str(UUID(int=1))], "U36"),
    }
    for one in FEATURES:
        rows = state.get(one.name, one.nothing)
        arrays |= {f"{one.name}.rows": rows, f"{one.name}.offsets": np.array([0, len(rows)])}
    for name in (SEED, SNAPSHOT):
        with (place.state / name).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)


def test_what_an_earlier_version_left_is_encrypted(place: Place, tmp_path: Path) -> None:
    plain_folder(place)
    source = write_import(tmp_path / "import")
    for command in (("retention",), ("backfill", "--data", str(source))):
        refused = place.call(*command)
        assert refused.returncode == 2
        assert "tillwise-serve migrate" in refused.stderr
    done = place.call("migrate")
    assert done.returncode == 0, done.stderr
    assert "60 events and 1 imported" in done.stdout
    names = [path for path in place.state.iterdir() if not path.name.startswith("control")]
    left = b"".join(path.read_bytes() for path in names)
    assert b"item-" not in left
    assert b"session-" not in left
    assert str(UUID(int=1)).encode() not in left
    stores = stores_of(place)
    assert [event for _, event in stores.log.read_from(0)] == random_events(seed=2, count=60)
    restored = stores.restarted_features()
    restored.restore(stores.log)
    held = asyncio.run(restored.read(str(UUID(int=1))))
    assert stored_event(1_000).occurred_at > BEGIN
    assert len(held["purchases"]) > 0
    stores.close()
    assert place.call("migrate").stdout.startswith("0 events")


def test_a_migration_cut_short_goes_on(place: Place) -> None:
    plain_folder(place)
    (place.state / "events.sqlite").rename(place.state / "events.plain.sqlite")
    done = place.call("migrate")
    assert done.returncode == 0, done.stderr
    stores = stores_of(place)
    assert len(list(stores.log.read_from(0))) == 60
    asyncio.run(stores.control.audit(Entry("checked", BEGIN, COMMAND_LINE)))
    stores.close()
    assert not (place.state / "events.plain.sqlite").exists()


def test_no_state_folder_is_one_clear_line(place: Place) -> None:
    for command in (("audit", "verify"), ("export", "--output", "x"), ("migrate",), ("retention",)):
        ended = place.call(*command)
        assert ended.returncode == 2
        assert "does not exist" in ended.stderr
