"""Servers that tests of several packages talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kafka_brokers import brokers
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
