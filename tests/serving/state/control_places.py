"""Where a control store may lie, so that one test asks the same of all kinds."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.postgres_process import PostgresServer
from contract.clock import Clock
from serving.control import open_control
from serving.settings import load_settings
from serving.state.group_writer import StoreError
from serving.state.secrets import Secrets
from serving.state.sql_control_store import SqlControlStore
from tests.serving.state.stores import SECRETS

SEEN_SECONDS = 1.0


@dataclass
class ControlPlace:
    """One place; every store that is opened is that of another gateway."""

    folder: Path
    url: str = "sqlite"
    user: str | None = None
    script: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self._gateways = count()

    def open(self, secrets: Secrets = SECRETS, clock: Clock | None = None) -> SqlControlStore:
        """A store there."""
        state = self.folder / ("state" if self.url == "sqlite" else f"state-{next(self._gateways)}")
        settings = load_settings(state=state, control_store=self.url, postgres_user=self.user)
        return open_control(settings, secrets, clock)

    def run(self, script: str) -> None:
        """Statements behind the store's back."""
        self.script(script)


def in_sqlite(folder: Path) -> ControlPlace:
    """A file."""

    def run(script: str) -> None:
        with closing(sqlite3.connect(folder / "state" / "control.sqlite")) as connection:
            connection.executescript(script)

    return ControlPlace(folder, script=run)


def in_postgresql(folder: Path, server: PostgresServer) -> ControlPlace:
    """A schema of its own."""
    url = server.url_of_own()
    schema = url.rpartition("=")[2]

    def run(script: str) -> None:
        server.ask(f"SET search_path TO {schema}; {script}")

    return ControlPlace(folder, url, server.user, run)


async def seen(there: Callable[[], bool], seconds: float = SEEN_SECONDS) -> None:
    """Wait until it is seen, as all gateways promise within a second. A store may say meanwhile
    that it does not know."""
    until = time.monotonic() + seconds
    while True:
        with suppress(StoreError):
            if there():
                return
        assert time.monotonic() < until, "it was not seen in time"
        await asyncio.sleep(0.005)
