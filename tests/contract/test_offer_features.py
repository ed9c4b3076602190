"""What the uplift network sees of a checkout, by hand."""

import math

import numpy as np
import pytest

from contract import features
from contract import offer_features as offer_features_module
from contract.encoding import Situation
from contract.events import Event, key_of
from contract.lasting import LASTING, lasting
from contract.offer_features import (
    HABITS,
    OFFER_FEATURES,
    SESSION,
    CartLine,
    offer_feature_hash,
    offer_features,
)
from contract.price_levels import NOTHING, PriceLevels
from tests.contract.examples import event, us

FIRST, SECOND = {"session_id": "first"}, {"session_id": "second"}
LOG = (
    event(1, "view_item", day=1, items=["milk"], **FIRST),
    event(2, "view_item", day=1.01, items=["tea"], **FIRST),
    event(3, "add_to_cart", day=1.02, items=["milk"], **FIRST),
    event(4, "add_to_cart", day=1.03, items=["tea"], **FIRST),
    event(5, day=1.04, items=["milk"], **FIRST),
    event(6, "select_item", day=5, items=["soap"], **SECOND),
    event(7, "view_item", day=5.01, items=["soap"], **SECOND),
    event(8, "add_to_cart", day=5.02, items=["soap"], **SECOND),
    event(9, "view_item", day=8, items=["milk"]),
    event(10, "add_to_cart", day=8.01, items=["milk"]),
    event(11, "add_to_cart", day=8.02, items=["eggs"]),
)
CART = [CartLine("milk", 2, 150)]


def told(
    *log: Event, day: float, cart: list[CartLine], prices: PriceLevels = NOTHING
) -> dict[str, float]:
    view = features.view(features.update_all({}, log), us(day))
    situation = Situation(view, [line.item_id for line in cart], us(day))
    found = offer_features(situation, cart, prices).tolist()
    return dict(zip(OFFER_FEATURES, found, strict=True))


def test_what_lasts_and_the_level_of_the_cart() -> None:
    prices = PriceLevels.of(
        np.array([key_of("milk"), key_of("eggs")], np.uint64), np.array([100, 400]), [None, None]
    )
    cart = [*CART, CartLine("eggs", 1, 400), CartLine("of another shop", 1, 9)]
    found = told(*LOG, day=8.03, cart=[*cart, CartLine("milk", 1, 100)], prices=prices)
    assert found["cart_level"] == pytest.approx(-math.log(2) / 3)  # the median is 200
    view = features.view(features.update_all({}, LOG), us(8.03))
    expected = dict(zip(LASTING, lasting(view, prices), strict=True))
    assert {name: found[name] for name in LASTING} == pytest.approx(expected, rel=1e-6)


def test_the_hash_is_of_these_features_and_of_what_they_are_told_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashes = {offer_feature_hash()}
    for name, other in (
        ("OFFER_FEATURES_VERSION", 99),
        ("OFFER_FEATURES", OFFER_FEATURES[:-1]),
        ("_TOLD_FROM", offer_features_module._TOLD_FROM[:-1]),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(offer_features_module, name, other)
            hashes.add(offer_feature_hash())
    assert len(hashes) == 4
    assert features.feature_hash() not in hashes


def test_habits_by_hand() -> None:
    found = told(*LOG, day=8.03, cart=CART)
    assert {name: found[name] for name in HABITS} == pytest.approx(
        {
            "sessions_a_week": math.log1p(7 * 2 / 7.03),  # two before this one, in 7.03 days
            "selects_a_view": 1 / 4,
            "familiar_views": 2 / 4,  # milk, twice
            "different_views": 3 / 4,
            "carts_before": 2,
            "carts_left": 1,
            "carts_ordered": 1 / 3,
            "lines_ordered": 1 / 3,  # of the two that were put in before the order
            "new_lines": 3 / 5,  # tea, soap, eggs
        }
    )


def test_what_left_the_cart_again_is_counted() -> None:
    assert told(*LOG, day=8.03, cart=CART)["session_removed"] == 1
    both = [*CART, CartLine("eggs", 1, 200)]
    assert told(*LOG, day=8.03, cart=both)["session_removed"] == 0


def test_nothing_known_is_nothing_told() -> None:
    found = told(day=8, cart=CART)
    assert all(found[name] == 0 for name in (*HABITS, *SESSION, *LASTING))
    assert np.isfinite(list(found.values())).all()
    assert found["log_value"] == pytest.approx(math.log1p(300))
