"""How dear items are among their kind, by hand."""

import math

import numpy as np
import pytest

from contract.events import key_of
from contract.price_levels import NOTHING, PriceLevels

SHOP: dict[str, tuple[int, list[str] | None]] = {
    "milk": (100, ["FOOD", "DAIRY"]),
    "cream": (400, ["FOOD", "DAIRY", "RICH"]),  # two levels are one category
    "cheese": (200, ["FOOD", "DAIRY"]),
    "soap": (300, ["HOME", "BATH"]),
    "towel": (1_200, ["HOME", "BATH"]),
    "gift": (0, ["HOME", "BATH"]),  # has no price
    "stamp": (50, None),
}


def keys(*item_ids: str) -> np.ndarray:
    return np.array([key_of(item_id) for item_id in item_ids], np.uint64)


def levels() -> PriceLevels:
    price = np.array([price for price, _ in SHOP.values()])
    return PriceLevels.of(keys(*SHOP), price, [path for _, path in SHOP.values()])


def test_levels_are_against_the_median_of_the_category() -> None:
    level, category = levels().at(keys("milk", "cheese", "cream", "soap", "towel", "stamp"))
    # The median of 100, 200 and 400 is 200; of 300 and 1,200, in logarithms, 600.
    assert np.exp(level).tolist() == pytest.approx([1 / 2, 1, 2, 1 / 2, 2, 1])
    assert len(set(category[:3])) == 1
    assert len(set(category[3:5])) == 1
    assert len(set(category)) == 3


def test_what_has_no_price_is_not_known() -> None:
    level, category = levels().at(keys("gift", "of another shop"))
    assert np.isnan(level).all()
    assert category.tolist() == [-1, -1]
    level, category = NOTHING.at(keys("milk"))
    assert np.isnan(level).all()
    assert category.tolist() == [-1]
    assert PriceLevels.of(keys("gift"), np.array([-1]), [None]) is NOTHING


def test_the_order_of_a_catalogue_does_not_matter() -> None:
    ids = list(reversed(SHOP))
    turned = PriceLevels.of(
        keys(*ids), np.array([SHOP[one][0] for one in ids]), [SHOP[one][1] for one in ids]
    )
    assert turned.at(keys("cream"))[0] == pytest.approx(math.log(2))
    assert turned.item_key.tolist() == levels().item_key.tolist()
