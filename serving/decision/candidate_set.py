"""What the stages hand to one another: the candidates of one checkout with the evidence for them,
and the sources that need no model."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract import candidates, pair_features
from contract.candidates import (
    Candidates,
    Evidence,
)
from contract.encoding import Situation
from contract.items import Floats, Indices
from contract.pair_features import (
    PAIR_FEATURES,
)
from contract.quotas import QUOTAS
from serving.decision.eligibility import Eligible
from serving.decision.messages import MAX_RESULTS
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


@dataclass(frozen=True, eq=False)
class Owed:
    """What the ranker's scores of the candidates at `places` [S] owe to each of
    contract.attribution.GROUPS, `rows` [S, G]."""

    places: Indices
    rows: Floats

    def of(self, places: Indices) -> Floats | None:
        """The rows of exactly these; None where others were asked about."""
        return self.rows if places.tolist() == self.places.tolist() else None


def collect(
    release: Release, evidence: Evidence, may: Eligible, sources: Mapping[str, Indices]
) -> CandidateSet:
    """One candidate set from each source's best-first items, the cart left out.

    Where that leaves fewer than can be shown, popular ones of `may` join them.
    """
    listed = candidates.merge(sources, evidence.cart)
    if len(listed.index) < min(MAX_RESULTS, may.count):
        more = popular(release, may, QUOTAS["popular"], sources.get("popular"))
        listed = candidates.merge({**sources, "popular": more}, evidence.cart)
    pairs = pair_features.pair_features(evidence, listed.index, release.table, release.item_vectors)
    return CandidateSet(evidence, listed, pairs)


def counting_sources(
    release: Release, situation: Situation, evidence: Evidence, pool: Eligible
) -> dict[str, Indices]:
    """contract.candidates.sources_of over the items of `pool` alone; the popular ones are those of
    the shopper's segment and region."""
    usual = release.popular_lists.of_situation(situation)
    return candidates.sources_within(evidence, pool.mask, pool.count, usual, release.by_popularity)


def popular(release: Release, pool: Eligible, limit: int, usual: Indices | None = None) -> Indices:
    """The most popular items of `pool`, best first, those of the list `usual` (default: what is
    popular with everybody) before others; fewer than `limit` only if no more exist."""
    listed = release.popular if usual is None else usual
    found: Indices = candidates.popular_within(
        listed, release.by_popularity, pool.mask, limit, pool.count
    )
    return found
