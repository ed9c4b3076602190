"""`python -m benchmarks.training` times real steps and says what they use of the device."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.training import datasheet_tflops, main, matmul_tflops
from benchmarks.training_cases import CASES

FEW = ["--items", "500", "--seconds", "0.2", "--rounds", "2"]
SMALL = ["--set", "batch_size=8", "--set", "negatives=16", "--set", "ranker_batch_size=4"]


def _rows(target: Path) -> dict[str, dict[str, dict[str, float]]]:
    written = json.loads(target.read_text())
    assert written["machine"]["dtype"] in ("float32", "bfloat16")
    return {row["name"]: row["metrics"] for row in written["rows"]}


def test_every_case_has_its_rate_and_its_share_of_the_peak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "training.json"
    assert main([*FEW, *SMALL, "--json", str(target)]) == 0
    rows = _rows(target)
    assert list(rows) == ["peak/matmul", *CASES]
    for case in CASES:
        assert len(rows[case]["per_second"]["values"]) == 2  # type: ignore[arg-type]
        assert rows[case]["per_second"]["mean"] > 0
        expected = rows[case]["TFLOP/s"]["mean"] / rows["peak/matmul"]["TFLOP/s"]["mean"]
        assert rows[case]["share of matmul peak"]["mean"] == pytest.approx(expected)
        assert expected > 0  # its peak is measured a moment later, on a machine with other work
    assert "per_second is examples" in capsys.readouterr().out


def test_what_cannot_be_timed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FEW, "--items", "3"]) == 2
    assert "--items at least 100" in capsys.readouterr().err
    assert main([*FEW, "--recipe", "enormous"]) == 2
    assert "unknown recipe" in capsys.readouterr().err
    assert main([*FEW, *SMALL, "--cases", "towers", "--set", f"negatives={2**50}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("benchmarks.training: towers: this machine has not enough memory")


def test_a_device_is_known_by_its_name() -> None:
    assert datasheet_tflops("NVIDIA H100 PCIe") == 756.5
    assert datasheet_tflops("NVIDIA H100 80GB HBM3") == 989.5
    assert datasheet_tflops("cpu") is None


@pytest.mark.gpu
def test_a_step_in_bfloat16_uses_some_of_the_tensor_cores(tmp_path: Path) -> None:
    target = tmp_path / "training.json"
    assert main(["--device", "cuda", "--seconds", "2", "--json", str(target)]) == 0
    assert 0 < _rows(target)["towers"]["share of matmul peak"]["mean"] < 1
    assert matmul_tflops(torch.device("cuda"), torch.bfloat16) > 1
