"""Two real processes under torchrun: they learn what one learns, read each other's checkpoints, and
go on when one of them is killed."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.training.conftest import SMALL
from tests.training.processes import TIMEOUT_SECONDS, Launcher, torchrun
from tests.training.sharded_steps import EPOCHS, steps
from training import distributed
from training.__main__ import main

# Without dropout two processes differ from one by rounding alone.
ROUNDING = 2e-4
# Adam divides by the size of the gradient: rows that were hardly touched carry the rounding whole.
WEIGHTS = 0.03
# With it they draw other masks, and the epochs of the small shop differ by a few hundredths.
DROPOUT = 0.05
SCRIPT = "tests/training/sharded_steps.py"
TRAINING = "training/__main__.py"
TABLES = (
    "item_id_table",
    "brand_table",
    "category_table",
    "text_table",
    "wording_table",
    "price_table",
)
MIXED = dict(
    zip(
        TABLES,
        (
            "column_wise",
            "table_wise",
            "data_parallel",
            "column_wise",
            "data_parallel",
            "table_wise",
        ),
        strict=True,
    )
)


def _spread_steps(
    launch: Launcher, shop: Path, folder: Path, checkpoint: str = "-", epochs: int = EPOCHS
) -> dict[str, Any]:
    result = folder / "result.pt"
    placed = ",".join(f"{table}={kind}" for table, kind in MIXED.items())
    arguments = [str(shop), str(result), placed, checkpoint, str(epochs)]
    status, _, complained = launch.torchrun(SCRIPT, *arguments).end()
    assert status == 0, complained
    found: dict[str, Any] = torch.load(result, weights_only=True)
    return found


@pytest.fixture(scope="module")
def alone(shop_folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return steps(shop_folder, {}, None, EPOCHS)


def _assert_alike(
    spread: dict[str, Any], alone: tuple[dict[str, Any], dict[str, torch.Tensor]]
) -> None:
    history, weights = alone
    for figures in ("train_loss", "validation"):
        assert spread["history"][figures] == pytest.approx(history[figures], rel=ROUNDING)
    assert spread["weights"].keys() == weights.keys()
    for name, weight in weights.items():
        one, both = weight.float(), spread["weights"][name].float()  # flags as well
        difference = (both - one).norm() / one.norm().clamp(min=1e-6)
        assert difference < WEIGHTS, name


def test_one_process_goes_on_from_the_checkpoint_of_two(
    launch: Launcher,
    shop_folder: Path,
    tmp_path: Path,
    alone: tuple[dict[str, Any], dict[str, torch.Tensor]],
) -> None:
    """Table-wise, column-wise and data-parallel tables in one model; the last batch is smaller than
    the number of processes. Weight decay, clipping and AdamW's moments are all part of a step."""
    kept = tmp_path / "steps.pt"
    _spread_steps(launch, shop_folder, tmp_path, str(kept), epochs=2)
    assert len(torch.load(kept, weights_only=True)["history"]["train_loss"]) == 2
    history, weights = steps(shop_folder, {}, kept, EPOCHS)
    _assert_alike({"history": history, "weights": weights}, alone)


def test_two_processes_go_on_from_the_checkpoint_of_one(
    launch: Launcher,
    shop_folder: Path,
    tmp_path: Path,
    alone: tuple[dict[str, Any], dict[str, torch.Tensor]],
) -> None:
    kept = tmp_path / "steps.pt"
    steps(shop_folder, {}, kept, 2)
    before = torch.load(kept, weights_only=True)
    assert len(before["history"]["train_loss"]) == 2
    assert set(before["optimizer"]["state"]) <= set(before["model"])
    _assert_alike(_spread_steps(launch, shop_folder, tmp_path, str(kept)), alone)


def _fit(shop: Path, run: Path, *settings: str) -> list[str]:
    chosen = [part for text in [*SMALL, *settings] for part in ("--set", text)]
    return ["fit", "--data", str(shop), "--recipe", "demo", "--output", str(run), *chosen]


def _histories(run: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((run / "run.json").read_text())["report"][
        "histories"
    ]
    return found


def _losses(run: Path, stage: str) -> list[float]:
    losses: list[float] = _histories(run)[stage]["train_loss"]
    return losses


def test_the_whole_fit_ends_like_that_of_one_process(
    shop_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "ranker_epochs=4"
    assert main(_fit(shop_folder, tmp_path / "one", few)) == 0
    capsys.readouterr()
    json_file = tmp_path / "figures.json"
    two = _fit(shop_folder, tmp_path / "two", few)
    status, said, complained = torchrun("-m", "training", *two, "--json", str(json_file))
    assert status == 0, complained
    assert said.count("towers refit") == 1  # only the first process speaks
    assert json.loads(json_file.read_text())["machine"]["processes"] == 2
    for stage in ("towers", "ranker", "ranker refit", "towers refit"):
        one, both = _losses(tmp_path / "one", stage), _losses(tmp_path / "two", stage)
        common = min(len(one), len(both))  # other masks may stop it an epoch sooner or later
        assert both[:common] == pytest.approx(one[:common], rel=DROPOUT), stage
    # The run is an ordinary one: one process evaluates it.
    evaluate = ["evaluate", str(tmp_path / "two"), "--data", str(shop_folder), "--skip", "lightgbm"]
    assert main([*evaluate, "--protocol", "basket-completion"]) == 0


def _second_worker(torchrun: psutil.Process) -> psutil.Process:
    """The later one of the two forks; multiprocessing may have started a process as well."""
    forks = [one for one in torchrun.children() if one.cmdline() == torchrun.cmdline()]
    return max(forks, key=lambda one: one.pid)


def test_a_run_whose_worker_is_killed_goes_on_and_reaches_the_end(
    launch: Launcher, shop_folder: Path, tmp_path: Path
) -> None:
    settings = ("tower_epochs=10", "tower_patience=10", "learning_rate=0.005", "ranker_epochs=2")
    command = _fit(shop_folder, tmp_path / "run", *settings)
    started = launch.torchrun(TRAINING, *command, restarts=1)
    kept = tmp_path / "run/checkpoints/towers.pt"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not kept.exists() and started.runs() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed = _second_worker(psutil.Process(started.pid)).pid
    os.kill(killed, signal.SIGKILL)
    before = torch.load(kept, weights_only=True)["history"]["train_loss"]
    status, _, complained = started.end()
    assert status == 0, complained
    assert str(killed) in complained  # torchrun tells of its death
    after = _histories(tmp_path / "run")["towers"]["train_loss"]
    assert len(before) < 10
    assert after[: len(before)] == before  # gone on with, not begun again
    assert main(_fit(shop_folder, tmp_path / "whole", *settings)) == 0
    one, two = (_losses(tmp_path / name, "towers")[-1] for name in ("whole", "run"))
    assert two == pytest.approx(one, rel=DROPOUT)


def test_restarted_processes_do_not_call_the_dead_ones(launch: Launcher) -> None:
    status, said, complained = launch.torchrun("tests/training/late_worker.py", restarts=1).end()
    assert status == 0, complained
    assert said.splitlines() == ["attempt 1: 2 processes"]


def test_bad_input_is_said_once_by_many(
    launch: Launcher, shop_folder: Path, tmp_path: Path
) -> None:
    command = _fit(shop_folder, tmp_path / "run", "min_item_baskets=5000")
    status, said, complained = launch.torchrun(TRAINING, *command).end()
    assert status != 0
    assert complained.count("tillwise-train: no item stands in 5000 or more baskets") == 1
    assert not said


def test_alone_everything_is_whole() -> None:
    rows = torch.arange(5)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert torch.equal(distributed.part(rows), rows)
    assert float(distributed.share(torch.tensor(7.0))) == 1.0
    assert distributed.of_all("mine") == ["mine"]
    assert distributed.from_first(lambda: 3) == 3
