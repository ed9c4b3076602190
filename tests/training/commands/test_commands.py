"""The command line as a person types it: fit, evaluate, export; every wrong turn in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contract.encoding import Vocabulary
from tests.training.conftest import SMALL
from training.__main__ import main


def _settings(*more: str) -> list[str]:
    return [part for text in [*SMALL, *more] for part in ("--set", text)]


def test_the_help_is_told_at_once() -> None:
    heavy = {"numpy", "numba", "pandas", "torch"}
    code = (
        "import sys, training.__main__\n"
        "training.__main__.build_parser()\n"
        f"print(*{heavy} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_another_process_speaks_where_the_first_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    nowhere = ["evaluate", str(tmp_path / "none"), "--data", str(tmp_path)]
    assert main([*nowhere, "--protocol", "basket-completion"]) == 2
    assert len(waited) == 1
    assert "tillwise-train: " in capsys.readouterr().err


def test_fit_evaluate_export(
    shop_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = str(tmp_path / "run"), str(shop_folder)
    few = _settings("tower_epochs=1", "ranker_epochs=1", "tower_examples=200")
    fit = ["fit", "--data", data, "--recipe", "demo", "--output", run, *few]
    assert main([*fit, "--json", str(tmp_path / "fit.json")]) == 0
    figures = json.loads((tmp_path / "fit.json").read_text())
    assert [row["name"] for row in figures["rows"]] == [
        "towers",
        "ranker",
        "ranker refit",
        "towers refit",
        "gap/train",
        "gap/validation",
        "fit",
    ]
    assert not (tmp_path / "run/checkpoints").exists()
    evaluate = ["evaluate", run, "--data", data, "--protocol", "basket-completion"]
    capsys.readouterr()
    assert main(evaluate) == 0
    table = capsys.readouterr().out
    assert "NDCG@5" in table
    assert "\ntillwise " in table
    assert all(f"\ngap/{part} " in table for part in ("train", "validation", "test"))
    kept = (tmp_path / "run/evaluation-basket-completion.json").read_bytes()
    assert main([*evaluate, "--lists", "--cases", "20", "--json"]) == 0
    lists = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row["metrics"] for row in lists["rows"]}
    assert rows["cap 1"]["categories"]["mean"] >= rows["tillwise"]["categories"]["mean"]
    assert rows["tillwise"]["NDCG@5 lost"]["mean"] == 0
    # The table of the run itself stays what it was.
    assert (tmp_path / "run/evaluation-basket-completion.json").read_bytes() == kept
    wrong = ["evaluate", run, "--data", data, "--protocol", "next-basket", "--lists"]
    assert main(wrong) == 2
    assert "--lists needs" in capsys.readouterr().err
    models, releases = str(tmp_path / "models"), str(tmp_path / "releases")
    assert main(["export", run, "--models", models, "--releases", releases, "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in exported["rows"]} >= {"query_tower", "ranker"}
    release = (tmp_path / "releases/current").read_text().strip()
    manifest = json.loads((tmp_path / "releases" / release / "manifest.json").read_text())
    assert 0 < manifest["metrics"]["basket-completion NDCG@5"] < 1
    assert manifest["vocabulary_hash"] != Vocabulary(("a",)).hash


def test_benchmark_has_a_value_per_seed(
    shop_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = _settings("tower_epochs=1", "ranker_epochs=1", "tower_examples=150", "refit_epochs=1")
    command = ["benchmark", "basket-completion", "--data", str(shop_folder), "--seeds", "2", *few]
    assert main([*command, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row["metrics"] for row in figures["rows"]}
    assert len(rows["tillwise"]["NDCG@5"]["values"]) == 2
    assert len(rows["lightgbm"]["NDCG@5"]["values"]) == 2
    assert len(rows["popularity"]["NDCG@5"]["values"]) == 1
    assert len(set(rows["tillwise"]["NDCG@5"]["values"])) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--recipe", "enormous"], "unknown recipe 'enormous'; there are base, demo"),
        (["fit", "--recipe", "demo", "--set", "dimension=-1"], "zero or more"),
        (["fit", "--recipe", "demo", "--train-until", "2024-04-40"], "'2024-04-40' is not a date"),
        (["fit", "--recipe", "demo", "--train-until", "2020-01-01"], "validate-from < train-until"),
        (["fit", "--recipe", "demo", "--test-until", "2024-04-11"], None),
    ],
)
def test_wrong_fits_end_with_2_and_one_line(
    shop_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ["--data", str(shop_folder), "--output", str(tmp_path / "run")]
    if message is None:  # a short test window is fine for a fit
        few = _settings("tower_epochs=1", "ranker_epochs=1", "tower_examples=100")
        assert main([*arguments, *where, *few]) == 0
        return
    assert main([*arguments, *where]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run/run.json").exists()


def test_missing_data_and_missing_runs_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere, run = str(tmp_path / "nowhere"), str(tmp_path / "run")
    fit = ["fit", "--data", nowhere, "--recipe", "demo", "--output", run]
    assert main(fit) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["export", run]) == 2
    assert "no finished run" in capsys.readouterr().err
    evaluate = ["evaluate", run, "--data", nowhere, "--protocol", "next-basket"]
    assert main(evaluate) == 2
    assert "no finished run" in capsys.readouterr().err
    assert main(["benchmark", "next-basket", "--seeds", "0"]) == 2
    assert "at least one" in capsys.readouterr().err


def test_cuda_without_a_device_is_said(
    shop_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.fail("run the tests marked gpu instead")
    where = ["--data", str(shop_folder), "--output", str(tmp_path)]
    assert main(["fit", "--recipe", "demo", "--device", "cuda", *where]) == 2
    assert "no CUDA device" in capsys.readouterr().err
