"""`python -m benchmarks.experiments` keeps its promises at a reduced count and refuses nonsense."""

import json
from pathlib import Path

import pytest

from benchmarks.experiments import main


def test_experiments_can_be_trusted(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    assert main(["--tests", "100", "--ids", "200000", "--json", str(target)]) == 0
    rows = {row["name"]: row["metrics"] for row in json.loads(target.read_text())["rows"]}
    assert (
        rows["A/A looked"]["found"]["mean"] < rows["A/A looked, one-look interval"]["found"]["mean"]
    )
    assert rows["lift of 5%, one look"]["units"]["mean"] == pytest.approx(12_558, rel=0.001)


@pytest.mark.slow
def test_experiments_can_be_trusted_at_full_counts() -> None:
    assert main([]) == 0


def test_too_few_to_say_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tests", "3"]) == 2
    assert "at least 100 tests" in capsys.readouterr().err
