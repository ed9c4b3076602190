"""Every expected value is arithmetic that a reader can redo."""

import math

import numpy as np
import pytest

from training.evaluation.metrics import per_case, recall_of


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


def test_marked_targets_are_counted_by_themselves() -> None:
    ranked = np.array([[1, 2, 8], [1, 2, 8]])
    targets = [np.array([1, 8, 9]), np.array([7])]
    marked = [np.array([True, False, False]), np.array([True])]
    assert recall_of(ranked, targets, marked).tolist() == [1, 0]  # 1 found; 7 not
    others = [~marks for marks in marked]
    assert recall_of(ranked, targets, others).tolist() == [1 / 2]  # of 8 and 9; the second has none


def test_no_case_has_no_figure() -> None:
    values = per_case(np.empty((0, 3), np.int64), [])
    assert {name: len(found) for name, found in values.items()} == {
        "HR@3": 0,
        "Recall@3": 0,
        "NDCG@3": 0,
    }
