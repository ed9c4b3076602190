"""The next item of a sequence: a causal encoder over item vectors, scored against all of them.

Suffixes: B batch, L length (left-padded), P positions that have a next item, D dimension, N
vocabulary (PAD and OOV included), R repeat keys.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.encoding import FIRST_ITEM, NUM_EVENT_TYPES, NUM_GAPS, PAD
from contract.text import NUM_TOKENS
from training.models.blocks import BLOCKS, RelativePlaces
from training.models.losses import full_softmax, sampled_softmax

_REPEAT_KEYS = 16
READOUTS = ("state", "items")


class SequenceBatch(NamedTuple):
    """Interactions, oldest first, padded on the left with zeros; [B, L] each."""

    items: Tensor
    types: Tensor
    gaps: Tensor
    targets: Tensor  # the item after each position; PAD where nothing is to be learned
    # [B, L, W] token numbers of what was searched for after each position; None: nobody searches
    words: Tensor | None = None

    def to(self, device: torch.device) -> "SequenceBatch":
        """The same on `device`."""
        words = None if self.words is None else self.words.to(device)
        items, types, gaps, targets = (one.to(device) for one in self[:4])
        return SequenceBatch(items, types, gaps, targets, words)


class ItemReadout(nn.Module):
    """A weighted mean of the items of the sequence: the encoder gives the weights alone, and what
    is compared with the items stays in their space (CORE: Hou et al., "Simple and effective
    session-based recommendation within consistent representation space", SIGIR 2022)."""

    def __init__(self, dimension: int, length: int) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, dimension)
        self.key = nn.Linear(dimension, dimension)
        self.places = RelativePlaces(1, length)

    def forward(self, x_BLD: Tensor, items_BLD: Tensor, allowed_BLL: Tensor) -> Tensor:
        scores_BLL = self.query(x_BLD) @ self.key(x_BLD).transpose(1, 2)
        scores_BLL = scores_BLL / math.sqrt(x_BLD.shape[-1]) + self.places(x_BLD.shape[1])
        weights_BLL = torch.softmax(scores_BLL.masked_fill(~allowed_BLL, float("-inf")), dim=-1)
        mean_BLD: Tensor = weights_BLL @ items_BLD
        return mean_BLD


class NextItemModel(nn.Module):
    """Scores of every item for the place after each position.

    `cosine`: vectors are normalised and scaled by 1 / `temperature`, so that popularity cannot hide
    in their lengths. `repeats`: the items of the sequence itself get a learned extra score.
    `searches`: positions also know what was searched for after them, before the next item.
    `readout`: what is compared with the items, the encoder's last `state`, or the mean of the
    sequence's own `items` that it weighs.
    """

    def __init__(
        self,
        num_items: int,
        *,
        dimension: int,
        block: str,
        blocks: int,
        heads: int,
        length: int,
        dropout: float,
        cosine: bool,
        temperature: float,
        repeats: bool,
        readout: str,
        searches: bool = False,
    ) -> None:
        super().__init__()
        self.cosine, self.temperature, self.length = cosine, temperature, length
        self.items = nn.Embedding(num_items, dimension, padding_idx=PAD)
        self.types = nn.Embedding(NUM_EVENT_TYPES, dimension)
        self.gaps = nn.Embedding(NUM_GAPS, dimension)
        self.words = nn.Embedding(NUM_TOKENS, dimension, padding_idx=PAD) if searches else None
        self.blocks = nn.ModuleList(
            BLOCKS[block](dimension, heads, length, dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dimension)
        self.dropout = nn.Dropout(dropout)
        self.readout = ItemReadout(dimension, length) if readout == "items" else None
        self.repeat_query = nn.Linear(dimension, _REPEAT_KEYS) if repeats else None
        self.repeat_key = nn.Linear(dimension, _REPEAT_KEYS) if repeats else None
        self.repeat_bias = nn.Parameter(torch.zeros(length)) if repeats else None
        nn.init.normal_(self.items.weight, std=dimension**-0.5 if cosine else 0.02)
        with torch.no_grad():
            self.items.weight[PAD].zero_()
        for table in (self.types, self.gaps, self.words):
            if table is not None:
                nn.init.zeros_(table.weight)

    def item_vectors(self) -> Tensor:
        """What is scored against, [N, D]."""
        vectors_ND = self.items.weight
        return functional.normalize(vectors_ND, dim=1) if self.cosine else vectors_ND

    def encode(self, batch: SequenceBatch) -> Tensor:
        """What comes after each position, [B, L, D], to be multiplied with `item_vectors`."""
        length = batch.items.shape[1]
        items_BLD = self.items(batch.items)
        if self.cosine:
            scale = math.sqrt(items_BLD.shape[-1]) * 0.5
            items_BLD = functional.normalize(items_BLD, dim=-1) * scale
        if self.words is not None and batch.words is not None:
            items_BLD = items_BLD + self.searched(batch.words)
        items_BLD = self.dropout(items_BLD)
        x_BLD = items_BLD + self.types(batch.types) + self.gaps(batch.gaps)
        seen_BL = batch.items != PAD
        place_L = torch.arange(length, device=x_BLD.device)
        causal_LL = place_L[:, None] >= place_L[None, :]
        itself_LL = place_L[:, None] == place_L[None, :]
        # A padded position may look at itself, else its softmax would have nothing to sum.
        allowed_B1LL = (causal_LL & seen_BL[:, None, :] | itself_LL)[:, None]
        for block in self.blocks:
            x_BLD = block(x_BLD, allowed_B1LL)
        next_BLD: Tensor = self.norm(x_BLD)
        if self.readout is not None:
            next_BLD = self.readout(next_BLD, items_BLD, allowed_B1LL[:, 0])
        if self.cosine:
            return functional.normalize(next_BLD, dim=-1) / self.temperature
        return next_BLD

    def searched(self, words_BLW: Tensor) -> Tensor:
        """Searches in the space of the items, [B, L, D]: the mean of their words."""
        assert self.words is not None
        said_BLW1 = (words_BLW != PAD).to(self.words.weight.dtype)[..., None]
        sum_BLD = (self.words(words_BLW) * said_BLW1).sum(dim=2)
        mean_BLD: Tensor = sum_BLD / said_BLW1.sum(dim=2).clamp(min=1.0)
        return mean_BLD

    def repeat_scores(self, batch: SequenceBatch, next_BLD: Tensor) -> Tensor | None:
        """The extra score of each earlier place's item, [B, L, L]; None without `repeats`.
        Places that are padded or still to come score zero and belong to PAD."""
        if self.repeat_query is None or self.repeat_key is None or self.repeat_bias is None:
            return None
        items_BLD = self.items(batch.items)
        query_BLR, key_BLR = self.repeat_query(next_BLD), self.repeat_key(items_BLD)
        place_L = torch.arange(batch.items.shape[1], device=next_BLD.device)
        distance_LL = place_L[:, None] - place_L[None, :]
        bias_LL = self.repeat_bias[distance_LL.clamp(min=0)]
        scores_BLL: Tensor = query_BLR @ key_BLR.transpose(1, 2) / math.sqrt(_REPEAT_KEYS)
        scores_BLL = scores_BLL + bias_LL
        return scores_BLL.masked_fill(distance_LL < 0, 0.0)

    def forward(
        self,
        batch: SequenceBatch,
        negative_M: Tensor | None = None,
        log_q: Tensor | None = None,
    ) -> Tensor:
        """Mean cross entropy of the targets: over all items, or, with `negative_M` drawn with the
        log probabilities `log_q` [N], over those."""
        next_BLD = self.encode(batch)
        learned_BL = batch.targets != PAD
        query_PD, target_P = next_BLD[learned_BL], batch.targets[learned_BL]
        vectors_ND = self.item_vectors()
        if negative_M is not None and log_q is not None:
            return sampled_softmax(
                query_PD,
                functional.embedding(target_P, vectors_ND),
                functional.embedding(negative_M, vectors_ND),
                target_P,
                negative_M,
                log_q,
            )
        repeat_BLL = self.repeat_scores(batch, next_BLD)
        if repeat_BLL is None:
            return full_softmax(query_PD, vectors_ND, target_P, first_item=FIRST_ITEM)
        history_BLL = batch.items[:, None, :].expand_as(repeat_BLL).tril()
        return full_softmax(
            query_PD,
            vectors_ND,
            target_P,
            repeat_PH=repeat_BLL[learned_BL],
            history_PH=history_BLL[learned_BL],
            first_item=FIRST_ITEM,
        )

    def scores(self, batch: SequenceBatch) -> Tensor:
        """The scores of every item after the last position, [B, N]; PAD and OOV never come."""
        next_BLD = self.encode(batch)
        scores_BN = next_BLD[:, -1] @ self.item_vectors().T
        repeat_BLL = self.repeat_scores(batch, next_BLD)
        if repeat_BLL is not None:
            scores_BN = scores_BN.scatter_add(1, batch.items, repeat_BLL[:, -1])
        scores_BN[:, :FIRST_ITEM] = float("-inf")
        return scores_BN
