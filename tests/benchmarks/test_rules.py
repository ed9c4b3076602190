"""The timing of rules times what rules do."""

import json
from pathlib import Path

import pytest

from benchmarks.rule_books import CONDITIONS, Names, book
from benchmarks.rules import main
from contract.rule_set import checked_set
from tests.benchmarks.test_decide import flags_of
from tests.e2e.shop import build


def test_a_small_round_tells_times_and_how_many_hold(tmp_path: Path) -> None:
    target = tmp_path / "rules.json"
    assert main(["--rules", "30", "--checkouts", "40", "--json", str(target)]) == 0
    rows = {row["name"]: row["metrics"] for row in json.loads(target.read_text())["rows"]}
    assert set(rows) == {"usual", "many-hold", "amounts", "all-hold"}
    assert rows["all-hold"]["rules_that_hold"]["mean"] == 30
    assert 0 < rows["many-hold"]["rules_that_hold"]["mean"] < 30
    assert all(row["mean_ms"]["mean"] > 0 for row in rows.values())


def test_whole_decisions_are_made_in_turn_without_and_with_rules(tmp_path: Path) -> None:
    shop, target = build(tmp_path / "shop"), tmp_path / "rules.json"
    few = ["--rules", "200", "--checkouts", "20", "--decisions", "20", "--json", str(target)]
    assert main([*few, *flags_of(shop)]) in (0, 3)  # 3: too busy here for a millisecond
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"][len(CONDITIONS) :]}
    assert list(rows) == ["decisions, no rules", "decisions, usual", "decisions, many-hold"]
    applied = [row["applied"]["mean"] for row in rows.values()]
    assert applied[0] == 0 < min(applied[1:])
    assert rows["decisions, no rules"]["added_mean_ms"]["mean"] == 0
    assert any(note.startswith("decisions: 20 of each row") for note in written["notes"])


@pytest.mark.parametrize("kind", CONDITIONS)
def test_books_name_whatever_a_catalogue_has(kind: str) -> None:
    names = Names(["plain", 'a"b'], ["CAT'S \\ DOG", 'inch "', "Käse"])
    assert len(checked_set(book(kind, 60, names))) == 60


def test_impossible_rounds_are_refused(tmp_path: Path) -> None:
    assert main(["--rules", "0"]) == 2
    assert main(["--rules", "1001"]) == 2
    assert main(["--decisions", "9"]) == 2
    assert main(["--checkouts", "1", "--releases", str(tmp_path)]) == 2
