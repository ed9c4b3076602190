"""What the ranker learns from: real baskets taken apart into cart and rest, the candidates that the
sources bring for that cart, and their pair features, made by the very functions that serve."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
class DrawnQuestion:
    """A place that was drawn by chance and whose item was bought: the situation, what could have
    been shown there, [P] of the vocabulary, what was, as how many cases it counts, and since when
    that is known."""

    situation: Situation
    pool: npt.NDArray[np.int64]
    shown: int
    weight: float
    known_us: int


@dataclass(frozen=True)
class RankingExamples:
    """Shapes: B cases, C = MAX_CANDIDATES, F = len(PAIR_FEATURES)."""

    index: npt.NDArray[np.int64]  # [B, C] candidates, PAD after the last
    features: npt.NDArray[np.float16]  # [B, C, F]; half the memory, and three digits are enough
    relevant: npt.NDArray[np.bool_]  # [B, C]
    refused: npt.NDArray[np.bool_]  # [B, C] the shopper said that it is not for them
    weight: Floats  # [B] as how many cases each counts

    def __len__(self) -> int:
        return len(self.index)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Which places hold a candidate, [B, C]."""
        return self.index > 0

    def where(self, kept: npt.NDArray[np.bool_]) -> "RankingExamples":
        """The cases that `kept` [B] holds."""
        return RankingExamples(*(column[kept] for column in vars(self).values()))

    def louder(self, times: float) -> "RankingExamples":
        """The same cases, each of which counts as so many."""
        return replace(self, weight=(self.weight * times).astype(np.float32))

    @classmethod
    def joined(cls, parts: Sequence["RankingExamples"]) -> "RankingExamples":
        """The cases of all `parts`, in order."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(one) for one in columns))

    @classmethod
    def empty(cls, cases: int) -> "RankingExamples":
        """As many cases without any candidate."""
        shape = (cases, MAX_CANDIDATES)
        return cls(
            np.zeros(shape, np.int64),
            np.zeros((*shape, len(PAIR_FEATURES)), np.float16),
            np.zeros(shape, bool),
            np.zeros(shape, bool),
            np.ones(cases, np.float32),
        )


def rank_inputs(
    situations: Sequence[Situation],
    vocabulary: Vocabulary,
    tables: Tables,
    neural: NeuralSide,
    *,
    label: str,
    also: Sequence[npt.NDArray[np.int64]] | None = None,
) -> Iterator[tuple[Evidence, Candidates, Floats]]:
    """Evidence, candidates and pair features of each situation, in order. `also`: items that are
    candidates of each whatever the sources bring, at most MAX_CANDIDATES."""
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
        if also is not None:
            merged = _with(merged, also[case])
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
    found = RankingExamples.empty(len(situations))
    rows = rank_inputs(situations, vocabulary, tables, neural, label=label)
    for row, (_, merged, computed) in enumerate(rows):
        count = len(merged.index)
        found.index[row, :count] = merged.index
        found.features[row, :count] = computed
        found.relevant[row, :count] = np.isin(merged.index, targets[row])
        if refused is not None and len(refused[row]):
            found.refused[row, :count] = np.isin(merged.index, refused[row])
    return found


def build_drawn(
    asked: Sequence[DrawnQuestion],
    vocabulary: Vocabulary,
    tables: Tables,
    neural: NeuralSide,
    *,
    label: str,
) -> RankingExamples:
    """What was shown and bought at a place that was drawn, among all that could have been shown
    there and nothing else. Its features are made among the candidates of the checkout: some of them
    are told by the others."""
    found = RankingExamples.empty(len(asked))
    situations, pools = [one.situation for one in asked], [one.pool for one in asked]
    rows = rank_inputs(situations, vocabulary, tables, neural, label=label, also=pools)
    for row, (one, (_, merged, computed)) in enumerate(zip(asked, rows, strict=True)):
        count = len(one.pool)
        at = np.argsort(merged.index)
        at = at[np.searchsorted(merged.index, one.pool, sorter=at)]
        found.index[row, :count] = one.pool
        found.features[row, :count] = computed[at]
        found.relevant[row, :count] = one.pool == one.shown
        found.weight[row] = one.weight
    return found


def _with(candidates: Candidates, also: npt.NDArray[np.int64]) -> Candidates:
    """`candidates` with what they lack of `also`, in the place of the last where they are full."""
    more = also[~np.isin(also, candidates.index)]
    kept = np.flatnonzero(
        np.isin(candidates.index, also)
        | (np.arange(len(candidates.index)) < MAX_CANDIDATES - len(also))
    )
    brought = np.zeros((len(more), candidates.brought.shape[1]), bool)
    return Candidates(
        np.concatenate((candidates.index[kept], more)),
        np.concatenate((candidates.brought[kept], brought)),
    )
