"""Cutting sequences into questions and batches."""

import numpy as np
import pytest
import torch

from contract.errors import UserError
from training.next_item.sequences import (
    Questions,
    Sequences,
    batch_of,
    batches,
    every_prefix,
    vocabulary_of,
)

THREE = Sequences(np.array([2, 3, 4, 5, 6, 7, 8]), np.array([0, 3, 4, 7]))  # 2 3 4 | 5 | 6 7 8


def test_the_last_items_go_and_what_is_empty_stays_empty() -> None:
    shorter = THREE.without_last(2)
    assert shorter.item.tolist() == [2, 6]
    assert shorter.lengths.tolist() == [1, 0, 1]
    assert THREE.last().tolist() == [4, 5, 8]
    assert THREE.last(1).tolist() == [3, 0, 7]


def test_every_prefix_is_asked_once() -> None:
    asked = every_prefix(THREE)
    histories = [
        asked.history.item[a:b].tolist()
        for a, b in zip(asked.history.offsets[:-1], asked.history.offsets[1:], strict=True)
    ]
    assert histories == [[2], [2, 3], [6], [6, 7]]
    assert asked.target.tolist() == [3, 4, 7, 8]


def test_a_batch_is_padded_on_the_left_and_asks_for_what_follows() -> None:
    batch = batch_of(THREE, np.array([0, 1, 2]), 50, learning=True)
    assert batch.items.tolist() == [[2, 3], [0, 0], [6, 7]]
    assert batch.targets.tolist() == [[3, 4], [0, 0], [7, 8]]
    asked = batch_of(THREE, np.array([0, 1]), 50, learning=False)
    assert asked.items.tolist() == [[2, 3, 4], [0, 0, 5]]
    assert not asked.targets.any()
    assert batch_of(THREE, np.array([0]), 2, learning=False).items.tolist() == [[3, 4]]


def test_an_unknown_item_is_never_a_target() -> None:
    known = Sequences(np.array([2, 1, 3]), np.array([0, 3]))
    assert batch_of(known, np.array([0]), 50, learning=True).targets.tolist() == [[0, 3]]


def test_batches_hold_every_sequence_once() -> None:
    many = Sequences(np.full(300, 2), np.arange(0, 301, 3))
    drawn = list(batches(many, 16, 50, torch.Generator().manual_seed(0)))
    assert sorted(np.concatenate(drawn).tolist()) == list(range(100))
    assert len(drawn) == -(-100 // 16)
    again = list(batches(many, 16, 50, torch.Generator().manual_seed(0)))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_the_vocabulary_is_ordered_by_frequency_then_id() -> None:
    assert vocabulary_of([["b", "a"], ["c", "b"]]).item_ids == ("b", "a", "c")
    with pytest.raises(UserError, match="no items"):
        vocabulary_of([])


def test_questions_need_a_target_each() -> None:
    with pytest.raises(ValueError, match="one target"):
        Questions(THREE, np.array([2]))
