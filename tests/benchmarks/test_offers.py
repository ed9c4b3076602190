"""The books that `benchmarks.offers` compares are ones that a shop could write."""

import pytest

from benchmarks.offers import books, build_parser, run
from contract.errors import UserError
from contract.expressions import checked


def test_conditions_may_be_saved_and_rows_differ_in_size() -> None:
    rows = books("USD")
    assert [len(book.offers) for book in rows.values()] == [0, 10, 10, 200, 10, 10, 10]
    texts = {one.condition for book in rows.values() for one in book.offers if one.condition}
    for text in texts:
        checked(text, "offer")


def test_too_few_decisions_are_refused() -> None:
    with pytest.raises(UserError, match="--decisions"):
        run(build_parser().parse_args(["--decisions", "1"]))
