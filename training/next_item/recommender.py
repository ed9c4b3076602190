"""The answer to "what next": a mixture of the members' softmax and the session neighbourhood.

Shapes: B questions of a chunk, N vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.session_knn import SessionKnn
from training.models.next_item import NextItemModel
from training.next_item.sequences import Ints, Questions, Sequences
from training.next_item.task import all_scores, places_in, seen_out

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KnnSetting:
    """VMIS-kNN: sessions kept per item, neighbours, latest items looked up, and whether the
    current item may be answered."""

    m: int
    k: int
    query_items: int
    keeps_current: bool


# From the published setting to wider ones; which is taken is decided on validation.
KNN_SETTINGS = (
    KnnSetting(500, 50, 2, keeps_current=False),
    KnnSetting(500, 100, 3, keeps_current=True),
    KnnSetting(1_000, 200, 5, keeps_current=True),
    KnnSetting(1_000, 500, 10, keeps_current=True),
    KnnSetting(2_500, 500, 5, keeps_current=True),
)
MIXTURES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class Neighbours:
    """VMIS-kNN over training sequences, as a distribution over items."""

    index: SessionKnn
    setting: KnnSetting

    @classmethod
    def fit(cls, sequences: Sequences, num_items: int, setting: KnnSetting) -> "Neighbours":
        """The index over `sequences`, the latest one last."""
        number = np.repeat(np.arange(len(sequences)), sequences.lengths)
        index = SessionKnn.fit(
            number,
            sequences.item,
            number,
            num_items=num_items,
            m=setting.m,
            k=setting.k,
            query_items=setting.query_items,
        )
        return cls(index, setting)

    def shares(self, histories: Sequences, rows: Ints, num_items: int) -> Tensor:
        """The share of every item, [B, N]; rows sum to one, or to zero where nobody is near."""
        shares_BN = torch.zeros(len(rows), num_items)
        for place, row in enumerate(rows.tolist()):
            history = histories.item[histories.offsets[row] : histories.offsets[row + 1]]
            drop = None if self.setting.keeps_current else history[-1:]
            items, scores = self.index.score(history, drop=drop)
            if len(items):
                shares_BN[place, torch.from_numpy(items)] = torch.from_numpy(scores / scores.sum())
        return shares_BN


@dataclass(frozen=True)
class NextItemRecommender:
    """`members` answer with the mean of their softmax, `neighbours` with the share `mixture`."""

    members: Sequence[NextItemModel]
    neighbours: Neighbours | None
    mixture: float
    exclude_seen: bool
    device: torch.device

    def shares(self, histories: Sequences) -> Iterator[tuple[Ints, Tensor]]:
        """The probability of every item for some of the histories at a time: their numbers and
        [B, N]."""
        every = [all_scores(member, histories, self.device) for member in self.members]
        for parts in zip(*every, strict=True):
            rows = parts[0][0]
            for _, scores_BN in parts:
                if self.exclude_seen:
                    seen_out(scores_BN, histories, rows)
            soft = [torch.softmax(scores_BN, dim=1).cpu() for _, scores_BN in parts]
            yield rows, torch.stack(soft).mean(dim=0) if len(soft) > 1 else soft[0]

    def mixed(self, histories: Sequences) -> Iterator[tuple[Ints, Tensor, Tensor | None]]:
        """As `shares`, with those of the neighbours beside them."""
        for rows, shares_BN in self.shares(histories):
            near_BN = None
            if self.neighbours is not None:
                near_BN = self.neighbours.shares(histories, rows, shares_BN.shape[1])
                if self.exclude_seen:
                    _emptied(near_BN, histories, rows)
            yield rows, shares_BN, near_BN

    def places(self, questions: Questions) -> Floats:
        """The place of every target, 1 for the best."""
        return self.places_at(questions, (self.mixture,))[self.mixture]

    def places_at(self, questions: Questions, mixtures: Sequence[float]) -> dict[float, Floats]:
        """The same for several mixtures in one pass."""
        found = {mixture: np.empty(len(questions)) for mixture in mixtures}
        for rows, shares_BN, near_BN in self.mixed(questions.history):
            for mixture, into in found.items():
                both_BN = shares_BN
                if near_BN is not None and mixture:
                    both_BN = (1.0 - mixture) * shares_BN + mixture * near_BN
                # What may not be answered has no share; it must not tie with what merely has none.
                both_BN = torch.where(shares_BN > 0, both_BN, float("-inf"))
                into[rows] = places_in(both_BN, questions.target[rows])
        return found


def _emptied(shares_BN: Tensor, histories: Sequences, rows: Ints) -> None:
    """Take the items of each history out of the neighbours' shares, in place."""
    seen_out(shares_BN, histories, rows)
    shares_BN.clamp_(min=0.0)
