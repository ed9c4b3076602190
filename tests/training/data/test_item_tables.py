"""The counted tables of four baskets, by hand."""

from math import log, log1p, sqrt

import numpy as np
import pyarrow as pa
import pytest

from contract.clock import DAY_US
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.items import Floats
from training.data.baskets import Baskets
from training.data.item_tables import ItemTables, count

ITEMS = ["bread", "milk", "soap", "tea"]
BREAD, MILK, SOAP, TEA = range(FIRST_ITEM, FIRST_ITEM + 4)
PATHS = [["food", "bakery"], ["food", "dairy"], ["bath", "soap"], []]


@pytest.fixture(scope="module")
def tables() -> ItemTables:
    """Shopper 0 on the days 0 and 50, shopper 1 on 60 and 65; asked on day 70."""
    held = [[0, 1], [0, 1, 2], [0, 3], [1]]
    baskets = Baskets(
        basket_id=["a", "b", "c", "d"],
        subject=np.array([0, 0, 1, 1]),
        occurred_us=np.array([0, 50, 60, 65]) * DAY_US,
        offsets=np.cumsum([0, *map(len, held)]),
        item=np.concatenate(held),
        subjects=["zero", "one"],
        item_ids=ITEMS,
        contexts=[None] * 4,
    )
    catalogue = pa.table(
        {
            "item_id": ITEMS,
            "price": pa.array([100, None, 300, 400], pa.int64()),
            "category_path": pa.array(PATHS, pa.list_(pa.string())),
        }
    )
    return count(baskets, 70 * DAY_US, Vocabulary(tuple(ITEMS)), catalogue)


def counted(column: Floats) -> list[float]:
    baskets: list[float] = np.rint(np.expm1(column[FIRST_ITEM:])).tolist()
    return baskets


def test_counts(tables: ItemTables) -> None:
    told = tables.statistics
    assert counted(told.popularity) == [3, 3, 1, 1]
    assert counted(told.recent_popularity) == [2, 2, 1, 1]  # in 28 days
    assert counted(told.weekly_popularity) == [0, 1, 0, 0]  # in 7 days
    assert counted(told.buyers) == [2, 2, 1, 1]
    assert told.gap_days[FIRST_ITEM:].tolist() == [50, 50, 0, 0]
    assert told.price_level[BREAD] == pytest.approx(log1p(100))


def test_what_goes_together(tables: ItemTables) -> None:
    together = tables.neighbours
    assert together.baskets == 4
    row = dict(zip(together.neighbours[BREAD].tolist(), together.similarity[BREAD], strict=True))
    assert row[MILK] == pytest.approx(2 / sqrt(3 * 3))
    assert row[SOAP] == pytest.approx(1 / sqrt(3 * 1))


def test_lift_of_categories(tables: ItemTables) -> None:
    narrow = tables.neighbours.narrow

    def lift(one: int, other: int) -> float:
        return float(narrow.log_lift[narrow.group[one], narrow.group[other]])

    # (baskets with both + 2) / (what chance gives of four + 2)
    assert lift(BREAD, MILK) == pytest.approx(log((2 + 2) / (3 * 3 / 4 + 2)), abs=1e-3)
    assert lift(SOAP, MILK) == pytest.approx(log((1 + 2) / (1 * 3 / 4 + 2)), abs=1e-3)
    assert lift(MILK, SOAP) == lift(SOAP, MILK)
    assert narrow.group[TEA] == 0  # it has no category
    assert lift(TEA, MILK) == 0
    wide = tables.neighbours.wide
    assert wide.group[BREAD] != wide.group[MILK]  # the second level of two
