"""One small shop and one fit of it, shared by the tests of training."""

from pathlib import Path

import pytest
import torch

from contract.clock import FixedClock, from_us
from tests.training.shop import build_shop
from training.data.source import Source, read_source
from training.fit import Fit
from training.recipes import Recipe, recipe
from training.recommender import Recommender
from training.run_folder import Run, read_run, write_run

# On matrices this small, and on cores that others use as well, threads wait more than they work.
torch.set_num_threads(1)

SMALL = [
    "dimension=16",
    "negatives=32",
    "batch_size=64",
    "tower_examples=1200",
    "tower_epochs=6",
    "refit_epochs=1",
    "ranker_examples=500",
    "ranker_hidden=16",
    "ranker_epochs=14",
    "ranker_batch_size=16",
    "ranker_learning_rate=0.005",
    "ranker_days=30",
    "validation_examples=120",
    "learning_rate=0.02",
    "search_share=0.5",
]


def small_recipe(*settings: str) -> Recipe:
    """The demo recipe, small enough for seconds."""
    return recipe("demo", [*SMALL, *settings])


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def source(shop_folder: Path) -> Source:
    return read_source(shop_folder)


@pytest.fixture(scope="session")
def fitted(source: Source) -> tuple[Fit, Recommender]:
    fit = Fit(source, small_recipe(), device=torch.device("cpu"))
    return fit, fit.run()


@pytest.fixture(scope="session")
def run(
    source: Source, fitted: tuple[Fit, Recommender], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    fit, recommender = fitted
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, recommender, fit.recipe, source, fit.report, FixedClock(from_us(0)))
    return read_run(folder)
