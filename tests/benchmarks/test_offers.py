"""`benchmarks.offers` compares decisions under books that a shop could write."""

import json
from pathlib import Path

import pytest

from benchmarks.offer_books import books
from benchmarks.offers import build_parser, main, run
from contract.errors import UserError
from contract.expressions import checked
from tests.benchmarks.test_decide import flags_of
from tests.e2e.shop import build


def test_conditions_may_be_saved_and_rows_differ_in_size() -> None:
    rows = books("USD")
    assert [len(book.offers) for book in rows.values()] == [0, 10, 10, 200, 10, 10, 10]
    texts = {one.condition for book in rows.values() for one in book.offers if one.condition}
    for text in texts:
        checked(text, "offer")


def test_too_few_decisions_are_refused() -> None:
    with pytest.raises(UserError, match="--decisions"):
        run(build_parser().parse_args(["--decisions", "1"]))


def test_every_checkout_is_decided_under_every_book(tmp_path: Path) -> None:
    shop, target = build(tmp_path / "shop"), tmp_path / "offers.json"
    assert main([*flags_of(shop), "--decisions", "10", "--json", str(target)]) == 0
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    assert list(rows) == [*books("USD"), "no offers, again"]
    shown = {name: row["shown"]["mean"] for name, row in rows.items()}
    assert shown["no offers"] == shown["no offers, again"] == 0 < shown["10 offers"]
    assert rows["no offers"]["cpu_p99_times"]["mean"] == 1
    assert any(note.startswith("10 decisions of each row") for note in written["notes"])
