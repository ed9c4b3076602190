"""Blocks, scores and losses of the next-item model."""

import json
from pathlib import Path

import pytest
import torch

from contract.encoding import FIRST_ITEM
from contract.errors import UserError
from tests.training.next_item.golden_losses import CURVES, ten_steps
from tests.training.next_item.sequence_shop import ITEMS, sequences
from training.models.blocks import BLOCKS
from training.models.losses import full_softmax
from training.models.next_item import READOUTS, NextItemModel, SequenceBatch
from training.next_item.augmentation import Augmentation
from training.next_item.fit import new_model
from training.next_item.recipe import sequence_recipe
from training.next_item.task import NextItemTask
from training.trainer import Schedule, train

# Loss curves of ten steps at seed 0: a change of these numbers is a change of the model, and needs
# its reason in docs/lab.md. `python -m tests.training.next_item.golden_losses` writes them anew.
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "next_item_losses.json").read_text())


def _model(block: str = "attention", **changed: object) -> NextItemModel:
    torch.manual_seed(0)
    settings = [f"block={block}", "dropout=0", "dimension=16", "length=12"]
    settings += [f"{name}={value}" for name, value in changed.items()]
    return new_model(sequence_recipe("sequences", settings), ITEMS + FIRST_ITEM)


def _batch(*rows: list[int]) -> SequenceBatch:
    items = torch.tensor(rows)
    seen = (items > 0).long()
    return SequenceBatch(items, seen, seen, torch.zeros_like(items))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_position_does_not_see_what_comes_later(block: str, readout: str) -> None:
    model = _model(block, readout=readout).eval()
    one, other = _batch([5, 6, 7, 8]), _batch([5, 6, 9, 10])
    a, b = model.encode(one), model.encode(other)
    assert torch.allclose(a[:, :2], b[:, :2], atol=1e-6)
    assert not torch.allclose(a[:, 2:], b[:, 2:], atol=1e-3)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("repeats", "readout"), [(0, "state"), (1, "state"), (0, "items")])
def test_padding_changes_nothing(block: str, repeats: int, readout: str) -> None:
    model = _model(block, repeats=repeats, readout=readout).eval()
    short, padded = model.scores(_batch([5, 6, 7])), model.scores(_batch([0, 0, 5, 6, 7]))
    assert torch.allclose(short, padded, atol=1e-5)
    assert torch.isinf(short[:, :FIRST_ITEM]).all()


def test_the_readout_of_items_is_a_mean_of_those_that_were_seen() -> None:
    model = _model(readout="items").eval()
    assert model.readout is not None
    batch, next_BLD = _batch([5, 6, 7]), torch.randn(1, 3, 16)
    items_BLD, allowed_BLL = model.items(batch.items), torch.ones(1, 3, 3).tril().bool()
    mean_BLD = model.readout(next_BLD, items_BLD, allowed_BLL)
    assert torch.allclose(mean_BLD[:, 0], items_BLD[:, 0], atol=1e-6)
    weights = torch.linalg.lstsq(items_BLD[0].T, mean_BLD[0, 2][:, None]).solution[:, 0]
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-4)


def test_a_repeat_adds_to_the_scores_of_its_own_items_only() -> None:
    model = _model(repeats=1).eval()
    batch = _batch([5, 6, 5])
    with torch.no_grad():
        before = model.scores(batch)
        assert model.repeat_bias is not None
        model.repeat_bias[:] = torch.tensor([1.0, 10.0, 100.0] + [0.0] * 9)
        added = model.scores(batch) - before
    assert added[0, 5].item() == pytest.approx(1.0 + 100.0, abs=1e-3)  # now, and two places ago
    assert added[0, 6].item() == pytest.approx(10.0, abs=1e-3)
    others = [item for item in range(FIRST_ITEM, ITEMS + FIRST_ITEM) if item not in (5, 6)]
    assert added[0, others].abs().max().item() == pytest.approx(0.0, abs=1e-5)


def test_the_chunked_softmax_equals_the_plain_one() -> None:
    torch.manual_seed(1)
    query = torch.randn(37, 16, dtype=torch.float64, requires_grad=True)
    items = torch.randn(50, 16, dtype=torch.float64, requires_grad=True)
    repeat = torch.randn(37, 3, dtype=torch.float64, requires_grad=True)
    target, history = torch.randint(2, 50, (37,)), torch.randint(0, 50, (37, 3))
    loss = full_softmax(
        query, items, target, repeat_PH=repeat, history_PH=history, first_item=FIRST_ITEM
    )
    logits = (query @ items.T).scatter_add(1, history, repeat)
    logits = logits.masked_fill(torch.arange(50) < FIRST_ITEM, float("-inf"))
    plain = torch.nn.functional.cross_entropy(logits, target)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5)
    inputs = (query, items, repeat)
    for found, expected in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs), strict=True
    ):
        assert torch.allclose(found, expected, atol=1e-6)


def test_in_reduced_precision_the_gradients_still_point_the_same_way() -> None:
    torch.manual_seed(2)
    query = torch.randn(300, 32, requires_grad=True)
    items = torch.randn(900, 32, requires_grad=True)
    target = torch.randint(2, 900, (300,))
    loss = full_softmax(query, items, target, first_item=FIRST_ITEM)
    logits = (query @ items.T).masked_fill(torch.arange(900) < FIRST_ITEM, float("-inf"))
    plain = torch.nn.functional.cross_entropy(logits, target)
    assert loss.item() == pytest.approx(plain.item(), rel=0.02)
    for found, expected in zip(
        torch.autograd.grad(loss, (query, items)),
        torch.autograd.grad(plain, (query, items)),
        strict=True,
    ):
        assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(("block", "readout", "negatives"), CURVES)
def test_ten_steps_lower_the_loss_as_they_always_did(
    block: str, readout: str, negatives: int
) -> None:
    curve = ten_steps(block, readout, negatives)
    assert len(curve) == 10
    assert curve == pytest.approx(GOLDEN[f"{block} {readout} {negatives}"], abs=0.02)
    assert curve[-1] < curve[0] - 0.5


def test_a_loss_that_is_no_number_ends_in_one_line() -> None:
    model = _model()
    with torch.no_grad():
        model.items.weight[5] = float("nan")
    task = NextItemTask(
        model,
        sequences(64),
        None,
        batch_size=32,
        negatives=0,
        exclude_seen=False,
        augmentation=Augmentation(),
        device=torch.device("cpu"),
    )
    with pytest.raises(UserError, match=r"the loss is nan in epoch 1; lower the learning rate"):
        train(task, Schedule(1, 0.01, 0.0, 1), seed=0, label="sequence")
