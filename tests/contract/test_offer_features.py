"""What the uplift network sees of a checkout, by hand."""

import math

import numpy as np
import pytest

from contract import features
from contract.encoding import Situation
from contract.events import Event
from contract.offer_features import HABITS, OFFER_FEATURES, SESSION, CartLine, offer_features
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


def told(*log: Event, day: float, cart: list[CartLine]) -> dict[str, float]:
    state: features.SubjectState = {}
    for one in log:
        state = features.update(state, one)
    view = features.view(state, us(day))
    situation = Situation(view, [line.item_id for line in cart], us(day))
    found = offer_features(situation, cart).tolist()
    return dict(zip(OFFER_FEATURES, found, strict=True))


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
    assert all(found[name] == 0 for name in (*HABITS, *SESSION))
    assert np.isfinite(list(found.values())).all()
    assert found["log_value"] == pytest.approx(math.log1p(300))
