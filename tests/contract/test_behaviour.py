from dataclasses import replace

import numpy as np
import pytest

from contract import features
from contract.behaviour import (
    BEHAVIOUR,
    LearnedSegments,
    behaviour,
    figures_of_behaviour,
    in_effect,
    in_units,
)
from contract.events import Event, EventItem
from contract.segment_config import DEFAULT
from contract.segments import assign
from tests.contract.examples import event, us

WIDTH = len(BEHAVIOUR)


def view_of(*log: Event, day: float) -> features.SubjectView:
    state: features.SubjectState = {}
    for one in log:
        state = features.update(state, one)
    return features.view(state, us(day))


LOG = (
    event(1, day=0, items=["milk", "bread"], value=1_000, coupon="SAVE10"),
    event(2, day=80, items=["milk"], value=500),
    event(3, day=100, items=["milk", "tea", "soap"], value=1_500),
    event(4, "view_item", day=75, items=["eggs"]),
    event(5, "view_item", day=90, items=[EventItem(item_id="tea", item_category="FOOD/TEA")]),
    event(6, "view_item", day=91, items=[EventItem(item_id="mug", item_category="HOME/CUPS")]),
    event(7, "view_promotion", day=91, items=()),
)


def test_by_hand() -> None:
    figures = figures_of_behaviour(view_of(*LOG, day=110.5)).tolist()
    told = dict(zip(BEHAVIOUR, figures, strict=True))
    assert told == {
        "orders": 2,  # the first is older than 90 days
        "gap_days": 50,  # 100 / 2
        "days_since_order": 10,
        "items_per_order": 2,  # (2 + 1 + 3) / 3
        "spend_per_order": 1_000,
        "items_viewed": 2,
        "categories_viewed": 2,
        "promotions": 1,
        "coupon_share": pytest.approx(1 / 3),
        "repeat_share": pytest.approx(2 / 6),  # milk again, twice, of six lines
    }


def test_without_orders() -> None:
    told = figures_of_behaviour(view_of(LOG[4], day=91))
    assert told[BEHAVIOUR.index("days_since_order")] == 365
    assert told[BEHAVIOUR.index("items_viewed")] == 1
    assert told.sum() == 365 + 1 + 1


def test_what_counts_is_younger_than_the_days_and_each_thing_once() -> None:
    eggs = [EventItem(item_id="eggs", item_category="FOOD/EGGS")]
    looks = (
        event(1, "view_item", day=9, items=["tea"]),  # 31 days old
        event(2, "view_item", day=10, items=["mug"]),  # 30 days old to the moment: no longer
        event(3, "view_item", day=10.01, items=["mug", "tea"]),
        event(4, "view_item", day=20, items=eggs),
        event(5, "view_item", day=21, items=[*eggs, EventItem(item_id="tea")]),
        event(6, "view_promotion", day=10, items=()),
        event(7, "view_promotion", day=10.01, items=()),
    )
    orders = (event(8, day=-50, items=["tea"]), event(9, day=-49.9, items=["tea"], coupon="A"))
    told = dict(zip(BEHAVIOUR, figures_of_behaviour(view_of(*looks, *orders, day=40)), strict=True))
    assert told["items_viewed"] == 3
    assert told["categories_viewed"] == 2  # eggs, and what has none
    assert told["promotions"] == 1
    assert told["orders"] == 1
    assert told["coupon_share"] == 0.5
    assert told["days_since_order"] == 89


def test_units_come_back() -> None:
    view = view_of(*LOG, day=110.5)
    assert in_units(behaviour(view)) == pytest.approx(figures_of_behaviour(view))


def learned() -> LearnedSegments:
    mean, scale = np.full(WIDTH, 1.0), np.full(WIDTH, 2.0)
    scale[3] = 0.0
    centroids = np.zeros((3, WIDTH))
    centroids[1, 0], centroids[2, 1] = 4.0, 4.0
    return LearnedSegments(
        ("plain", "many orders, promo-driven", "rare orders"), mean, scale, centroids
    )


def test_nearest_by_hand() -> None:
    found = learned()
    vectors = np.full((4, WIDTH), 1.0)
    vectors[1, 0] = 1 + 2 * 2.1  # 2.1 standard deviations: nearer to 4 than to 0
    vectors[2, 0] = 1 + 2 * 2.0  # as near: the first
    vectors[3, 3] = 1_000  # everybody was alike in this, so it counts for nothing
    assert found.nearest(vectors).tolist() == [0, 1, 0, 0]


def test_names_in_effect() -> None:
    view = view_of(*LOG, day=110.5)
    membership = assign(view, None, None)
    assert in_effect(view, membership, DEFAULT, None) == ("repeat_buyers",)
    # log1p(2 orders) lies below the mean of 1, and log1p(50 days) 1.5 standard deviations above it.
    assert in_effect(view, membership, DEFAULT, learned()) == ("repeat_buyers", "learned/plain")
    assert learned().keys[1] == "learned/many_orders_promo_driven"
    nobody = features.UNKNOWN
    assert in_effect(nobody, assign(nobody, None, None), DEFAULT, learned()) == ("unknown",)


def test_who_has_never_ordered_is_in_no_segment_of_those_who_have() -> None:
    browser = view_of(*LOG[3:], day=92)
    assert browser.known
    buyer = view_of(*LOG, day=110.5)
    only_buyers = replace(learned(), of_browsers=False)
    assert learned().of(browser) is not None
    assert only_buyers.of(browser) is None
    assert only_buyers.of(buyer) == learned().of(buyer) == 0
    again = LearnedSegments.from_arrays(only_buyers.arrays())
    assert again.of(browser) is None
    earlier = only_buyers.arrays()
    del earlier["of_browsers"]  # which did not say it
    assert LearnedSegments.from_arrays(earlier).of(browser) is not None


def test_arrays_come_back() -> None:
    one, again = learned(), LearnedSegments.from_arrays(learned().arrays())
    assert again.names == one.names
    assert (again.centroids == one.centroids).all()
    assert (again.scale == one.scale).all()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"behaviour_version": np.array(0)}, r"learned from behaviour 0, .* export again"),
        ({"behaviour": np.array(BEHAVIOUR[::-1])}, "learned from behaviour"),
        ({"centroids": np.zeros((2, WIDTH))}, "do not fit"),
        ({"names": np.array(["one", "one", "two"])}, "one name for each"),
        ({"mean": np.full(WIDTH, np.nan)}, "finite"),
        ({"scale": np.full(WIDTH, -1.0)}, "below zero"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, np.ndarray], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        LearnedSegments.from_arrays(learned().arrays() | changed)


def test_what_is_missing_is_named() -> None:
    arrays = learned().arrays()
    del arrays["scale"]
    with pytest.raises(KeyError, match="scale"):
        LearnedSegments.from_arrays(arrays)
