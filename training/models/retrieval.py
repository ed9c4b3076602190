"""The two towers and the sequence encoder, trained together on one item space.

Suffixes: B batch, L sequence, T targets, R refused, U distinct items, P positives, M negatives,
D space.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.encoding import OOV, PAD
from contract.events import EVENT_TYPE
from training import distributed
from training.data.tower_examples import TowerExamples
from training.models.embeddings import SEARCHED, ItemColumns
from training.models.losses import sampled_softmax
from training.models.sequence_encoder import SequenceEncoder
from training.models.two_tower import ItemTower, QueryTower

_IN_CART = EVENT_TYPE["add_to_cart"]
_WORDS_SAID = 0.4  # of a product's words, the share that a made-up search holds


def rows_of(vectors_UD: Tensor, row: Tensor) -> Tensor:
    """The vectors at `row`. Unlike plain indexing its backward pass adds up in a fixed order, so
    that one seed gives one model."""
    return functional.embedding(row, vectors_UD)


@dataclass(frozen=True)
class _Step:
    """What a training step has looked up. A `row` says where in `vectors` an item's is."""

    vectors: Tensor  # [U, D]
    cold: Tensor  # [U, D], every item as if nobody had bought it
    words: Tensor  # [B, D]
    tensors: dict[str, Tensor]  # the batch's, with rows for items
    target_row: Tensor  # [B, T]
    negative: Tensor  # [M]
    negative_row: Tensor  # [M]
    refused: Tensor  # [B, R]
    refused_row: Tensor  # [B, R]


@dataclass(frozen=True)
class _Positives:
    """What is to be told from negatives, [P] each; `example` is whose it is of the batch, and None
    where refusals do not count."""

    row: Tensor
    item: Tensor
    weight: Tensor
    example: Tensor | None = None


class RetrievalModel(nn.Module):
    """Everything that puts items and queries into the one space."""

    def __init__(
        self,
        columns: ItemColumns,
        *,
        dimension: int,
        blocks: int,
        heads: int,
        dropout: float,
        id_dropout: float,
        search_share: float,
        content_weight: float = 0.0,
        refused_weight: float = 1.0,
        text_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.search_share, self.content_weight = search_share, content_weight
        self.refused_weight = refused_weight
        self.item_tower = ItemTower(columns, dimension, id_dropout, text_vectors)
        self.query_tower = QueryTower(dimension, dropout)
        self.sequence_encoder = SequenceEncoder(dimension, blocks, heads, dropout)

    def item_vectors(self, chunk: int = 8_192) -> Tensor:
        """The vector of every vocabulary index, [N, D]; PAD and OOV rows are as the tower has
        them, and only PAD is zero."""
        device = next(self.query_tower.parameters()).device
        parts = torch.split(torch.arange(self.item_tower.num_items, device=device), chunk)
        vectors_ND = torch.cat([self.item_tower.items(part) for part in parts])
        vectors_ND[PAD] = 0.0
        return vectors_ND

    def query(
        self, tensors: dict[str, Tensor], vectors_UD: Tensor, words_BD: Tensor | None = None
    ) -> Tensor:
        """Query vectors [B, D]; item inputs are row numbers of `vectors_UD`, PAD = row 0.

        `words_BD`: what the search tokens mean, where that is known already.
        """
        cart = tensors["cart_items"]
        if words_BD is None:
            words_BD = self.item_tower.words(tensors["search_tokens"])
        query_BD: Tensor = self.query_tower(
            rows_of(vectors_UD, tensors["frequent_items"]),
            tensors["frequent_weights"],
            rows_of(vectors_UD, cart),
            (cart != PAD).to(vectors_UD.dtype),
            tensors["context"],
            tensors["segments"],
            tensors["recency"],
            words_BD,
        )
        return query_BD

    def sequence(
        self, tensors: dict[str, Tensor], vectors_UD: Tensor, *, latest: bool = False
    ) -> Tensor:
        """What comes after each position, [B, L, D]; with `latest` the last one, [B, 1, D]."""
        next_BQD: Tensor = self.sequence_encoder(
            rows_of(vectors_UD, tensors["sequence_items"]),
            tensors["sequence_types"],
            tensors["sequence_gaps"],
            latest=latest,
        )
        return next_BQD

    def _searches(self, batch: TowerExamples) -> Tensor:
        """The batch's search words; a share of those who did not search is made to have searched
        for some of the words of one of their targets, so that any shop's data teaches what words
        mean."""
        tokens_BT = batch.tensors["search_tokens"]
        silent_B = (tokens_BT != PAD).sum(dim=1) == 0
        chance_B = torch.rand(len(tokens_BT), device=tokens_BT.device)
        text_BW = self.item_tower.columns[SEARCHED.name][batch.targets[:, 0]]
        said_BW = torch.rand(text_BW.shape, device=tokens_BT.device) < _WORDS_SAID
        made_BT = torch.zeros_like(tokens_BT)
        made_BT[:, : text_BW.shape[1]] = torch.where(said_BW, text_BW, PAD)
        searching_B = silent_B & (chance_B < self.search_share)
        return torch.where(searching_B[:, None], made_BT, tokens_BT)

    def dense_parts(self) -> list[nn.Module]:
        """What may be compiled: everything but look-ups and what depends on their values."""
        return [self.item_tower.mix, self.query_tower, self.sequence_encoder]

    def forward(self, batch: TowerExamples, negative_M: Tensor, log_q: Tensor) -> Tensor:
        """The loss of a step: the query tower's and the sequence encoder's sampled softmax.

        Of many processes, each gives its part times its share, so that their average is the loss
        of the whole batch.
        """
        step = self._looked_up(batch, negative_M)
        query_BD = self.query(step.tensors, step.vectors, step.words)
        next_BLD = self.sequence(step.tensors, step.vectors)
        has_BT = batch.targets != PAD
        # Each basket weighs the same, whatever its size.
        weight_BT = has_BT / has_BT.sum(dim=1, keepdim=True).clamp(min=1)
        of_P = has_BT.nonzero()[:, 0]
        targets = _Positives(
            step.target_row[has_BT], batch.targets[has_BT], weight_BT[has_BT], of_P
        )
        tower_loss = self._loss(rows_of(query_BD, of_P), targets, step, log_q)
        last_loss = self._loss(rows_of(next_BLD[:, -1], of_P), targets, step, log_q)
        if self.content_weight > 0:
            cold = replace(step, vectors=step.cold)
            by_content = self._loss(rows_of(query_BD, of_P), targets, cold, log_q)
            tower_loss = tower_loss + self.content_weight * by_content
        # Within the cart the order is the shopper's own; the history's order inside one basket is
        # not, so only steps into the cart are learned from.
        items_BL = batch.tensors["sequence_items"][:, 1:]
        into_cart_BL = (batch.tensors["sequence_types"][:, 1:] == _IN_CART) & (items_BL != PAD)
        added = _Positives(
            step.tensors["sequence_items"][:, 1:][into_cart_BL],
            items_BL[into_cart_BL],
            torch.ones(int(into_cart_BL.sum()), device=query_BD.device),
        )
        cart_loss = self._loss(next_BLD[:, :-1][into_cart_BL], added, step, log_q)
        return tower_loss + last_loss + 0.5 * cart_loss

    def _looked_up(self, batch: TowerExamples, negative_M: Tensor) -> _Step:
        """The vectors of every item of the batch, each computed once, and where they are."""
        names = ("frequent_items", "cart_items", "sequence_items")
        inputs = [batch.tensors[name] for name in names]
        refused_BR = batch.tensors.get("refused", batch.targets[:, :0])
        sought = [*inputs, batch.targets, negative_M, refused_BR]
        pad = batch.targets.new_zeros(1)
        # Sorted, so that PAD stands in row 0 and OOV in row 1.
        distinct_U, row = torch.unique(
            torch.cat([pad, pad + OOV, *(one.flatten() for one in sought)]), return_inverse=True
        )
        drop_U = self.item_tower.dropped(distinct_U)
        vectors_UD, words_BD, content_UD = self.item_tower(
            distinct_U, self._searches(batch), drop_U
        )
        # Content, and the id of the unknown.
        cold_UD = content_UD + (vectors_UD[OOV] - content_UD[OOV])
        vectors_UD = vectors_UD * (distinct_U != PAD).to(vectors_UD.dtype)[:, None]
        parts = row[2:].split([one.numel() for one in sought])
        rows = [part.view_as(one) for part, one in zip(parts, sought, strict=True)]
        *local, target_row_BT, negative_row_M, refused_row_BR = rows
        return _Step(
            vectors_UD,
            cold_UD,
            words_BD,
            {**batch.tensors, **dict(zip(names, local, strict=True))},
            target_row_BT,
            negative_M,
            negative_row_M,
            refused_BR,
            refused_row_BR,
        )

    def _loss(self, query_PD: Tensor, positives: _Positives, step: _Step, log_q: Tensor) -> Tensor:
        """The sampled softmax of `positives` over negatives and what their shoppers refused."""
        of_P, refused_PR = positives.example, None
        if of_P is not None and step.refused.shape[1]:
            refused_PR = self._refused(
                query_PD,
                rows_of(step.vectors, step.refused_row[of_P]),
                step.refused[of_P],
                log_q,
            )
        loss = sampled_softmax(
            query_PD,
            rows_of(step.vectors, positives.row),
            rows_of(step.vectors, step.negative_row),
            positives.item,
            step.negative,
            log_q,
            positives.weight,
            refused_PR,
        )
        return loss * distributed.share(positives.weight.sum())

    def _refused(
        self, query_PD: Tensor, items_PRD: Tensor, items_PR: Tensor, log_q: Tensor
    ) -> Tensor:
        """Logits [P, R] of what each shopper refused: each counts as `refused_weight` draws of the
        sampler. What it never draws is not pushed away here either."""
        drawn_PR = (items_PR != PAD) & (log_q[items_PR] > log_q[PAD])
        logit_PR = torch.einsum("pd,prd->pr", query_PD, items_PRD) - log_q[items_PR]
        return (logit_PR + math.log(self.refused_weight)).masked_fill(~drawn_PR, float("-inf"))
