"""What the uplift network sees of a checkout, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import features
from contract import offer_features as offer_features_module
from contract.encoding import Situation
from contract.events import Event, EventContext, key_of
from contract.lasting import LASTING, lasting
from contract.offer_counts import HABITS, SESSION
from contract.offer_features import OFFER_FEATURES, CartLine, offer_feature_hash, offer_features
from contract.price_levels import NOTHING, PriceLevels
from tests.contract.examples import ITEM_IDS, event, logs, many, us
from tests.contract.plain_offer_features import plain_offer_features

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


LEVELS = PriceLevels.of(
    np.array([key_of(one) for one in ITEM_IDS[1:]], np.uint64),
    np.array([90, 250, 400, 999]),
    [["FOOD"], ["FOOD"], None, ["HOME"]],
)
CONTEXTS = st.none() | st.builds(
    EventContext,
    device=st.sampled_from((None, "desktop", "mobile", "tablet", "other")),
    timezone=st.sampled_from((None, "Europe/Berlin", "Asia/Kolkata", "Mars/Olympus")),
)
LINES = st.builds(
    CartLine,
    st.sampled_from((*ITEM_IDS, "gold")),
    st.integers(1, 9),
    st.sampled_from((0, 99, 7_000)),
)


@many
@given(
    log=logs(30),
    days=st.sampled_from((0.0, 0.3, 0.6, 1.0, 45.0)),
    cart=st.lists(LINES, max_size=8),
    context=CONTEXTS,
    prices=st.sampled_from((LEVELS, NOTHING)),
)
def test_they_are_what_numpy_and_sets_say(
    log: list[Event],
    days: float,
    cart: list[CartLine],
    context: EventContext | None,
    prices: PriceLevels,
) -> None:
    view = features.view(features.update_all({}, log), us(days))
    situation = Situation(view, [line.item_id for line in cart], us(days), context)
    expected = plain_offer_features(situation, cart, prices)
    found = offer_features(situation, cart, prices)
    assert found.dtype == expected.dtype
    assert dict(zip(OFFER_FEATURES, found.tolist(), strict=True)) == pytest.approx(
        dict(zip(OFFER_FEATURES, expected.tolist(), strict=True)), rel=1e-6, abs=1e-7
    )
