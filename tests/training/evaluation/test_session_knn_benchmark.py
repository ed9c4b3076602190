"""The table of `session-knn` on a log so small that every figure can be done by hand."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.__main__ import main
from training.evaluation.session_knn_benchmark import session_knn_table

A, B, C, D, NEW = 1, 2, 3, 4, 9


def write(folder: Path, name: str, sessions: list[list[int]]) -> None:
    rows = [
        (s, item, 10 * s + n) for s, items in enumerate(sessions) for n, item in enumerate(items)
    ]
    columns = zip(*rows, strict=True)
    table = dict(zip(("SessionId", "ItemId", "Time"), map(list, columns), strict=True))
    pq.write_table(pa.table(table), folder / f"{name}.parquet")


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    # Sessions that hold A: 3, B: 3, C: 2, D: 1.
    write(tmp_path, "train", [[A, B], [A, B], [A, C], [B, C, D]])
    write(tmp_path, "valid", [[A, B]])
    write(tmp_path, "test", [[A, B, D], [C, C], [C, NEW], [A]])
    return tmp_path


def test_by_hand(clicks: Path) -> None:
    rows = {row["name"]: row["metrics"] for row in session_knn_table(clicks).rows}
    assert list(rows) == ["popularity", "last-item-knn", "session-knn"]
    # A -> B, AB -> D, C -> C (dropped, so never found), C -> NEW (not known to training).
    # Popularity without the current item: B stands first after A; D is third after B (A, C, D).
    assert rows["popularity"]["MRR@20"]["mean"] == pytest.approx((1 + 1 / 3) / 4)
    # Cosines: A-B 2/3, A-C 1/sqrt(6); B-A 2/3, B-D 1/sqrt(3), B-C 1/sqrt(6).
    assert rows["last-item-knn"]["MRR@20"]["mean"] == pytest.approx((1 + 1 / 2) / 4)
    # A: B gets .9 log(4/3) from each of two sessions, C .9 log(4/2) from one: C before B.
    # A, B: the session B C D matches at place 1 with similarity 1 and gives D .9 log 4, more than
    # anything that A gets (.9 * (1.5 + 1.5) + .8 * .5) log(4/3) = 3.1 log(4/3) or C.
    assert rows["session-knn"]["MRR@20"]["mean"] == pytest.approx((1 / 2 + 1) / 4)
    for row in rows.values():
        assert row["HR@20"]["mean"] == pytest.approx(2 / 4)
        assert 0 < row["p50_ms"]["mean"] <= row["p90_ms"]["mean"] <= row["p99_ms"]["mean"]


def test_orders_of_equal_scores_bound_the_figures(tmp_path: Path) -> None:
    write(tmp_path, "train", [[A, B, C], [D]])
    write(tmp_path, "valid", [[A, B]])
    write(tmp_path, "test", [[A, C]])
    figures = session_knn_table(tmp_path)
    assert figures.rows[-1]["metrics"]["MRR@20"]["mean"] == 0.5  # B and C are equal
    assert any("give MRR@20 0.5000 to 1.0000, HR@20 1.0000 to 1.0000" in n for n in figures.notes)


def test_command(clicks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "session-knn", "--data", str(clicks), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == "benchmark session-knn"
    assert {row["name"] for row in told["rows"]} >= {"session-knn", "popularity"}
    assert main(["benchmark", "session-knn"]) == 2
    assert "needs --data" in capsys.readouterr().err
    assert main(["benchmark", "session-knn", "--data", str(clicks / "nowhere")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
