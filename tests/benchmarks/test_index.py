"""`python -m benchmarks.index` prints one table and refuses what is no table of vectors."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.index import main
from benchmarks.vectors import held_out, synthetic


def test_one_table_of_two_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "index.json"
    small = ["--items", "1500", "3000", "--dimension", "8", "--queries", "40"]
    assert main([*small, "--kinds", "ivf_flat", "hnsw", "--json", str(target)]) == 0
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    for size in ("1,500", "3,000"):
        flat = rows[f"{size} flat"]
        assert flat["recall@91"]["mean"] == flat["recall@316"]["mean"] == 1
        assert flat["MiB"]["mean"] == pytest.approx(
            (int(size.replace(",", "")) + 2) * 8 * 4 / 2**20
        )
        strict = [name for name in rows if name.startswith(f"{size} flat filter")]
        assert len(strict) == 5
        assert {rows[name]["recall@60"]["mean"] for name in strict} == {1.0}
        for kind in ("ivf_flat", "hnsw"):
            (name,) = (n for n in rows if n.startswith(f"{size} {kind}") and "filter" not in n)
            assert 0.5 < rows[name]["recall@91"]["mean"] <= 1
            assert rows[name]["p50_ms"]["mean"] <= rows[name]["p99_ms"]["mean"]
            assert rows[name]["MiB"]["mean"] > flat["MiB"]["mean"]
    assert any("the export takes flat" in note for note in written["notes"])
    assert "3,000 flat" in capsys.readouterr().out


def test_vectors_from_a_file(tmp_path: Path) -> None:
    vectors, queries = synthetic(1_200, 8, 30, 1)
    np.save(tmp_path / "items.npy", vectors)
    np.save(tmp_path / "asked.npy", queries)
    target = tmp_path / "index.json"
    given = [f"--vectors={tmp_path / 'items.npy'}", "--kinds", "ivf_flat", f"--json={target}"]
    for more, count in (([], 1_080), ([f"--asked={tmp_path / 'asked.npy'}"], 1_200)):
        assert main([*given, *more]) == 0
        names = [row["name"] for row in json.loads(target.read_text())["rows"]]
        assert f"{count:,} flat" in names


def test_held_out_queries_are_no_items() -> None:
    vectors, _ = synthetic(1_000, 8, 0, 0)
    items, asked = held_out(vectors, 50, 0)
    assert (items.shape, asked.shape) == ((950, 8), (50, 8))
    nearest = (items @ asked.T).max(axis=0)
    assert not np.isclose(asked[:, None], vectors[None]).all(axis=2).any()
    assert nearest.mean() > 0.5  # they stay among their kind


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no numbers", "is no readable .npy file"),
        (np.zeros(4), "needs at least 1000 finite vectors"),
        (np.full((1_000, 2), np.nan), "needs at least 1000 finite vectors"),
    ],
)
def test_what_is_no_table_of_vectors_is_named(
    tmp_path: Path, content: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, np.asarray(content))
    assert main(["--vectors", str(path)]) == 2
    told = capsys.readouterr().err
    assert "items.npy" in told
    assert said in told
    assert main(["--items", "10"]) == 2
    assert "--items must be at least 1000" in capsys.readouterr().err
    assert main(["--vectors", str(tmp_path / "none.npy")]) == 2
