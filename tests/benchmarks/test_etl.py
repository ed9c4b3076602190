"""`python -m benchmarks.etl` reads the log that it makes, whole, both ways."""

import json
from pathlib import Path

import pytest

from benchmarks.etl import main


def test_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    assert main(["--events", "5000", "--items", "100", "--json", str(target)]) == 0
    written = json.loads(target.read_text())
    assert [row["name"] for row in written["rows"]] == ["etl/subject", "etl/session"]
    for row in written["rows"]:
        per_second = row["metrics"]["per_second"]["mean"]
        assert per_second == pytest.approx(5_000 / row["seconds"], rel=0.01)
        assert row["peak_mib"] > 0
    assert any(note.startswith("by session: ") for note in written["notes"])
    assert "etl/subject" in capsys.readouterr().out


def test_what_cannot_be_measured_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--events", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
