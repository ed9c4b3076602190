"""`python -m benchmarks.decide` starts a gateway and its control, tells both apart, ends both."""

import json
from pathlib import Path

import psutil
import pytest

from benchmarks.decide import main
from tests.e2e.shop import Shop, build


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return build(tmp_path_factory.mktemp("shop"))


def flags_of(shop: Shop) -> list[str]:
    folders = {
        "data": shop.data,
        "releases": shop.release.releases_dir,
        "models": shop.release.models_dir,
    }
    return [f"--{name}={folder}" for name, folder in folders.items()]


def servers() -> list[str]:
    """Command lines of our children that serve."""
    children = psutil.Process().children(recursive=True)
    return [line for one in children if "--port" in (line := " ".join(one.cmdline()))]


def test_one_table_of_both(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "decide.json"
    few = ["--rate", "20", "--seconds", "1", "--rounds", "1", "--json", str(target)]
    assert main([*flags_of(shop), *few]) in (0, 3)  # 3: too busy here to keep the schedule
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    assert list(rows) == ["bare", "decide/full", "decide/whole"]
    for name in ("decide/full", "decide/whole"):
        assert rows[name]["requests"]["mean"] >= 20
        assert rows[name]["errors"]["mean"] == 0
        assert rows[name]["rung_full"]["mean"] > 0
    assert "rung_full" not in rows["bare"]
    assert any("p99" in note for note in written["notes"])
    assert any("no query vectors are remembered" in note for note in written["notes"])
    assert any("of decide/whole are offered something" in note for note in written["notes"])
    assert "decide/full" in capsys.readouterr().out
    assert servers() == []


def test_what_is_missing_is_named(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags_of(shop), f"--releases={tmp_path}"]) == 2
    assert "make demo" in capsys.readouterr().err
    assert main([*flags_of(shop), f"--data={tmp_path}"]) == 2
    assert "subjects.parquet" in capsys.readouterr().err


def test_servers_end_when_the_measurement_breaks(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        assert len(servers()) == 2
        raise RuntimeError("broken")

    monkeypatch.setattr("benchmarks.decide.drive", broken)
    with pytest.raises(RuntimeError, match="broken"):
        main(flags_of(shop))
    assert servers() == []
