"""A small shop: a real release with groceries in it, the import it was made from, its gateway."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.servers import free_port
from contract.events import Event
from contract.frames import EVENT_SCHEMA
from serving.api.auth import digest_of_key
from serving.state.control_records import Role
from serving.state.event_log import SqliteEventLog
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.secrets import load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL, EVENTS
from tests.serving.commands.forked import Forked
from tests.serving.commands.processes import answers
from tests.serving.release_factory import BUILT_AT, Factory

ROOT = Path(__file__).resolve().parents[2]
NUM_SHOPPERS = 8
_PAST_BASKETS = 6
_BASKET = 10
_NAMES = (
    *("Bananas", "Whole milk, 1 gal", "Sourdough loaf", "Large eggs, 12 ct", "Butter, 1 lb"),
    *("Gala apples, 3 lb", "Ground coffee, 11 oz", "Cheddar, 8 oz", "Orange juice", "Yogurt"),
    *("Baby spinach, 5 oz", "Olive oil, 1 l", "Spaghetti, 16 oz", "Tomato sauce", "Basil"),
    *("Chicken breast", "Brown rice, 2 lb", "Black beans, 15 oz", "Avocados, 4 ct", "Limes"),
)


@dataclass(frozen=True)
class Grocery(Factory):
    """A release whose items have names that a person knows."""

    def _catalogue(self) -> dict[str, Any]:
        titles = [
            f"{_NAMES[n % len(_NAMES)]}{('', ', organic', ', value pack')[n // len(_NAMES)]}"
            for n in range(self.num_items)
        ]
        return {**super()._catalogue(), "title": pa.array(titles, pa.string())}


@dataclass(frozen=True)
class Shop:
    """Where everything of the shop lies."""

    release: Factory
    data: Path


def build(root: Path, **more: Any) -> Shop:
    """Write release and import under `root`; `more` is the release factory's."""
    release = Grocery(root, **more)
    release.write()
    events = root / "data" / "events"
    events.mkdir(parents=True)
    subjects = {f"household-{n}": str(uuid5(NAMESPACE_URL, str(n))) for n in range(NUM_SHOPPERS)}
    columns = {"visitor_id": list(subjects), "subject_id": list(subjects.values())}
    pq.write_table(pa.table(columns), root / "data" / "subjects.parquet")
    rows = [row for n, one in enumerate(subjects.values()) for row in _purchases(release, n, one)]
    table = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    pq.write_table(table.sort_by("occurred_at"), events / "part-00000.parquet")
    return Shop(release, root / "data")


def _purchases(release: Factory, number: int, subject_id: str) -> Iterator[dict[str, Any]]:
    """Baskets of a few favourites before the release was made, and one after it."""
    draw = np.random.default_rng(number)
    favourites = draw.choice(release.num_items, 16, replace=False)
    for basket in range(_PAST_BASKETS + 1):
        days = 7 * (basket - _PAST_BASKETS) + 1
        chosen = draw.choice(favourites, _BASKET, replace=False)
        items = [
            {"item_id": release.item_id(n), "quantity": 1, "price": 100 + int(n)} for n in chosen
        ]
        yield _purchase(f"{number}-{basket}", BUILT_AT + timedelta(days=days), subject_id, items)


def _purchase(
    session_id: str, at: datetime, subject_id: str, items: list[dict[str, Any]]
) -> dict[str, Any]:
    at = at.astimezone(UTC)
    return {
        "schema_version": 1,
        "event_id": str(uuid5(NAMESPACE_URL, session_id)),
        "event_name": "purchase",
        "occurred_at": at,
        "received_at": at,
        "subject_id": subject_id,
        "session_id": session_id,
        "purposes": ["analytics", "personalization"],
        "items": items,
        "currency": "USD",
        "transaction_id": session_id,
        "synthetic": True,
    }


@dataclass
class Demo:
    """A running demo."""

    url: str
    process: Forked
    state: Path

    def events(self, session_id: str) -> list[Event]:
        """What the log holds of a session, oldest first."""
        with closing(self._control()) as control:
            codec = SealedCodec(SubjectKeys(control))
            with closing(SqliteEventLog(self.state / EVENTS, codec)) as log:
                return [one for _, one in log.read_from(0) if one.session_id == session_id]

    def agreed(self, visitor_id: str) -> set[str]:
        """What a visitor agreed to, by the record."""
        secrets = load_secrets(self.state, None)
        with closing(self._control()) as control:
            consent = control.look_up(secrets.pseudonyms(visitor_id, "visitor"), None).consent
        return set() if consent is None else set(consent.purposes)

    def _control(self) -> SqliteControlStore:
        return SqliteControlStore(self.state / CONTROL, load_secrets(self.state, None))

    def key(self, role: Role) -> str:
        """The key of this run, as the demo prints it."""
        said = self.state.with_suffix(".log").read_text()
        found = re.search(rf"tw_{role}_[A-Za-z0-9_-]{{43}}", said)
        assert found is not None, said
        return found[0]

    def key_id(self, role: Role) -> str:
        """The id of that key."""
        with closing(self._control()) as store:
            held = store.key_by_digest(digest_of_key(self.key(role)))
        assert held is not None
        return held.key_id

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def demo(
    shop: Shop,
    state: Path,
    port: int | None = None,
    *more: str,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Demo]:
    """`tillwise-serve demo` on a port of its own, from its page and its keys being there on;
    `settings` are laid over the environment, `more` arguments follow."""
    port = port or free_port()
    flags = {
        "data": shop.data,
        "port": port,
        "state": state,
        "releases": shop.release.releases_dir,
        "models": shop.release.models_dir,
    }
    arguments = [*(f"--{name}={value}" for name, value in flags.items()), *more]
    said = state.with_suffix(".log")
    said.write_bytes(b"")
    process = Forked(["demo", *arguments], os.environ | dict(settings or {}), said, said)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, f"{url}/demo/", said)
        yield Demo(url, process, state)
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def _wait(process: Forked, url: str, said: Path) -> None:
    alive = answers(url, lambda: process.poll() is None)
    until = time.monotonic() + 60
    while alive and "Keys of this run:" not in said.read_text():
        alive = process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    if not alive:
        raise AssertionError(f"the demo did not start: {said.read_text()[-2_000:]}")
