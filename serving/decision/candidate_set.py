"""What the stages hand to one another: the candidates of one checkout with the evidence for them,
and the sources that need no model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from contract import candidates
from contract.candidates import PAIR_FEATURES, QUOTAS, Candidates, Evidence
from contract.items import Floats, Indices, Sparse
from serving.decision.eligibility import Eligible
from serving.inference.release import Release

COLUMN = {name: place for place, name in enumerate(PAIR_FEATURES)}
SOURCE = {name: place for place, name in enumerate(QUOTAS)}


@dataclass(frozen=True, eq=False)
class CandidateSet:
    """C candidates: `listed` names them with their sources, `pairs` [C, F] their pair features."""

    evidence: Evidence
    listed: Candidates
    pairs: Floats

    def __len__(self) -> int:
        return len(self.listed.index)

    def column(self, name: str) -> Floats:
        """The pair feature `name` of every candidate, [C]."""
        return self.pairs[:, COLUMN[name]]


@dataclass(frozen=True, eq=False)
class Ranked:
    """Places in a candidate set, best first, and the score of each."""

    places: Indices
    scores: Floats


def collect(release: Release, evidence: Evidence, sources: Mapping[str, Indices]) -> CandidateSet:
    """One candidate set from each source's best-first eligible items."""
    listed = candidates.merge(sources, evidence.cart)
    pairs = candidates.pair_features(evidence, listed.index, release.table, release.item_vectors)
    return CandidateSet(evidence, listed, pairs)


def counting_sources(release: Release, evidence: Evidence, may: Eligible) -> dict[str, Indices]:
    """The eligible items of every source that needs no model, best first."""
    own = evidence.purchased
    by_weight = own.index[np.argsort(-own.weight_60d, kind="stable")]
    return {
        "personal": may.of(by_weight),
        "neighbours": _best(evidence.near, may, QUOTAS["neighbours"]),
        "session_knn": _best(evidence.knn, may, QUOTAS["session_knn"]),
        "popular": popular(release, may, QUOTAS["popular"]),
    }


def popular(release: Release, may: Eligible, limit: int) -> Indices:
    """The most popular eligible items, best first; fewer than `limit` only if no more exist."""
    usual = may.of(release.popular)
    if len(usual) >= min(limit, may.count):
        return usual[:limit]
    return may.of(release.by_popularity)[:limit]


def _best(scores: Sparse, may: Eligible, limit: int) -> Indices:
    kept = may.mask[scores.index]
    return Sparse(scores.index[kept], scores.value[kept]).best(limit)
