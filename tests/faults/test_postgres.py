"""The control store in PostgreSQL while the server dies, stops and comes back: what was
acknowledged is there, and no call waits for ever."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.postgres_process import PostgresServer, postgres
from serving.state.control_records import Consent, Identity
from serving.state.group_writer import StoreError
from tests.serving.conftest import NOON
from tests.serving.state.control_places import in_postgresql
from tests.serving.state.stores import SECRETS

AGREED = Consent(frozenset({"analytics", "personalization"}), NOON, "banner")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may kill."""
    with postgres(fsync="off") as running:
        yield running


async def test_a_database_that_stops_answering_holds_nobody_up(
    server: PostgresServer, tmp_path: Path
) -> None:
    store = in_postgresql(tmp_path, server).open()
    known = SECRETS.pseudonyms("v", "visitor")
    await store.establish(known, None, AGREED)
    server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(StoreError):
            await store.establish(SECRETS.pseudonyms("w", "visitor"), None, AGREED)
        assert time.monotonic() - began < 12  # the wait for the writer's limit, and to connect anew
        with pytest.raises(StoreError, match="not been heard of"):
            store.look_up(known, None)
    finally:
        server.go_on()
    await asyncio.sleep(1)
    await store.establish(SECRETS.pseudonyms("w", "visitor"), None, AGREED)
    assert store.look_up(known, None).consent == AGREED
    store.close()


async def test_what_was_acknowledged_survives_the_server(
    server: PostgresServer, tmp_path: Path
) -> None:
    place = in_postgresql(tmp_path, server)
    store = place.open()
    made: dict[str, Identity] = {}

    async def shop() -> None:
        for number in range(10_000):
            try:
                name = SECRETS.pseudonyms(f"v{number}", "visitor")
                made[f"v{number}"] = await store.establish(name, None, AGREED)
            except StoreError:
                return

    shopping = asyncio.create_task(shop())
    await asyncio.sleep(0.5)
    server.kill()
    await asyncio.wait_for(shopping, 15)
    server.start()
    store.close()
    store = place.open()
    assert len(made) > 5
    for name, identity in made.items():
        found = store.look_up(SECRETS.pseudonyms(name, "visitor"), None)
        assert (found.subject_id, found.consent) == (identity.subject_id, identity.consent)
    store.close()


def test_a_copy_of_a_killed_process_is_removed(database: PostgresServer, tmp_path: Path) -> None:
    place = in_postgresql(tmp_path, database)
    left = tmp_path / "state-0" / "copies" / "copy-left"
    left.mkdir(parents=True)
    (left / "copy.sqlite").write_text("somebody's")
    store = place.open()
    assert not left.exists()
    assert len(list(left.parent.glob("copy-*"))) == 1
    store.close()
    assert list(left.parent.glob("copy-*")) == []
