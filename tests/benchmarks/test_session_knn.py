"""`python -m benchmarks.session_knn` measures what it says, on a made-up log and on one given."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.session_knn import main, synthetic_clicks


def test_one_table_of_two_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clicks = pa.table({"SessionId": [1, 1, 2, 2, 2], "ItemId": [7, 8, 8, 7, 9], "Time": range(5)})
    for name in ("train", "valid", "test"):
        pq.write_table(clicks, tmp_path / f"{name}.parquet")
    target = tmp_path / "figures.json"
    small = ["--clicks", "3000", "--items", "200", "--predictions", "300"]
    assert main([*small, "--data", str(tmp_path), "--json", str(target)]) == 0
    written = json.loads(target.read_text())
    assert [row["name"] for row in written["rows"]] == ["session-knn/data", "session-knn/synthetic"]
    for row in written["rows"]:
        metrics = {name: found["mean"] for name, found in row["metrics"].items()}
        assert 0 < metrics["p50_ms"] <= metrics["p90_ms"] <= metrics["p99_ms"] <= metrics["max_ms"]
        assert 0 < metrics["index_mib"] < 1
    assert any("5 clicks, 2 sessions, 3 items; 3 predictions" in n for n in written["notes"])
    assert any("3,000 clicks" in n and "300 predictions" in n for n in written["notes"])
    assert "session-knn/synthetic" in capsys.readouterr().out


def test_the_same_seed_makes_the_same_log() -> None:
    one, again, other = (synthetic_clicks(2_000, 50, seed, 100) for seed in (0, 0, 1))
    assert len(one.item) == 2_000
    assert one.item.max() < 50
    np.testing.assert_array_equal(one.item, again.item)
    assert not np.array_equal(one.item, other.item)
    assert sum(len(session) - 1 for session in one.test_sessions) >= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clicks", "0"], "nothing to measure"),
        (["--items", "0"], "at least 1"),
        (["--clicks", "0", "--data", "absent"], "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
