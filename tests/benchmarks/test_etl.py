"""`python -m benchmarks.etl` reads the log that it makes, whole, both ways."""

import json
import subprocess
import sys
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


def test_no_bar_is_drawn_where_there_seems_to_be_a_prompt(tmp_path: Path) -> None:
    """As in the process that a benchmark spawns, `__main__` has no file: DuckDB would draw one."""
    asked = "SELECT current_setting('enable_progress_bar')"
    code = (
        "import duckdb, pathlib\n"
        "from training.data.encoded_sequences import open_engine\n"
        f'print(duckdb.connect().execute("{asked}").fetchone()[0])\n'
        f'print(open_engine(pathlib.Path({str(tmp_path)!r}), 256).raw_sql("{asked}").fetchone()[0])'
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "False"]
