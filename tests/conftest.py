"""Servers that tests of several packages talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kafka_brokers import brokers
from benchmarks.postgres_process import PostgresServer, postgres
from benchmarks.valkey_process import ValkeyServer, valkey


@pytest.fixture(scope="module")
def addresses() -> Iterator[str]:
    """Kafka brokers, as host:port with commas between."""
    with brokers() as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey server of the test's own."""
    (tmp_path / "valkey").mkdir()
    with valkey(tmp_path / "valkey") as running:
        yield running


@pytest.fixture(scope="session")
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL server; every test takes a schema of its own (`url_of_own`). A process that is
    killed loses nothing without fsync, only a machine does."""
    with postgres(fsync="off") as running:
        yield running
