"""What lies on disk is sealed, bound to its event and its subject, and gone with the key."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from contract.errors import UserError
from contract.event_versions import read_stored
from contract.events import SCHEMA_VERSION, Event
from serving.state.audit import COMMAND_LINE
from serving.state.sealing import FORM, HeldKey, SealedCodec, SubjectKeys, Tampered
from serving.state.secrets import Secrets, UnknownMasterKey
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import SNAPSHOT
from tests.serving.state.control_places import ControlPlace, seen
from tests.serving.state.events import random_events, stored_event
from tests.serving.state.stores import SECRETS, Stores

ONE, TWO = str(UUID(int=1)), str(UUID(int=2))


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    """Stores with four subjects."""
    made = Stores(tmp_path)
    await made.add_subjects(4)
    yield made
    made.close()


async def test_no_word_of_an_event_or_a_state_can_be_read_on_disk(
    stores: Stores, tmp_path: Path
) -> None:
    events = random_events(seed=1, count=200)
    await stores.log.append(events)
    assert [event for _, event in stores.log.read_from(0)] == events
    stores.features.restore(stores.log)
    await stores.features.snapshot()
    assert (tmp_path / SNAPSHOT).stat().st_size > 1_000
    held = (tmp_path / "events.sqlite").read_bytes() + (tmp_path / SNAPSHOT).read_bytes()
    held += (tmp_path / "events.sqlite-wal").read_bytes()
    words = [b"item-", b"session-", b"oat milk", b"purchase", b"subject_id", b"occurred"]
    words += [f"{UUID(int=n)}".encode() for n in range(1, 5)]
    assert [word for word in words if word in held] == []


async def test_sealed_events_of_every_version_are_read(stores: Stores) -> None:
    codec, golden = SealedCodec(stores.keys), Path(__file__).parents[2] / "golden"
    for version in range(1, SCHEMA_VERSION + 1):
        for line in (golden / f"events_v{version}.jsonl").read_bytes().splitlines():
            event = read_stored(line)
            held, event_id = stores.keys.of(ONE), event.event_id.bytes
            assert str(event.subject_id) == ONE
            assert held is not None
            body = FORM + held.log_key + event_id + held.seal(line, event_id)
            assert codec.decode(body) == event


async def test_a_body_opens_only_in_its_own_place(stores: Stores) -> None:
    codec = SealedCodec(stores.keys)
    first, second = (codec.encode(stored_event(n)) for n in (1, 2))
    other = codec.encode(stored_event(3, subject_id=UUID(TWO)))
    assert first is not None
    assert second is not None
    assert other is not None
    body, later, foreign = bytes(first.body), bytes(second.body), bytes(other.body)  # type: ignore[arg-type]
    assert codec.decode(body) == stored_event(1)
    changed = [
        body[:17] + later[17:33] + body[33:],  # under the id of another event
        body[:1] + foreign[1:17] + body[17:],  # under the name of another subject
        b"\x02" + body[1:],
        body[:-1] + bytes([body[-1] ^ 1]),
        body[:40],
        b"",
    ]
    for one in changed:
        with pytest.raises(Tampered):
            codec.decode(one)
    assert first.body != codec.encode(stored_event(1)).body  # type: ignore[union-attr]


async def test_a_row_changed_on_disk_is_passed_over_and_told(
    stores: Stores, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await stores.log.append([stored_event(n) for n in (1, 2, 3)])
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        (body,) = connection.execute("SELECT body FROM records WHERE position = 2").fetchone()
        harmed = body[:-1] + bytes([body[-1] ^ 1])
        connection.execute("UPDATE records SET body = ? WHERE position = 2", (harmed,))
    connection.close()
    assert [event.event_id.int for _, event in stores.log.read_from(0)] == [1, 3]
    assert "Tampered" in caplog.text


async def test_nothing_opens_and_nothing_is_written_once_the_key_is_gone(stores: Stores) -> None:
    await stores.log.append([stored_event(1), stored_event(2, subject_id=UUID(TWO))])
    stores.features.restore(stores.log)
    await stores.features.snapshot()
    assert await stores.control.erase(ONE, COMMAND_LINE) is not None
    assert [event.event_id.int for _, event in stores.log.read_from(0)] == [2]
    assert await stores.log.append([stored_event(3), stored_event(4, subject_id=UUID(TWO))]) == [
        "erased",
        "accepted",
    ]
    restarted = stores.restarted_features()
    restarted.restore(stores.log)
    assert await restarted.read(ONE) == {}
    assert await restarted.read(TWO) != {}


async def test_another_process_notices_an_erasure(stores: Stores, tmp_path: Path) -> None:
    await stores.log.append([stored_event(1)])
    other = SqliteControlStore(tmp_path / "control.sqlite", SECRETS)
    await other.erase(ONE, COMMAND_LINE)
    other.close()
    assert await stores.log.append([stored_event(2)]) == ["erased"]
    assert list(stores.log.events_of([ONE])) == []


async def test_what_another_gateway_wrote_of_somebody_new_is_read(
    control_place: ControlPlace,
) -> None:
    """Their key may come to this gateway later than their first event does; it is of nobody only
    where the database says so."""
    writing, reading = control_place.open(), control_place.open()
    there, codec = SealedCodec(SubjectKeys(writing)), SealedCodec(SubjectKeys(reading))

    async def read(body: str | bytes) -> Event | None:
        codec.refresh()
        return await asyncio.to_thread(codec.decode, body)

    subject_id, body, missed = "", b"", 0
    try:
        for number in range(20):
            names = SECRETS.pseudonyms(f"v-{number}", "visitor")
            subject_id = str((await writing.establish(names, None, None)).subject_id)
            event = stored_event(number + 1, subject_id=UUID(subject_id))
            record = there.encode(event)
            assert record is not None
            body = bytes(record.body)  # type: ignore[arg-type]
            missed += await read(body) != event
        assert missed == 0
        await writing.erase(subject_id, COMMAND_LINE)
        await seen(lambda: not reading.exists(subject_id))
        assert await read(body) is None
    finally:
        writing.close()
        reading.close()


async def test_a_long_batch_notices_an_erasure_in_its_midst(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = stores.log._codec
    encode, calls = codec.encode, 0

    def counted(event: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 70:  # what another task does while the batch gives way
            stores.control._writer.submit(
                lambda connection: connection.execute("DELETE FROM subject_keys")
            ).result()
            stores.control._writer.submit(
                lambda connection: connection.execute("UPDATE erasure_count SET number = 1")
            ).result()
        return encode(event)  # type: ignore[arg-type]

    monkeypatch.setattr(codec, "encode", counted)
    assert await stores.log.append([stored_event(n) for n in range(1, 101)]) == ["erased"] * 100
    assert stores.log.last_position == 0


async def test_a_rotated_master_key_opens_everything_and_the_old_one_may_go(tmp_path: Path) -> None:
    old, new = Secrets((b"o" * 32,)), Secrets((b"n" * 32,))
    both = Secrets((*new.masters, *old.masters))
    stores = Stores(tmp_path, old)
    await stores.add_subjects(3)
    await stores.log.append([stored_event(1)])
    stores.close()
    with pytest.raises(UnknownMasterKey, match=old.newest):
        SqliteControlStore(tmp_path / "control.sqlite", new)
    stores = Stores(tmp_path, both)
    assert [event.event_id.int for _, event in stores.log.read_from(0)] == [1]
    assert await stores.control.rewrap(COMMAND_LINE) == 3 + 4  # subjects; those of the shop
    versions = stores.control.key_versions()
    assert versions["subject_keys"] == {new.newest: 3}
    assert versions["service_keys"] == {new.newest: 4}
    stores.close()
    stores = Stores(tmp_path, new)
    assert [event.event_id.int for _, event in stores.log.read_from(0)] == [1]
    assert await stores.control.rewrap(COMMAND_LINE) == 0
    stores.close()


async def test_a_log_of_an_earlier_version_is_refused_in_one_line(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute("CREATE TABLE events (position INTEGER, event_id BLOB, body TEXT)")
    connection.close()
    with pytest.raises(UserError, match="tillwise-serve migrate"):
        Stores(tmp_path)


async def test_keys_are_looked_up_once(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = SubjectKeys(stores.control)
    keys.refresh()
    first = keys.of(ONE)
    assert first is not None
    asked: list[str] = []
    monkeypatch.setattr(stores.control, "subject_key", asked.append)
    assert keys.of(ONE) is first
    assert keys.by_log_key(first.log_key) is first
    keys.refresh()
    assert keys.of(ONE) is first
    assert asked == []


async def test_the_keys_of_a_batch_are_read_at_once(stores: Stores) -> None:
    reads: list[str] = []

    class Counting(SubjectKeys):
        def of(self, subject_id: str | UUID) -> HeldKey | None:
            if subject_id not in self._held:
                reads.append(str(subject_id))
            return super().of(subject_id)

    codec = SealedCodec(Counting(stores.control))
    events = random_events(seed=2, count=50)
    unknown = stored_event(999, subject_id=UUID(int=9))
    codec.fetch([*events, unknown])
    sealed = [codec.encode(event) for event in (*events, unknown)]
    assert [None if one is None else codec.decode(one.body) for one in sealed] == [*events, None]
    assert reads == [str(unknown.subject_id)]
