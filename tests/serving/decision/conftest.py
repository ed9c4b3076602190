"""The tiny release and the known shopper, for every test of the decision."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.inference.release import Release
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import filled_store, loaded
from tests.serving.release_factory import Factory


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    made = Factory(tmp_path_factory.mktemp("release"))
    made.write()
    return made


@pytest.fixture
def release(factory: Factory) -> Iterator[Release]:
    held = loaded(factory)
    yield held
    held.models.close()


@pytest.fixture
async def store(tmp_path: Path) -> MemoryFeatureStore:
    return await filled_store(tmp_path)
