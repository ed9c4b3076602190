"""Changed copies of a batch's histories, so that a model does not learn them by heart.

Only inputs change, never what is asked for: `crop` forgets a random number of the oldest places,
`mask` turns places into OOV, `reorder` shuffles places within a short span.
"""

from dataclasses import dataclass

import torch

from contract.encoding import OOV, PAD
from training.models.next_item import SequenceBatch

_SPAN = 3


@dataclass(frozen=True)
class Augmentation:
    """The share of the sequences that are cropped or reordered, and of the places masked."""

    crop: float = 0.0
    mask: float = 0.0
    reorder: float = 0.0

    def apply(self, batch: SequenceBatch, generator: torch.Generator) -> SequenceBatch:
        """`batch` changed; the same `generator` state gives the same changes."""
        if self.reorder:
            batch = _reordered(batch, self.reorder, generator)
        if self.crop:
            batch = _cropped(batch, self.crop, generator)
        if self.mask:
            masked_BL = torch.rand(batch.items.shape, generator=generator) < self.mask
            hidden_BL = torch.where(masked_BL & (batch.items != PAD), OOV, batch.items)
            batch = batch._replace(items=hidden_BL)
        return batch


def _cropped(batch: SequenceBatch, share: float, generator: torch.Generator) -> SequenceBatch:
    """Forget the oldest places of some of the sequences, and what was asked there."""
    B, length = batch.items.shape
    chosen_B = torch.rand(B, generator=generator) < share
    known_B = (batch.items != PAD).sum(dim=1)
    kept_B = 1 + (torch.rand(B, generator=generator) * known_B).long()
    gone_BL = torch.arange(length)[None] < (length - kept_B)[:, None]
    gone_BL &= chosen_B[:, None]
    items, types, gaps, targets = (one.masked_fill(gone_BL, PAD) for one in batch[:4])
    return SequenceBatch(items, types, gaps, targets, batch.words)


def _reordered(batch: SequenceBatch, share: float, generator: torch.Generator) -> SequenceBatch:
    """Shuffle the inputs of some of the sequences within spans of a few places. Each position is
    then asked for the same next item; what stands before it changed places only with neighbours."""
    B, length = batch.items.shape
    chosen_B1 = (torch.rand(B, generator=generator) < share)[:, None]
    key_BL = torch.arange(length)[None] // _SPAN + 0.99 * torch.rand(B, length, generator=generator)
    shuffled_BL = key_BL.argsort(dim=1)
    order_BL = torch.where(chosen_B1, shuffled_BL, torch.arange(length)[None])
    seen_BL = batch.items != PAD
    still_BL = (seen_BL == seen_BL.gather(1, order_BL)).all(dim=1, keepdim=True)
    order_BL = torch.where(still_BL, order_BL, torch.arange(length)[None])
    # A shuffled input must not show a position its own answer.
    moved_BL = batch.items.gather(1, order_BL)
    latest_BL = order_BL.cummax(dim=1).values
    answer_BL = (latest_BL > torch.arange(length)[None]) & seen_BL
    targets_BL = torch.where(answer_BL, PAD, batch.targets)
    return batch._replace(items=moved_BL, targets=targets_BL)
