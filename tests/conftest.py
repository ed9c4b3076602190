"""The order of the files, and servers that tests of several packages talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kafka_brokers import brokers
from benchmarks.postgres_process import PostgresServer, postgres
from benchmarks.valkey_process import ValkeyServer, valkey

# Half a minute and more each: begun last, one of them would go on when all else is done. What only
# reckons comes first, so that what looks at the clock runs beside the short ones.
LONG = (
    "training/retraining/test_pipeline.py",
    "training/retraining/test_kills.py",
    "training/test_distributed.py",
    "k8s/test_image.py",
    "training/commands/test_commands.py",
    "serving/api/test_rights_training.py",
    "training/segments/test_release.py",
    "training/export/test_release.py",
    "training/export/test_int8.py",
    "training/test_fit.py",
    "training/data/test_completejourney.py",
    "serving/commands/test_worker.py",
    "e2e/test_demo_page.py",
    "e2e/test_snippet.py",
    "e2e/test_live_shopper.py",
    "faults/test_triton.py",
    "benchmarks/test_triton.py",
    "benchmarks/test_swaps.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take long first."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


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
