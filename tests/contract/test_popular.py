"""Which popular list speaks for a shopper, and what is no popular file."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.encoding import Situation
from contract.events import EventContext
from contract.features import UNKNOWN
from contract.popular import MAX_ITEMS, MAX_LISTS, PRECEDENCE, Cell, PopularLists
from contract.segments import SEGMENTS
from tests.contract.examples import event, many
from tests.contract.shop import BREAD, EGGS, MILK, SOAP, TEA, VOCABULARY, situation

EVERYBODY = [MILK]
WEST = EventContext(region="west", device="mobile", country="FR", timezone="Europe/Paris")


def lists(*cells: Cell) -> PopularLists:
    """A list for each of `cells`, told apart by its only item."""
    items = (BREAD, EGGS, SOAP, TEA)
    return PopularLists(
        np.array(EVERYBODY),
        {cell: np.array([item]) for cell, item in zip(cells, items, strict=False)},
    )


@pytest.mark.parametrize(
    ("cells", "segments", "region", "expected"),
    [
        ([], ("repeat_buyers",), "west", MILK),
        (
            [("repeat_buyers", "west"), (None, "west"), ("repeat_buyers", None)],
            ("repeat_buyers",),
            "west",
            BREAD,
        ),
        (
            [("repeat_buyers", "east"), (None, "west"), ("repeat_buyers", None)],
            ("repeat_buyers",),
            "west",
            EGGS,
        ),
        (
            [("repeat_buyers", "east"), (None, "east"), ("repeat_buyers", None)],
            ("repeat_buyers",),
            "west",
            SOAP,
        ),
        (
            [("repeat_buyers", "east"), (None, "east"), ("lapsing", None)],
            ("repeat_buyers",),
            "west",
            MILK,
        ),
        (
            [("repeat_buyers", "west"), (None, "west"), ("repeat_buyers", None)],
            ("repeat_buyers",),
            None,
            SOAP,
        ),
        ([("repeat_buyers", "west"), (None, "west"), ("repeat_buyers", None)], (), "west", EGGS),
        # Of several segments the first that has a list: lapsing stands before repeat buyers.
        (
            [("mobile_shoppers_in_europe_during_peak_hours", None), ("repeat_buyers", None)],
            ("mobile_shoppers_in_europe_during_peak_hours", "repeat_buyers"),
            None,
            EGGS,
        ),
        (
            [("mobile_shoppers_in_europe_during_peak_hours", None), ("lapsing", None)],
            ("repeat_buyers", "mobile_shoppers_in_europe_during_peak_hours", "lapsing"),
            None,
            EGGS,
        ),
        (
            [("mobile_shoppers_in_europe_during_peak_hours", None)],
            ("repeat_buyers", "mobile_shoppers_in_europe_during_peak_hours"),
            None,
            BREAD,
        ),
    ],
)
def test_the_closest_list_speaks(
    cells: list[Cell], segments: tuple[str, ...], region: str | None, expected: int
) -> None:
    assert lists(*cells).of(segments, region).tolist() == [expected]


def test_the_segments_are_those_of_the_encoder() -> None:
    assert sorted(PRECEDENCE) == sorted(SEGMENTS)
    found = lists(("unknown", None), ("repeat_buyers", "west"))
    nobody = Situation(UNKNOWN, (), 0)
    assert found.of_situation(nobody).tolist() == [BREAD]
    twice = situation(event(1, day=0), event(2, day=5), day=6, context=WEST)
    assert found.of_situation(twice).tolist() == [EGGS]


def test_without_consent_no_segment_is_looked_at() -> None:
    found = lists(
        ("unknown", None), ("mobile_shoppers_in_europe_during_peak_hours", "west"), (None, "west")
    )
    stranger = Situation(UNKNOWN, (), 0, WEST, personal=False)
    assert found.of_situation(stranger).tolist() == [SOAP]  # the region is part of the request
    elsewhere = Situation(UNKNOWN, (), 0, EventContext(region="east"), personal=False)
    assert found.of_situation(elsewhere).tolist() == EVERYBODY
    evening = Situation(UNKNOWN, (), 17 * 3_600_000_000, WEST)  # 18 h in Paris
    assert found.of_situation(evening).tolist() == [EGGS]


@many
@given(
    cells=st.lists(
        st.tuples(st.none() | st.sampled_from(SEGMENTS), st.none() | st.text(max_size=3)).filter(
            lambda cell: cell != (None, None)
        ),
        unique=True,
        max_size=12,
    ),
    items=st.lists(st.permutations([MILK, BREAD, EGGS, SOAP, TEA]), min_size=13, max_size=13),
)
def test_what_is_written_is_read(cells: list[Cell], items: list[list[int]]) -> None:
    made = PopularLists(
        np.array(items[0]),
        {cell: np.array(row) for cell, row in zip(cells, items[1:], strict=False)},
    )
    found = PopularLists.parse(made.as_bytes(VOCABULARY), VOCABULARY)
    assert found.overall.tolist() == items[0]
    assert {cell: row.tolist() for cell, row in found.lists.items()} == {
        cell: row.tolist() for cell, row in made.lists.items()
    }


def _file(**changed: Any) -> bytes:
    return json.dumps({"format": 2, "all": ["milk"], "lists": []} | changed).encode()


def _one(**changed: Any) -> dict[str, Any]:
    return {"segment": "repeat_buyers", "region": None, "items": ["milk"]} | changed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "list of item ids"),
        (b"[]", "list of item ids"),
        (b"{}", "list of item ids"),
        (_file(all="milk"), "lists of item ids"),
        (_file(all=["caviar"]), "unknown item"),
        (_file(all=["milk", "milk"]), "twice"),
        (_file(all=[1]), "lists of item ids"),
        (_file(all=["milk"] * (MAX_ITEMS + 1)), f"more than {MAX_ITEMS} items"),
        (_file(format=3), "format 3"),
        (_file(format="new"), "list of item ids"),
        (_file(lists=None), "list of item ids"),
        (_file(lists=[{"segment": "repeat_buyers"}]), "list of item ids"),
        (_file(lists=[_one(items=["caviar"])]), "unknown item"),
        (_file(lists=[_one(items=None)]), "lists of item ids"),
        (_file(lists=[_one(segment="rich")]), "no segment and region"),
        (_file(lists=[_one(segment=None)]), "no segment and region"),
        (_file(lists=[_one(region=7)]), "no segment and region"),
        (_file(lists=[_one(region=["west"])]), "no segment and region"),
        (_file(lists=[_one(segment=["repeat"])]), "no segment and region"),
        (_file(lists=[_one(), _one()]), "two for one cell"),
        (
            _file(lists=[_one(region=str(n)) for n in range(MAX_LISTS + 1)]),
            f"more than {MAX_LISTS}",
        ),
    ],
)
def test_anything_else_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PopularLists.parse(content, VOCABULARY)
