"""What is measured of lists, on lists small enough to reckon by hand."""

import numpy as np
import pytest

from contract.encoding import FIRST_ITEM, Vocabulary
from training.evaluation.list_table import Shop, drawn_margins, measured

A, B, C = range(FIRST_ITEM, FIRST_ITEM + 3)


def shop() -> Shop:
    vectors = np.zeros((FIRST_ITEM + 3, 2), np.float32)
    vectors[A], vectors[B], vectors[C] = (1, 0), (1, 0), (0, 1)
    categories = np.array([0] * FIRST_ITEM + [7, 7, 8])
    margins = np.array([0] * FIRST_ITEM + [0.5, 2.0, 1.0], np.float32)
    return Shop(vectors, categories, margins)


def test_categories_likeness_and_margin() -> None:
    ranked = np.array([[A, B, C, -1, -1], [C, A, -1, -1, -1]])
    found = measured(ranked, [np.array([B]), np.array([A, C])], shop())
    assert found["categories"] == [2.0]
    assert found["similarity"] == [pytest.approx((1 / 3 + 0) / 2)]
    assert found["margin"] == [pytest.approx((0.5 + 2 + 1 + 1 + 0.5) / 5)]
    assert found["hit margin"] == [pytest.approx((2 + (1 + 0.5)) / 2)]


def test_drawn_margins_have_mean_one_and_are_the_same_every_time() -> None:
    vocabulary = Vocabulary(tuple(f"item-{n}" for n in range(50)))
    price = np.concatenate((np.zeros(FIRST_ITEM), np.full(49, 200), [0])).astype(np.float32)
    margins = drawn_margins(vocabulary, price)
    assert margins[FIRST_ITEM:-1].mean() == pytest.approx(1.0, rel=1e-5)
    assert margins[-1] == 1.0  # without a price
    assert (margins[FIRST_ITEM:-1] > 0).all()
    assert np.array_equal(margins, drawn_margins(vocabulary, price))
