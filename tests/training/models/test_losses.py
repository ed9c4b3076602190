"""The losses against the plain softmax they stand for."""

import math

import pytest
import torch

from training.models.losses import listwise_softmax, sampled_softmax


def test_with_the_whole_catalogue_as_negatives_it_is_the_full_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(9, 4, generator=generator)
    query = torch.randn(3, 4, generator=generator)
    positive = torch.tensor([2, 5, 8])
    uniform = torch.full((9,), math.log(1 / 9))
    loss = sampled_softmax(query, items[positive], items, positive, torch.arange(9), uniform)
    full = torch.nn.functional.cross_entropy(query @ items.T, positive)
    assert loss.item() == pytest.approx(full.item(), abs=1e-5)


def test_log_q_lifts_what_is_sampled_often() -> None:
    """An item drawn with probability q stands for 1/q of itself in the partition sum."""
    items = torch.zeros(3, 2)
    query = torch.zeros(1, 2)
    log_q = torch.tensor([0.0, math.log(0.9), math.log(0.1)])
    loss = sampled_softmax(
        query, items[:1], items[1:], torch.tensor([0]), torch.tensor([1, 2]), log_q
    )
    assert loss.item() == pytest.approx(math.log(1 + 1 / 0.9 + 1 / 0.1), abs=1e-5)


def test_weights_share_out_the_loss() -> None:
    query = torch.tensor([[1.0], [2.0]])
    items = torch.tensor([[1.0], [-1.0], [0.5]])
    arguments = (torch.tensor([0, 1]), torch.tensor([2]), torch.zeros(3))
    each = [
        sampled_softmax(
            query[i : i + 1], items[i : i + 1], items[2:], arguments[0][i : i + 1], *arguments[1:]
        ).item()
        for i in range(2)
    ]
    both = sampled_softmax(query, items[:2], items[2:], *arguments, torch.tensor([3.0, 1.0]))
    assert both.item() == pytest.approx((3 * each[0] + each[1]) / 4, abs=1e-6)


def test_what_is_refused_counts_in_its_own_row_alone() -> None:
    query = torch.tensor([[1.0], [2.0]])
    items = torch.tensor([[1.0], [-1.0], [0.5]])
    arguments = (torch.tensor([0, 1]), torch.tensor([2]), torch.zeros(3))
    refused = torch.tensor([[0.7], [-math.inf]])
    loss = sampled_softmax(
        query, items[:2], items[2:], *arguments, torch.tensor([1.0, 1.0]), refused
    )
    first = -math.log(math.exp(1) / (math.exp(1) + math.exp(0.5) + math.exp(0.7)))
    second = -math.log(math.exp(-2) / (math.exp(-2) + math.exp(1)))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_listwise_softmax_ignores_what_is_masked() -> None:
    scores = torch.tensor([[1.0, 2.0, 50.0]])
    relevant = torch.tensor([[1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    expected = -math.log(math.exp(1) / (math.exp(1) + math.exp(2)))
    assert listwise_softmax(scores, relevant, mask).item() == pytest.approx(expected, abs=1e-6)


def test_listwise_softmax_counts_a_checkout_as_often_as_it_weighs() -> None:
    scores, mask = torch.tensor([[0.0, math.log(3.0)]] * 2), torch.ones(2, 2, dtype=torch.bool)
    relevant, weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([3.0, 0.5])
    expected = (3.0 * math.log(4.0) + 0.5 * math.log(4.0 / 3.0)) / 2
    found = listwise_softmax(scores, relevant, mask, weight)
    assert found.item() == pytest.approx(expected, abs=1e-6)
