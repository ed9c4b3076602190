"""The ingest benchmark drives a real gateway, encrypted and not."""

import json
from pathlib import Path

from benchmarks.ingest import KINDS, main
from tests.serving.release_factory import Factory


def test_both_kinds_are_measured_in_one_table(tmp_path: Path) -> None:
    factory = Factory(tmp_path / "release")
    factory.write()
    report = tmp_path / "figures.json"
    arguments = ["--rounds", "1", "--events", "1000", "--shoppers", "500", "--connections", "2"]
    folders = ["--releases", str(factory.releases_dir), "--models", str(factory.models_dir)]
    assert main([*arguments, *folders, "--json", str(report)]) == 0
    rows = {row["name"]: row["metrics"] for row in json.loads(report.read_text())["rows"]}
    assert set(rows) == {"tillwise", "tillwise/unencrypted"}
    assert len(KINDS) == len(rows)
    for metrics in rows.values():
        assert metrics["per_second"]["mean"] > 0
        assert metrics["p99_ms"]["mean"] >= metrics["p50_ms"]["mean"] > 0


def test_nonsense_is_refused() -> None:
    assert main(["--events", "3"]) == 2
    assert main(["--rounds", "0"]) == 2
