"""Shares of payments and deliveries, worked by hand, and what an order may never do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.choices import Choices, ChoiceWeights, Option, hats, in_order
from contract.errors import UserError
from contract.events import EventContext


def weights(**changed: object) -> ChoiceWeights:
    said: dict[str, object] = {
        "names": ("card", "invoice"),
        "regions": ("north",),
        "base": (math.log(3), 0.0),  # three to one
        "by_region": ((0.0, math.log(9)),),  # in the north one to three
        "by_device": ((0.0, 0.0), (0.0, math.log(3)), (0.0, 0.0), (0.0, 0.0)),  # mobile: equal
        "knots": (math.log(100), math.log(10_000)),
        "by_value": ((0.0, 0.0), (0.0, math.log(3))),  # large carts: equal
        "pseudo_counts": 2.0,
    }
    return ChoiceWeights.model_validate(said | changed)


BOTH = (Option("card"), Option("invoice"))
NOWHERE = EventContext()


def test_the_usual_shares_follow_place_device_and_value() -> None:
    of = weights()
    assert of.usual(BOTH, NOWHERE, 100) == pytest.approx([3 / 4, 1 / 4])
    assert of.usual(BOTH, None, 1) == pytest.approx([3 / 4, 1 / 4])
    assert of.usual(BOTH, EventContext(region="north"), 100) == pytest.approx([1 / 4, 3 / 4])
    assert of.usual(BOTH, EventContext(region="elsewhere"), 100) == pytest.approx([3 / 4, 1 / 4])
    assert of.usual(BOTH, EventContext(device="mobile"), 100) == pytest.approx([1 / 2, 1 / 2])
    assert of.usual(BOTH, NOWHERE, 10_000) == pytest.approx([1 / 2, 1 / 2])
    # Half way between the knots (in logs) the odds are the geometric mean of 3 and 1.
    root = math.sqrt(3)
    assert of.usual(BOTH, NOWHERE, 1_000) == pytest.approx([root / (root + 1), 1 / (root + 1)])


def test_own_choices_count_against_so_many_of_anybody() -> None:
    # (3 own of invoice + 2 * 1/4) / (3 + 2)
    likely = weights().likely(BOTH, NOWHERE, 100, {"invoice": 3.0})
    assert likely == pytest.approx([2 * 3 / 4 / 5, (3 + 2 / 4) / 5])
    assert in_order(BOTH, likely) == ("invoice", "card")


def test_price_and_waiting_weigh_options_that_nobody_saw_before() -> None:
    of = weights(
        names=(),
        base=(),
        by_region=((),),
        by_device=((),) * 4,
        by_value=((), ()),
        price=-2.0,
        days=-1.0,
    )
    dear, slow = Option("express", price=500, days=1), Option("post", price=0, days=11)
    # -2 * 500/1000 - 1 * 1/10 against -1 * 11/10: equal
    assert of.usual((dear, slow), NOWHERE, 1_000) == pytest.approx([1 / 2, 1 / 2])
    assert of.usual((dear, slow), NOWHERE, 10_000)[0] > 1 / 2  # a large cart minds the price less


@given(
    ids=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True),
    value=st.integers(-5, 10**12),
    price=st.none() | st.integers(-10, 10**9),
    days=st.none() | st.integers(-1, 400),
    own=st.dictionaries(st.sampled_from(["card", "invoice"]), st.floats(0, 1e6), max_size=2),
)
def test_an_order_holds_what_was_sent_once_each(
    ids: list[str], value: int, price: int | None, days: int | None, own: dict[str, float]
) -> None:
    options = tuple(Option(one, price, days) for one in ids)
    likely = weights(price=-1.0, days=-1.0).likely(options, NOWHERE, value, own)
    assert sorted(in_order(options, likely)) == sorted(ids)
    assert np.isfinite(likely).all()
    assert likely.sum() == pytest.approx(1.0)


def test_equal_options_stay_as_they_were_sent() -> None:
    options = tuple(Option(one) for one in "cab")
    assert in_order(options, weights().usual(options, NOWHERE, 100)) == ("c", "a", "b")


def test_hats_add_up_to_one_and_end_flat() -> None:
    knots = (0.0, 1.0, 3.0)
    assert hats(2.0, knots).tolist() == [0.0, 0.5, 0.5]
    assert hats(-9.0, knots).tolist() == [1.0, 0.0, 0.0]
    assert hats(99.0, knots).tolist() == [0.0, 0.0, 1.0]


def test_a_file_of_choices_comes_back_and_a_broken_one_is_named() -> None:
    held = Choices(payment=weights())
    assert Choices.parse(held.as_bytes(), "choices.json") == held
    for broken in (
        b"{",
        b'{"payment": {"names": ["a"]}}',
        held.as_bytes().replace(b"north", b"n\x00", 0) + b"x",
    ):
        with pytest.raises(UserError, match=r"choices\.json"):
            Choices.parse(broken, "choices.json")
    with pytest.raises(ValueError, match="by_region"):
        weights(by_region=())
