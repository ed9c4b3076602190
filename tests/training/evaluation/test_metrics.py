"""Every expected value is arithmetic that a reader can redo."""

import math

import numpy as np
import pytest

from training.evaluation.metrics import per_case, recall_split


def test_one_hit_in_second_place() -> None:
    values = per_case(np.array([[7, 3, 9]]), [np.array([3, 4])])
    assert values["HR@3"][0] == 1
    assert values["Recall@3"][0] == pytest.approx(1 / 2)
    # The ideal list has both targets on top: 1/log2(2) + 1/log2(3).
    assert values["NDCG@3"][0] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_more_targets_than_places_can_still_be_perfect() -> None:
    values = per_case(np.array([[1, 2]]), [np.array([1, 2, 3, 4])])
    assert values["NDCG@2"][0] == pytest.approx(1)
    assert values["Recall@2"][0] == pytest.approx(2 / 4)


def test_an_empty_place_is_no_hit() -> None:
    values = per_case(np.array([[-1, -1], [5, -1]]), [np.array([5]), np.array([5])])
    assert values["HR@2"].tolist() == [0, 1]


def test_repeat_and_explore_targets_are_counted_apart() -> None:
    ranked = np.array([[1, 2, 8], [1, 2, 8]])
    targets = [np.array([1, 8, 9]), np.array([7])]
    seen = [np.array([1]), np.array([7])]
    values = recall_split(ranked, targets, seen)
    assert values["repeat Recall@3"].tolist() == [1, 0]  # 1 found; 7 not
    assert values["explore Recall@3"].tolist() == [1 / 2]  # of 8 and 9; the second case has none
