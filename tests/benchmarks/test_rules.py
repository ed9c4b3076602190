"""The timing of rules times what rules do."""

import json
from pathlib import Path

from benchmarks.rules import main


def test_a_small_round_tells_times_and_how_many_hold(tmp_path: Path) -> None:
    target = tmp_path / "rules.json"
    assert main(["--rules", "30", "--checkouts", "40", "--json", str(target)]) == 0
    rows = {row["name"]: row["metrics"] for row in json.loads(target.read_text())["rows"]}
    assert set(rows) == {"usual", "many-hold", "amounts", "all-hold"}
    assert rows["all-hold"]["rules_that_hold"]["mean"] == 30
    assert 0 < rows["many-hold"]["rules_that_hold"]["mean"] < 30
    assert all(row["mean_ms"]["mean"] > 0 for row in rows.values())


def test_impossible_rounds_are_refused(tmp_path: Path) -> None:
    assert main(["--rules", "0"]) == 2
    assert main(["--rules", "1001"]) == 2
