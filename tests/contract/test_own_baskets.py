"""A shopper's own baskets: by hand, and against loops over them."""

from math import log1p, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.items import Floats, Indices
from contract.own_baskets import (
    COMPANIONS,
    HABITS,
    MOST_OVERDUE,
    NEVER,
    companions,
    habits,
    habits_at,
    recency_weight,
)
from tests.contract.examples import many

A, B, C = range(3)


def own(*baskets: set[int]) -> tuple[Indices, Indices, int]:
    """Basket and item of each line of baskets of item places, the newest first; how many baskets
    there are."""
    lines = [(number, item) for number, basket in enumerate(baskets) for item in sorted(basket)]
    return integers(*(n for n, _ in lines)), integers(*(i for _, i in lines)), len(baskets)


def integers(*values: int) -> Indices:
    return np.array(values, np.int64)


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def test_companions_by_hand() -> None:
    """The cart holds B and something that was never bought."""
    together = own({A, B}, {A, C}, {B})
    found = companions(*together, floats(0, 1, 0), 2, floats(2, 2, 1))
    similar = 1 / sqrt(2 * 2)  # one of two items, a cart of two
    by_name = dict(zip(COMPANIONS, (row.tolist() for row in found), strict=True))
    assert by_name == {
        "own_similar": pytest.approx([similar, similar + 1 / sqrt(1 * 2), 0]),
        "own_together": pytest.approx([1 / 2, 2 / 2, 0]),
        "own_together_rare": pytest.approx([1 / 2, 1 / 2 + 1 / 2, 0]),
        # two baskets of three held B: by chance an item of n baskets shares 2/3 n of them
        "own_lift": pytest.approx([1 / (2 * 2 / 3 + 0.5), 2 / (2 * 2 / 3 + 0.5), 0]),
    }


def test_nothing_of_the_cart_was_ever_bought() -> None:
    found = companions(*own({A, B}), floats(0, 0), 3, floats(1, 1))
    assert [row.tolist() for row in found] == [[0, 0]] * len(COMPANIONS)


def test_recency_weight_by_hand() -> None:
    basket, item, _ = own({A}, {B}, {A, B})
    assert recency_weight(basket, item, 2).tolist() == pytest.approx([1 + 0.95**2, 0.95 + 0.95**2])


def test_habits_by_hand() -> None:
    """A and B are of category 7, C of 9; asked of A, a new item of 7, one of 8 and one of none."""
    together = own({A}, {B, C}, {A})
    usual = habits(
        *together,
        integers(7, 7, 9)[:, None],
        floats(2, 1, 4),
        floats(1.5, 0.5, 0.25),
        floats(3, 10, 10),
        floats(21, 10, 10),
    )
    found = habits_at(*usual, integers(7, 7, 8, 0)[:, None], floats(1.5, 0, 0, 0))[:, 0]
    by_name = dict(zip((*HABITS, "weight_60d"), found.tolist(), strict=True))
    assert by_name == {
        "baskets": pytest.approx([3 / 3, 3 / 3, 0, 0]),
        "days_since": pytest.approx([log1p(3), log1p(3), NEVER, NEVER]),
        # bought 21, 10 and 3 days ago: (21 - 3) / 2 days apart, 3 days since
        "due_ratio": pytest.approx([3 / 9, 3 / 9, 0, 0]),
        "weight": pytest.approx([1 + 0.9 + 0.9**2] * 2 + [0, 0]),
        "items": pytest.approx([log1p(2), log1p(2), 0, 0]),
        "item_share": pytest.approx([1.5 / 2, 0, 0, 0]),
        "item_lead": pytest.approx([1.5 / 1.5, 0, 0, 0]),
        "weight_60d": pytest.approx([3, 3, 0, 0]),
    }


def test_a_shopper_without_purchases() -> None:
    nothing = floats()
    usual = habits(*own(), integers().reshape(0, 2), nothing, nothing, nothing, nothing)
    found = habits_at(*usual, integers(7, 0, 3, 3).reshape(2, 2), floats(0, 0))
    assert found.shape == (len(HABITS) + 1, 2, 2)
    assert found[1].tolist() == [[NEVER] * 2] * 2
    assert not np.delete(found, 1, axis=0).any()


@many
@given(
    st.lists(st.sets(st.integers(0, 5), min_size=1), max_size=6),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=6, max_size=6),
    st.integers(0, 10**6),
)
def test_levels_do_not_mix(
    baskets: list[set[int]], categories: list[tuple[int, int]], seed: int
) -> None:
    """Two levels with the same numbers, each against a loop over the baskets."""
    chance = np.random.default_rng(seed)
    last = chance.uniform(0, 40, 6).astype(np.float32)
    first = last + chance.uniform(0, 90, 6).astype(np.float32)
    weight, weight_60d = chance.uniform(0.1, 5, (2, 6)).astype(np.float32)
    held = np.array(categories, np.int64)
    usual = habits(*own(*baskets), held, weight_60d, weight, last, first)
    found = habits_at(*usual, held, weight)
    for level in range(2):
        for item in range(6):
            category = held[item, level]
            same = [other for other in range(6) if held[other, level] == category]
            with_it = [n for n, basket in enumerate(baskets) if basket & set(same)]
            since = min(last[other] for other in same)
            span = max(first[other] for other in same) - since
            gap = span / max(len(with_it) - 1, 1)
            expected = {
                "baskets": len(with_it) / max(len(baskets), 1),
                "days_since": log1p(since),
                "due_ratio": min(since / max(gap, 1), MOST_OVERDUE) if len(with_it) > 1 else 0,
                "weight": sum(0.9**n for n in with_it),
                "items": log1p(len(same)),
                "item_share": weight[item] / sum(weight[other] for other in same),
                "item_lead": weight[item] / max(weight[other] for other in same),
            }
            values = dict(zip(HABITS, found[:, level, item].tolist(), strict=False))
            if category == 0:
                expected = dict.fromkeys(HABITS, 0.0) | {"days_since": NEVER}
            assert values == pytest.approx(expected, rel=1e-4, abs=1e-6)
