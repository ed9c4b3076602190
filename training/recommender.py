"""A fitted recommender: towers, ranker and tables together, answering many checkouts at once with
the same pure functions that answer one at a time in the gateway."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from contract.attribution import Background
from contract.candidates import MAX_CANDIDATES, Candidates, Evidence
from contract.drift_profile import Profile
from contract.encoding import CART, FIRST_ITEM, Situation, Vocabulary
from contract.quotas import QUOTAS
from training.data.item_tables import ItemTables
from training.data.ranking_examples import NeuralSide, rank_inputs
from training.data.tower_examples import encode_all
from training.models.ranker import Ranker
from training.models.retrieval import RetrievalModel

_CHUNK = 512
_SCORED_TOGETHER = 64
Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
_Row = tuple[Evidence, Candidates, Floats]


def neural_side(
    model: RetrievalModel, situations: Sequence[Situation], vocabulary: Vocabulary
) -> NeuralSide:
    """Item vectors, query vectors and the nearest items of each situation, without gradients."""
    model.eval()
    device = next(model.parameters()).device
    queries, sequences, near_query, near_sequence = [], [], [], []
    with torch.no_grad():
        vectors_ND = model.item_vectors()
        for start in range(0, len(situations), _CHUNK):
            encoded = encode_all(list(situations[start : start + _CHUNK]), vocabulary)
            tensors = {name: tensor.to(device) for name, tensor in encoded.items()}
            query_BD = model.query(tensors, vectors_ND)
            sequence_BD = model.sequence(tensors, vectors_ND)[:, -1]
            queries.append(query_BD)
            sequences.append(sequence_BD)
            # With room for the items of the cart, which `merge` takes out.
            near_query.append(nearest(query_BD, vectors_ND, QUOTAS["query_tower"] + CART))
            near_sequence.append(nearest(sequence_BD, vectors_ND, QUOTAS["sequence"] + CART))
    return NeuralSide(
        vectors_ND.cpu().numpy(),
        *(
            torch.cat(parts).cpu().numpy()
            for parts in (queries, sequences, near_query, near_sequence)
        ),
    )


def nearest(query_BD: torch.Tensor, vectors_ND: torch.Tensor, quota: int) -> torch.Tensor:
    """The `quota` nearest items of each query, [B, quota]; PAD and OOV are none."""
    scores_BN = query_BD @ vectors_ND.T
    scores_BN[:, :FIRST_ITEM] = float("-inf")
    return scores_BN.topk(min(quota, len(vectors_ND) - FIRST_ITEM), dim=1).indices


@dataclass(frozen=True)
class Recommender:
    """What a release is made of, still in torch."""

    vocabulary: Vocabulary
    tables: ItemTables
    towers: RetrievalModel
    ranker: Ranker
    usual: Background | None = None  # what reasons are told against; absent where none are
    profile: Profile | None = None  # of what it would show in the training window

    def rank(self, situations: Sequence[Situation], k: int, *, label: str) -> dict[str, Numbers]:
        """The k best items outside the cart, [cases, k], -1 where there are fewer: the ranker's
        (`ranker`), and those of each vector alone (`query_tower`, `sequence`)."""
        neural = neural_side(self.towers, situations, self.vocabulary)
        rows = rank_inputs(situations, self.vocabulary, self.tables, neural, label=label)
        best, carts = [], []
        for part in _in_groups(rows, _SCORED_TOGETHER):
            best += self._best(part, k)
            carts += [evidence.cart for evidence, _, _ in part]
        alone = {"query_tower": neural.query_nearest, "sequence": neural.sequence_nearest}
        return {
            "ranker": _padded(best, k),
            **{
                name: _padded(
                    [row[~np.isin(row, cart)][:k] for row, cart in zip(near, carts, strict=True)], k
                )
                for name, near in alone.items()
            },
        }

    def scored(
        self, situations: Sequence[Situation], *, label: str
    ) -> tuple[Floats, Iterator[tuple[Numbers, Floats]]]:
        """The item vectors [N, d]; and for each situation its candidates, [C], with the ranker's
        scores, [C], in the order of the candidates."""
        neural = neural_side(self.towers, situations, self.vocabulary)
        rows = rank_inputs(situations, self.vocabulary, self.tables, neural, label=label)
        parts = _in_groups(rows, _SCORED_TOGETHER)
        return neural.item_vectors, itertools.chain.from_iterable(map(self.scores, parts))

    def _best(self, part: Sequence[_Row], k: int) -> list[Numbers]:
        """The k candidates that the ranker scores highest, for each of a few situations."""
        return [
            index[np.argsort(-scores, kind="stable")[:k]] for index, scores in self.scores(part)
        ]

    def scores(self, part: Sequence[_Row]) -> list[tuple[Numbers, Floats]]:
        """The candidates and the ranker's scores, for each of a few situations."""
        features = np.zeros((len(part), MAX_CANDIDATES, part[0][2].shape[1]), np.float32)
        for row, (_, _, computed) in zip(features, part, strict=True):
            row[: len(computed)] = computed
        with torch.no_grad():
            scores = self.ranker(torch.from_numpy(features)).numpy()
        return [
            (merged.index, row[: len(merged.index)])
            for row, (_, merged, _) in zip(scores, part, strict=True)
        ]


def _in_groups(rows: Iterable[_Row], size: int) -> Iterator[list[_Row]]:
    iterator = iter(rows)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _padded(rows: Sequence[Numbers], k: int) -> Numbers:
    """Rows of at most k items as one array [rows, k], -1 where a row is shorter."""
    padded = np.full((len(rows), k), -1, np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
