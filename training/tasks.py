"""The two things that are trained: the retrieval model, and the ranker on top of it."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from contract.encoding import FIRST_ITEM, PAD
from contract.items import ItemTable
from training import distributed, sharding
from training.data.ranking_examples import RankingExamples
from training.data.tower_examples import TowerExamples
from training.models.losses import listwise_softmax
from training.models.ranker import Ranker
from training.models.retrieval import RetrievalModel

# Negatives are drawn by popularity to this power: flat enough to reach the tail, steep enough to
# meet the items that are really in the way.
SAMPLER_POWER = 0.75


class RetrievalTask:
    """Sampled softmax over baskets; validated by the full softmax on held-out baskets.

    `placement`: the kind of sharding of some tables, by name; TorchRec's planner has the rest.
    """

    def __init__(
        self,
        model: RetrievalModel,
        examples: TowerExamples,
        held_out: TowerExamples | None,
        statistics: ItemTable,
        *,
        batch_size: int,
        negatives: int,
        device: torch.device,
        placement: Mapping[str, str] | None = None,
    ) -> None:
        self.model: nn.Module = sharding.spread(model, device, placement)
        self._plain = model
        self.examples, self.held_out = examples, held_out
        self.batch_size, self.negatives, self.device = batch_size, negatives, device
        self.num_batches = -(-len(examples) // batch_size)
        frequency = np.expm1(statistics.popularity.astype(np.float64)) + 1.0
        weight = frequency**SAMPLER_POWER
        weight[statistics.popularity == 0] = 0.0  # neither pushed away nor pulled
        weight[:FIRST_ITEM] = 0.0
        share = weight / weight.sum()
        self._share = torch.from_numpy(share)
        self._log_q = torch.from_numpy(np.log(np.maximum(share, 1e-12)).astype(np.float32)).to(
            device
        )

    def batches(self, generator: torch.Generator) -> Iterator[TowerExamples]:
        """This process's part of every batch."""
        drawn = self.examples.batches(self.batch_size, generator, distributed.part)
        return (batch.to(self.device) for batch in drawn)

    def loss(self, batch: TowerExamples, generator: torch.Generator) -> Tensor:
        negative_M = torch.multinomial(
            self._share, self.negatives, replacement=True, generator=generator
        )
        loss: Tensor = self.model(batch, negative_M.to(self.device), self._log_q)
        return loss

    def validate(self) -> float | None:
        """The mean negative log likelihood per basket of both query vectors, whole catalogue."""
        if self.held_out is None:
            return None
        model = self._plain.eval()
        vectors_ND = model.item_vectors()
        total = 0.0
        for batch in self.held_out.batches(512, None):
            moved = batch.to(self.device)
            has_BT = moved.targets != PAD
            for query_BD in (
                model.query(moved.tensors, vectors_ND),
                model.sequence(moved.tensors, vectors_ND)[:, -1],
            ):
                logits_BN = query_BD @ vectors_ND.T
                logits_BN[:, :FIRST_ITEM] = float("-inf")
                chosen_BT = logits_BN.log_softmax(dim=1).gather(1, moved.targets)
                chosen_BT = torch.where(has_BT, chosen_BT, 0.0)
                total -= float((chosen_BT.sum(dim=1) / has_BT.sum(dim=1)).sum())
        return total / (2 * len(self.held_out))


RankBatch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # features to weight, as loss has them
_STANDARDISED_ON = 2_000


class RankerTask:
    """Listwise softmax over the candidates of each checkout that holds a relevant one."""

    def __init__(
        self,
        model: Ranker,
        examples: RankingExamples,
        held_out: RankingExamples | None,
        *,
        batch_size: int,
        device: torch.device,
        refused_weight: float = 1.0,
    ) -> None:
        self.batch_size, self.device, self._plain = batch_size, device, model
        self._refused_weight = refused_weight
        self._examples = _tensors(examples)
        self._held_out = None if held_out is None else _tensors(held_out)
        self.num_batches = -(-len(self._examples[0]) // batch_size)
        features, _, mask, *_ = self._examples
        # Checkouts from all over: a few hundred thousand candidates say it well enough.
        some = slice(None, None, max(1, len(features) // _STANDARDISED_ON))
        model.standardise_on(features[some][mask[some]].float())
        self.model: nn.Module = sharding.spread(model, device)

    def batches(self, generator: torch.Generator) -> Iterator[RankBatch]:
        """This process's part of every batch."""
        order = torch.randperm(len(self._examples[0]), generator=generator)
        split = torch.split(order, self.batch_size)
        return (self._part(self._examples, distributed.part(rows)) for rows in split)

    def loss(self, batch: RankBatch, generator: torch.Generator) -> Tensor:
        features_BCF, relevant_BC, mask_BC, refused_BC, weight_B = batch
        # To count an item as several is to raise its score by the logarithm.
        scores_BC = self.model(features_BCF) + refused_BC * math.log(self._refused_weight)
        loss = listwise_softmax(scores_BC, relevant_BC, mask_BC, weight_B)
        return loss * distributed.share(loss.new_tensor(len(features_BCF)))

    def validate(self) -> float | None:
        """1 - NDCG@5 over the candidates."""
        if self._held_out is None:
            return None
        self._plain.eval()
        rows = torch.split(torch.arange(len(self._held_out[0])), 512)
        gains = [self._ndcg(*self._part(self._held_out, part)) for part in rows]
        return 1.0 - float(torch.cat(gains).mean())

    def _ndcg(
        self, features_BCF: Tensor, relevant_BC: Tensor, mask_BC: Tensor, *_: Tensor, k: int = 5
    ) -> Tensor:
        scores_BC = self._plain(features_BCF).masked_fill(~mask_BC, float("-inf"))
        hit_Bk = relevant_BC.gather(1, scores_BC.topk(k, dim=1).indices)
        discount_k = 1.0 / torch.log2(torch.arange(2, k + 2, device=scores_BC.device))
        count_B = relevant_BC.sum(dim=1).long().clamp(min=1, max=k)
        return (hit_Bk * discount_k).sum(dim=1) / discount_k.cumsum(dim=0)[count_B - 1]

    def _part(self, whole: RankBatch, rows: Tensor) -> RankBatch:
        features, *others = (tensor[rows].to(self.device) for tensor in whole)
        relevant, mask, refused, weight = others
        return features.float(), relevant, mask, refused, weight


def _tensors(examples: RankingExamples) -> RankBatch:
    """The checkouts that have something to be found."""
    kept = examples.relevant.any(axis=1)
    return (
        torch.from_numpy(examples.features[kept]),
        torch.from_numpy(examples.relevant[kept].astype(np.float32)),
        torch.from_numpy(examples.mask[kept]),
        torch.from_numpy(examples.refused[kept]),
        torch.from_numpy(examples.weight[kept]),
    )
