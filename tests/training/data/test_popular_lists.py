"""Popular items by segment and region, on purchases that can be counted by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from contract.clock import to_us
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.events import EventContext
from contract.frames import EVENT_SCHEMA
from contract.popular import MAX_LISTS, PopularLists
from tests.training.shop import START
from training.data import popular_lists
from training.data.baskets import Baskets, Timelines, read_baskets
from training.data.item_tables import count

ITEMS = ("bread", "milk", "soap", "tea")
BREAD, MILK, SOAP, TEA = range(FIRST_ITEM, FIRST_ITEM + 4)
VOCABULARY = Vocabulary(ITEMS)
CONVINCES = popular_lists._convinces


@dataclass(frozen=True)
class Bought:
    shopper: int
    day: float
    items: Sequence[str]
    region: str | None = None


def lists(*bought: Bought, day: float = 30.0) -> PopularLists:
    """The lists as of `day`, counted as a fit counts them."""
    rows = [_event(number, one) for number, one in enumerate(bought)]
    events = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    catalogue = pa.table(
        {
            "item_id": ITEMS,
            "price": pa.array([100] * 4, pa.int64()),
            "category_path": pa.array([["shop", "shelf"]] * 4, pa.list_(pa.string())),
        }
    )
    baskets: Baskets = read_baskets(events)
    until_us = to_us(START + timedelta(days=day))
    return count(baskets, until_us, VOCABULARY, catalogue, Timelines.of(events)).popular


def _event(number: int, one: Bought) -> dict[str, object]:
    at = START + timedelta(days=one.day)
    items = [{"item_id": i, "quantity": 1, "price": 100, "index": None} for i in one.items]
    context = {"device": None, "country": None, "region": one.region, "timezone": None}
    return {
        "schema_version": 1,
        "event_id": f"event-{number:04d}",
        "event_name": "purchase",
        "occurred_at": at,
        "received_at": at,
        "subject_id": f"subject-{one.shopper}",
        "session_id": f"session-{number}",
        "purposes": ["analytics", "personalization"],
        "items": items,
        "currency": "USD",
        "transaction_id": f"t-{number}",
        "context": context,
        "synthetic": True,
    }


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists from two baskets on, drawn by one basket of others, that need not convince."""
    monkeypatch.setattr(popular_lists, "_convinces", lambda *_: True)
    monkeypatch.setattr(popular_lists, "MIN_BASKETS", 2)
    monkeypatch.setattr(popular_lists, "PRIOR_BASKETS", 1.0)


def test_a_segment_is_judged_before_the_basket() -> None:
    """Every shopper's first basket is an unknown's, their second that of a first-time buyer, their
    third a repeat buyer's."""
    firsts = [Bought(n, 10, ["soap"]) for n in range(3)]
    seconds = [Bought(n, 12, ["tea"]) for n in range(3)]
    thirds = [Bought(n, 14, ["milk"]) for n in range(3)]
    found = lists(*firsts, *seconds, *thirds)
    names = ("unknown", "first_time_buyers", "repeat_buyers")
    assert set(found.lists) == {(name, None) for name in names}
    assert found.lists["unknown", None].tolist()[0] == SOAP
    assert found.lists["repeat_buyers", None].tolist()[0] == MILK
    later = lists(*firsts, *seconds, *thirds, *(Bought(n, 40, ["bread"]) for n in range(9)))
    assert later.as_bytes(VOCABULARY) == found.as_bytes(VOCABULARY)  # day 40 is not known on day 30


def test_only_the_last_weeks_count() -> None:
    old = [Bought(n, 1, ["soap"]) for n in range(5)]
    new = [Bought(n, 55, ["tea"]) for n in range(10, 13)]
    found = lists(*old, *new, day=60)
    assert found.lists["unknown", None].tolist() == [TEA]
    assert found.overall.tolist()[0] == TEA


def test_counts_are_drawn_towards_what_others_buy(monkeypatch: pytest.MonkeyPatch) -> None:
    """West: 3 baskets, of milk twice and soap once; east: 3 of tea and bread."""
    west = [Bought(0, 10, ["milk"], "west"), Bought(1, 10, ["milk"], "west")]
    west.append(Bought(2, 10, ["soap"], "west"))
    east = [Bought(n, 10, ["tea", "bread"], "east") for n in (3, 4, 5)]
    found = lists(*west, *east)
    assert set(found.lists) == {
        ("unknown", None),
        (None, "west"),
        ("unknown", "west"),
        (None, "east"),
        ("unknown", "east"),
    }
    # Of 6 baskets: tea and bread 3/6, milk 2/6, soap 1/6. In the west, with one basket of those:
    # milk (2 + 1/3) / 4, soap (1 + 1/6) / 4, bread and tea (0 + 1/2) / 4.
    assert found.lists[None, "west"].tolist() == [MILK, SOAP, BREAD, TEA]
    # With 9 baskets of those: milk (2 + 3) / 12, bread and tea (0 + 4.5) / 12, soap (1 + 1.5) / 12.
    monkeypatch.setattr(popular_lists, "PRIOR_BASKETS", 9.0)
    assert lists(*west, *east).lists[None, "west"].tolist() == [MILK, BREAD, TEA, SOAP]
    assert lists(*west, *east).overall.tolist()[:2] == [BREAD, TEA]


@pytest.mark.parametrize(
    ("tea_in_the_last_week", "earned"),
    [
        # The west's own ten baskets say tea, everybody's list says milk. In the last week the west
        # buys tea t times and milk 9 - t times; t - (9 - t) must exceed 2 * sqrt(9).
        (9, True),
        (8, True),
        (7, False),
        (2, False),
    ],
)
def test_a_list_must_earn_its_place(
    monkeypatch: pytest.MonkeyPatch, tea_in_the_last_week: int, earned: bool
) -> None:
    monkeypatch.setattr(popular_lists, "_convinces", CONVINCES)
    monkeypatch.setattr(popular_lists, "PLACES", 1)
    others = [Bought(n, 10, ["milk"], "east") for n in range(30)]
    early = [Bought(100 + n, 12, ["tea"], "west") for n in range(10)]
    late = [
        Bought(200 + n, 29, ["tea" if n < tea_in_the_last_week else "milk"], "west")
        for n in range(9)
    ]
    found = lists(*others, *early, *late)
    assert ((None, "west") in found.lists) == earned
    assert (None, "east") not in found.lists  # its list would be everybody's
    assert found.of((), "west").tolist()[0] == (TEA if earned else MILK)


def test_a_cell_that_buys_little_has_no_list() -> None:
    west = [Bought(n, 10, ["milk"], "west") for n in range(2)]
    found = lists(*west, Bought(9, 10, ["soap"], "east"))
    assert (None, "west") in found.lists
    assert (None, "east") not in found.lists
    assert found.of((), "east").tolist() == found.overall.tolist()


def test_the_busiest_cells_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popular_lists, "MAX_LISTS", 2)
    west = [Bought(n, 10, ["milk"], "west") for n in range(3)]
    east = [Bought(n, 10, ["tea"], "east") for n in range(5, 7)]
    assert list(lists(*west, *east).lists) == [("unknown", None), (None, "west")]
    assert MAX_LISTS * 200 * 20 < 2**20  # a file stays below a mebibyte at ids of 20 characters


def test_nothing_bought_lately_leaves_the_list_for_everybody() -> None:
    found = lists(*(Bought(n, 1, ["soap"]) for n in range(5)), day=60)
    assert found.lists == {}
    assert len(found.overall) == len(ITEMS)


def test_events_are_as_the_importers_write_them() -> None:
    assert EventContext(region="west").region == "west"
    assert np.array_equal(lists(Bought(0, 10, ["tea"])).overall[:1], [TEA])
