"""What is trained: a next-item model on sequences, validated by NDCG over the whole catalogue."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contract.encoding import FIRST_ITEM, PAD
from contract.errors import UserError
from training import distributed, sharding
from training.models.next_item import NextItemModel, SequenceBatch
from training.next_item.augmentation import Augmentation
from training.next_item.measures import gain
from training.next_item.sequences import Ints, Questions, Sequences, batch_of, batches

_SCORED_TOGETHER = 256
CUTOFF = 20
SAMPLER_POWER = 0.75


class NextItemTask:
    """Cross entropy of every next item. `negatives` 0 takes the softmax over all items."""

    def __init__(
        self,
        model: NextItemModel,
        train: Sequences,
        held_out: Questions | None,
        *,
        batch_size: int,
        negatives: int,
        exclude_seen: bool,
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        self._plain, self.held_out, self.device = model, held_out, device
        self.model: nn.Module = sharding.spread(model, device)
        self.train = train.where(np.flatnonzero(train.lengths >= 2))
        self.batch_size, self.negatives = batch_size, negatives
        self.exclude_seen, self.augmentation = exclude_seen, augmentation
        if not len(self.train):
            raise UserError("nothing to learn from: no training sequence has two known items")
        self.num_batches = -(-len(self.train) // batch_size)
        frequency = np.bincount(train.item, minlength=model.items.num_embeddings).astype(float) + 1
        frequency[:FIRST_ITEM] = 0.0
        share = frequency**SAMPLER_POWER / (frequency**SAMPLER_POWER).sum()
        self._share = torch.from_numpy(share)
        self._log_q = torch.from_numpy(np.log(np.maximum(share, 1e-12)).astype(np.float32))

    def batches(self, generator: torch.Generator) -> Iterator[SequenceBatch]:
        """This process's part of every batch."""
        for rows in batches(self.train, self.batch_size, self._plain.length, generator):
            own = distributed.part(torch.from_numpy(rows)).numpy()
            batch = batch_of(self.train, own, self._plain.length, learning=True)
            batch = self.augmentation.apply(batch, generator)
            yield batch.to(self.device)

    def loss(self, batch: SequenceBatch, generator: torch.Generator) -> Tensor:
        if not self.negatives:
            loss: Tensor = self.model(batch)
            return loss
        drawn = torch.multinomial(self._share, self.negatives, True, generator=generator)
        sampled: Tensor = self.model(batch, drawn.to(self.device), self._log_q.to(self.device))
        return sampled

    def validate(self) -> float | None:
        """1 - NDCG@20 on the held-out questions."""
        if self.held_out is None:
            return None
        place = places(self._plain, self.held_out, self.device, exclude_seen=self.exclude_seen)
        return 1.0 - gain(place, CUTOFF)


def all_scores(
    model: NextItemModel, histories: Sequences, device: torch.device
) -> Iterator[tuple[Ints, Tensor]]:
    """The scores of every item for some of the histories at a time: their numbers, and [B, N]."""
    order = np.argsort(np.minimum(histories.lengths, model.length), kind="stable")
    model.eval()
    for start in range(0, len(order), _SCORED_TOGETHER):
        rows = order[start : start + _SCORED_TOGETHER]
        batch = batch_of(histories, rows, model.length, learning=False)
        with torch.no_grad():  # never across a yield: several of these run side by side
            scores_BN = model.scores(batch.to(device))
        yield rows, scores_BN


def seen_out(scores_BN: Tensor, histories: Sequences, rows: Ints) -> None:
    """Take the items of each history out of its scores, in place."""
    sizes = histories.lengths[rows]
    row = np.repeat(np.arange(len(rows)), sizes)
    items = histories.where(rows).item
    scores_BN[torch.from_numpy(row), torch.from_numpy(items)] = float("-inf")


def places(
    model: NextItemModel, questions: Questions, device: torch.device, *, exclude_seen: bool
) -> npt.NDArray[np.float64]:
    """The place of every target among all items, 1 for the best; equal scores count against it."""
    found = np.empty(len(questions))
    for rows, scores_BN in all_scores(model, questions.history, device):
        if exclude_seen:
            seen_out(scores_BN, questions.history, rows)
        found[rows] = places_in(scores_BN, questions.target[rows])
    return found


def places_in(scores_BN: Tensor, targets: Ints) -> npt.NDArray[np.float64]:
    """The place of each target in its row of scores; infinite for one that may not be answered."""
    wanted_B1 = torch.from_numpy(targets).to(scores_BN.device)[:, None]
    own_B1 = scores_BN.gather(1, wanted_B1)
    better_B = (scores_BN >= own_B1).sum(dim=1).double()
    possible_B = torch.isfinite(own_B1[:, 0]) & (wanted_B1[:, 0] != PAD)
    return torch.where(possible_B, better_B, float("inf")).cpu().numpy()
