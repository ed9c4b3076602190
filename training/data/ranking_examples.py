"""What the ranker learns from: real baskets taken apart into cart and rest, the candidates that the
sources bring for that cart, and their pair features, made by the very functions that serve."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from contract.candidates import (
    MAX_CANDIDATES,
    Candidates,
    Evidence,
    gather,
    merge,
    sources_of,
)
from contract.encoding import Situation, Vocabulary
from contract.items import ItemNeighbours, ItemTable
from contract.pair_features import (
    PAIR_FEATURES,
    pair_features,
)
from contract.popular import PopularLists
from contract.session_knn import SessionKnn

Floats = npt.NDArray[np.float32]


class Tables(Protocol):
    """What a release counts: of a fit (`ItemTables`), or read back from its files."""

    @property
    def statistics(self) -> ItemTable:
        """Of every item."""

    @property
    def neighbours(self) -> ItemNeighbours:
        """What is bought together."""

    @property
    def knn(self) -> SessionKnn:
        """The session neighbourhood."""

    @property
    def popular(self) -> PopularLists:
        """The popular items."""


@dataclass(frozen=True)
class NeuralSide:
    """What the trained towers say: item vectors [N, d] and, for every case, the query vectors and
    the nearest items of each [cases, n]."""

    item_vectors: Floats
    query_vectors: Floats
    sequence_vectors: Floats
    query_nearest: npt.NDArray[np.int64]
    sequence_nearest: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RankingExamples:
    """Shapes: B cases, C = MAX_CANDIDATES, F = len(PAIR_FEATURES)."""

    index: npt.NDArray[np.int64]  # [B, C] candidates, PAD after the last
    features: npt.NDArray[np.float16]  # [B, C, F]; half the memory, and three digits are enough
    relevant: npt.NDArray[np.bool_]  # [B, C]
    refused: npt.NDArray[np.bool_]  # [B, C] the shopper said that it is not for them

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Which places hold a candidate, [B, C]."""
        return self.index > 0

    def where(self, kept: npt.NDArray[np.bool_]) -> "RankingExamples":
        """The cases that `kept` [B] holds."""
        return RankingExamples(
            self.index[kept], self.features[kept], self.relevant[kept], self.refused[kept]
        )

    @classmethod
    def joined(cls, parts: Sequence["RankingExamples"]) -> "RankingExamples":
        """The cases of all `parts`, in order."""
        return cls(
            np.concatenate([part.index for part in parts]),
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.relevant for part in parts]),
            np.concatenate([part.refused for part in parts]),
        )


def rank_inputs(
    situations: Sequence[Situation],
    vocabulary: Vocabulary,
    tables: Tables,
    neural: NeuralSide,
    *,
    label: str,
) -> Iterator[tuple[Evidence, Candidates, Floats]]:
    """Evidence, candidates and pair features of each situation, in order."""
    for case, situation in enumerate(tqdm(situations, desc=label, unit="case", disable=None)):
        evidence = gather(
            situation,
            vocabulary,
            tables.neighbours,
            tables.knn,
            query_vector=neural.query_vectors[case],
            sequence_vector=neural.sequence_vectors[case],
        )
        sources = sources_of(evidence, tables.popular.of_situation(situation))
        sources["query_tower"] = neural.query_nearest[case]
        sources["sequence"] = neural.sequence_nearest[case]
        merged = merge(sources, evidence.cart)
        features = pair_features(evidence, merged.index, tables.statistics, neural.item_vectors)
        yield evidence, merged, features


def build(
    situations: Sequence[Situation],
    targets: Sequence[npt.NDArray[np.int64]],
    vocabulary: Vocabulary,
    tables: Tables,
    neural: NeuralSide,
    *,
    label: str,
    refused: Sequence[npt.NDArray[np.int64]] | None = None,
) -> RankingExamples:
    """Candidates with features, relevance and, where it is given, what was `refused`, for every
    situation."""
    shape = (len(situations), MAX_CANDIDATES)
    index = np.zeros(shape, np.int64)
    features = np.zeros((*shape, len(PAIR_FEATURES)), np.float16)
    relevant, said_no = np.zeros(shape, bool), np.zeros(shape, bool)
    rows = rank_inputs(situations, vocabulary, tables, neural, label=label)
    for row, (_, merged, computed) in enumerate(rows):
        count = len(merged.index)
        index[row, :count] = merged.index
        features[row, :count] = computed
        relevant[row, :count] = np.isin(merged.index, targets[row])
        if refused is not None and len(refused[row]):
            said_no[row, :count] = np.isin(merged.index, refused[row])
    return RankingExamples(index, features, relevant, said_no)
