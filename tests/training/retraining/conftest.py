"""A champion of the small shop, and what a retraining of it is asked for."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from contract.clock import FixedClock
from tests.once import made_once
from tests.training.conftest import small_recipe
from tests.training.data.conftest import catalogue_file
from training.export.release import export
from training.gates.limits import Limits
from training.pipeline import Outcome, retrain
from training.retraining.plan import Wish, live_release
from training.run_folder import Run

__all__ = ["catalogue_file"]

NOW = FixedClock(datetime(2024, 5, 1, 12, tzinfo=UTC))
UNTIL, WINDOW_DAYS = date(2024, 4, 29), 12
# 140 questions of 60 shoppers: what thousands would make sure of, they can not.
LENIENT = Limits(quality_loss=0.2, calibration_error=0.9, slower=3.0, min_slice=60, min_group=20)
MakeWish = Callable[..., Wish]


@pytest.fixture(scope="session")
def shelves(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `releases` and `models`, in which one release is live; not to be changed."""
    root = tmp_path_factory.mktemp("champion")
    then = FixedClock(datetime(2024, 4, 10, tzinfo=UTC))
    export(run, root / "models", root / "releases", then, {})
    return root


def _wish(root: Path, shop_folder: Path, **changed: Any) -> Wish:
    """A wish over the shelves in `root`."""
    usual = Wish(
        data=shop_folder,
        champion="live",
        releases=root / "releases",
        models=root / "models",
        output=root / "retraining",
        recipe=small_recipe("tower_epochs=3", "ranker_epochs=6"),
        limits=LENIENT,
        until=UNTIL,
        window_days=WINDOW_DAYS,
        validation_days=10,
        folds=0,
        latency="process",
    )
    return replace(usual, **changed)


@pytest.fixture
def wish(shelves: Path, shop_folder: Path, tmp_path: Path) -> MakeWish:
    """A wish over a copy of the shelves in a folder of its own."""

    def make(name: str = "shop", **changed: Any) -> Wish:
        shutil.copytree(shelves, tmp_path / name)
        return _wish(tmp_path / name, shop_folder, **changed)

    return make


@pytest.fixture(scope="session")
def passed(
    shelves: Path, shop_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Wish, Outcome]:
    """A clean retraining from beginning to end, without an interruption, read back at its end."""
    champion = live_release(shelves / "releases")

    def wish_in(root: Path) -> Wish:
        return _wish(root, shop_folder, champion=champion, folds=2, rollout="promote")

    def make(root: Path) -> None:
        shutil.copytree(shelves, root, dirs_exist_ok=True)
        assert retrain(wish_in(root), NOW).steps.resumed == []

    asked = wish_in(made_once(tmp_path_factory, "passed", make))
    return asked, retrain(asked, NOW)
