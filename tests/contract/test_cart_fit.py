"""What the frozen table says about candidates beside a cart, by hand."""

from math import log, log1p, sqrt

import numpy as np
import pytest

from contract.cart_fit import (
    CART_FIT,
    cart_fit,
    category_fit,
    similarity_matrix,
    staples_similarity,
)
from contract.items import CategoryLift, Floats, ItemNeighbours
from tests.contract.shop import BREAD, EGGS, MILK, SOAP, TEA, indices, neighbours


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def test_similarity_in_any_order_of_the_candidates() -> None:
    near = neighbours()
    matrix = similarity_matrix(near, indices(TEA, EGGS, MILK), indices(BREAD, SOAP))
    assert matrix.tolist() == [[0, 0.125, 0.5], [0, 0, 0]]  # bread to eggs and milk; soap to none
    assert similarity_matrix(near, indices(), indices(BREAD)).shape == (1, 0)
    assert similarity_matrix(near, indices(TEA), indices()).shape == (0, 1)


def test_fit_by_hand() -> None:
    """Two cart items of 4 and 100 baskets; candidates of 25 and 4 baskets; 1,000 baskets."""
    similarity = np.array([[0.5, 0.25], [0.1, 0.0]], np.float32)
    found = cart_fit(similarity, floats(25, 4), floats(4, 100), 1000.0)
    by_name = dict(zip(CART_FIT, (row.tolist() for row in found), strict=True))
    # cosine = both / sqrt(n * m), so both / m = cosine * sqrt(n / m), at most .95
    assert by_name == {
        "cart_nearest": pytest.approx([0.5, 0.25]),
        "cart_second": pytest.approx([0.1, 0]),
        "cart_chance": pytest.approx([-log(1 - 0.95) - log(1 - 0.1 * sqrt(25 / 100)), -log(0.75)]),
        "cart_best_chance": pytest.approx([0.95, 0.25]),  # .5 * sqrt(25 / 4) is more than one
        "cart_lift": pytest.approx(
            [
                (log1p(0.5 / 10 * 1000) + log1p(0.1 / 50 * 1000))
                / 2,  # sqrt(25 * 4), sqrt(25 * 100)
                log1p(0.25 / 4 * 1000) / 2,
            ]
        ),
    }


def test_one_item_has_no_second() -> None:
    found = cart_fit(np.array([[0.5, 0.0]], np.float32), floats(3, 3), floats(3), 9.0)
    assert found[1].tolist() == [0, 0]


def test_an_empty_cart_says_nothing() -> None:
    found = cart_fit(np.zeros((0, 2), np.float32), floats(3, 3), floats(), 9.0)
    assert [row.tolist() for row in found] == [[0, 0]] * len(CART_FIT)
    assert [row.tolist() for row in category_fit(neighbours().wide, indices(MILK), indices())] == [
        [0],
        [0],
    ]


def test_staples_count_by_their_weight() -> None:
    found = staples_similarity(
        neighbours(), indices(MILK, TEA, EGGS), indices(BREAD, MILK), np.array([1, 3], np.float32)
    )
    assert found.tolist() == pytest.approx([0.5 * log1p(1), 0, 0.125 * log1p(1) + 0.25 * log1p(3)])


def test_tables_survive_their_arrays() -> None:
    table = neighbours()
    again = ItemNeighbours.from_arrays(table.arrays())
    assert all(np.array_equal(a, again.arrays()[name]) for name, a in table.arrays().items())
    assert again.baskets == 20
    fewer = table.arrays()
    del fewer["wide_group"]
    with pytest.raises(KeyError, match="wide_group"):
        ItemNeighbours.from_arrays(fewer)
    assert CategoryLift.nothing(3).log_lift.shape == (1, 1)
