"""Stores of one folder, put together as a gateway does it."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from contract.clock import Clock
from contract.features import SubjectState
from serving.state.control_records import Consent
from serving.state.event_log import SqliteEventLog
from serving.state.feature_store import MemoryFeatureStore
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.secrets import Pseudonym, Secrets
from serving.state.snapshot import read_snapshot
from serving.state.sql_control_store import SqlControlStore
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import SEED
from tests.serving.state.events import BEGIN

SECRETS = Secrets((b"m" * 32,))


async def add_subjects(control: SqlControlStore, count: int) -> None:
    """Subjects 1 to `count`, as `tests.serving.state.events` names them."""
    rows = [(Pseudonym("v", f"digest-{n}"), str(UUID(int=n))) for n in range(1, count + 1)]
    agreed = Consent(frozenset({"analytics", "personalization"}), BEGIN, "test")
    await control.import_subjects(rows, agreed, ("test", "made"))


def destroy_key(control: SqliteControlStore, subject: int) -> bytes:
    """The first step of an erasure alone, done at once; returns the log key."""
    subject_id = str(UUID(int=subject))
    key = control.subject_key(subject_id)
    assert key is not None

    def destroy(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM subject_keys WHERE subject_id = ?", (subject_id,))
        connection.execute("UPDATE erasure_count SET number = number + 1")

    control._writer.submit(destroy).result()
    return key.log_key


@contextmanager
def control_of(folder: Path, subjects: int = 4) -> Iterator[SqliteControlStore]:
    """A control store with `subjects`."""
    control = SqliteControlStore(folder / "control.sqlite", SECRETS)
    try:
        asyncio.run(add_subjects(control, subjects))
        yield control
    finally:
        control.close()


class Stores:
    """Control store, keys, event log and features of `folder`."""

    def __init__(
        self, folder: Path, secrets: Secrets = SECRETS, clock: Clock | None = None
    ) -> None:
        self.folder = folder
        self.control = SqliteControlStore(folder / "control.sqlite", secrets, clock)
        self.keys = SubjectKeys(self.control)
        self.log = SqliteEventLog(folder / "events.sqlite", SealedCodec(self.keys))
        self.features = MemoryFeatureStore(folder, self.keys)

    async def add_subjects(self, count: int) -> None:
        """Subjects 1 to `count`, as `tests.serving.state.events` names them."""
        await add_subjects(self.control, count)

    def restarted_features(self) -> MemoryFeatureStore:
        """What the next start begins with."""
        return MemoryFeatureStore(self.folder, self.keys)

    def read_seed(self) -> dict[str, SubjectState]:
        """The states that an import left; the stores are closed."""
        states = read_snapshot(self.folder / SEED, self.keys).states
        self.close()
        return states

    def close(self) -> None:
        """As the gateway does."""
        self.log.close()
        self.control.close()
