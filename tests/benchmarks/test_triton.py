"""The benchmarks of Triton start real servers, fill their tables, and leave nothing running."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks import triton, triton_batching, triton_faults
from contract.manifest import MODELS
from tests.serving.release_factory import Factory
from tests.serving.triton_repository import prepare


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    factory = Factory(tmp_path_factory.mktemp("benchmark"))
    factory.write()
    prepare(factory)
    yield [f"--releases={factory.releases_dir}", f"--models={factory.models_dir}"]
    left = [one.name() for one in psutil.Process().children(recursive=True)]
    assert not [name for name in left if "triton" in name]


def test_one_table_with_and_without_batching(folders: list[str], tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    short = ["--rounds=1", "--seconds=0.3", "--callers", "8", "--delays", "0", "--stalls=300"]
    assert triton.main([*folders, *short, "--apart", f"--json={target}"]) == 0
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    ways = [f"{one}, 8 callers" for one in ("without batching", "delay 0 us", "nothing computed")]
    apart = [f"{model}: {one}" for model in MODELS for one in ways]
    assert list(rows)[: len(ways) + len(apart)] == [*ways, *apart]
    assert all(rows[name]["per_second"]["mean"] > 0 for name in (*ways, *apart))
    assert rows["stalls"]["requests"]["mean"] >= 300
    parity = [row["parity"]["mean"] for name, row in rows.items() if name.startswith("parity")]
    assert len(parity) == 3
    assert max(parity) <= 1e-4
    assert any("delay 0 us" in note and "p99 within" in note for note in written["notes"])
    assert any(f"{MODELS[0]}: 8 callers, nothing computed" in note for note in written["notes"])


def test_rates_are_compared_at_equal_p99() -> None:
    def rounds(per_second: float, p99_ms: float, cpu_ms: float) -> list[dict[str, float]]:
        once = {"per_second": per_second, "p99_ms": p99_ms, "cpu_ms": cpu_ms}
        return [once, once | {"per_second": per_second / 2, "p99_ms": p99_ms * 2}, once]

    found = {
        ("without batching", 1): rounds(500, 5, 1.0),
        ("without batching", 64): rounds(600, 70, 0.9),
        ("delay 0 us", 1): rounds(700, 6, 0.8),
        ("delay 0 us", 64): rounds(1_200, 40, 0.3),
    }
    assert triton_batching.conclusions(found) == [
        "p99 within 25 ms: 500/s without batching (1 callers)",
        "p99 within 25 ms: 700/s, delay 0 us (1 callers): 1.40 times, MISSED (target 2)",
        "p99 within 50 ms: 500/s without batching (1 callers)",
        "p99 within 50 ms: 1200/s, delay 0 us (64 callers): 2.40 times, reached",
        "p99 within 100 ms: 600/s without batching (64 callers)",
        "p99 within 100 ms: 1200/s, delay 0 us (64 callers): 2.00 times, reached",
        "64 callers, delay 0 us: a core of the server answers 3.00 times as many",
    ]


def test_every_fault_is_answered(folders: list[str], tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    one = ["--faults", "model process killed", "--rate=20", f"--json={target}"]
    assert triton_faults.main([*folders, *one]) in (0, 3)  # 3: too busy to keep the schedule
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    assert "start to first answer, no Triton" in rows
    back = rows["model process killed: return"]
    assert back["errors"]["mean"] == 0
    cheaper = [one for one in back if one.startswith("rung_") and one != "rung_full"]
    assert any(back[one]["mean"] > 0 for one in cheaper)  # which of them is the machine's to say
    assert any("0 not answered 200" in note for note in written["notes"])


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (triton, triton_faults):
        assert module.main([f"--releases={tmp_path}"]) == 2
        assert "make demo" in capsys.readouterr().err
