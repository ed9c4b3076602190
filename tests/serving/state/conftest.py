"""The kinds of stores that tests here are run against."""

from pathlib import Path

import pytest

from benchmarks.postgres_process import PostgresServer
from tests.serving.state.control_places import ControlPlace, in_postgresql, in_sqlite


@pytest.fixture(params=["sqlite", "postgresql"])
def control_place(request: pytest.FixtureRequest, tmp_path: Path) -> ControlPlace:
    """Where a control store lies."""
    if request.param == "sqlite":
        return in_sqlite(tmp_path)
    server: PostgresServer = request.getfixturevalue("database")
    return in_postgresql(tmp_path, server)
