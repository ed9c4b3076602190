"""Retrieval: from hundreds of thousands of items to at most MAX_CANDIDATES that this shopper may be
shown, from the index, the neighbourhoods, the shopper's own history and the popular items."""

from collections.abc import Mapping

import numpy as np

from contract import candidates
from contract.candidates import QUOTAS
from contract.encoding import Situation
from contract.items import Floats, Indices
from serving.decision.candidate_set import CandidateSet, collect, counting_sources
from serving.decision.eligibility import Eligible
from serving.inference.release import Release

# Below this share of eligible items a search that drops most of what it finds costs more than
# looking at the eligible ones only, and could find too few.
_SCAN_BELOW = 0.25
_SPARE = 16


def retrieve(
    release: Release, situation: Situation, may: Eligible, vectors: Mapping[str, Floats]
) -> CandidateSet:
    """The candidates of one checkout.

    `vectors` maps "query_tower" and "sequence" to query vectors [d]; one that is absent brings
    nothing. Items that `may` not be shown never appear.
    """
    evidence = candidates.gather(
        situation,
        release.vocabulary,
        release.neighbours,
        release.knn,
        query_vector=vectors.get("query_tower"),
        sequence_vector=vectors.get("sequence"),
    )
    sources = counting_sources(release, evidence, may) | _nearest(release, may, vectors)
    return collect(release, evidence, may, sources)


def _nearest(release: Release, pool: Eligible, vectors: Mapping[str, Floats]) -> dict[str, Indices]:
    names = list(vectors)
    if not names or not pool.count:
        return {}
    items = len(release.vocabulary.item_ids)
    share = pool.count / items
    wanted = min(max(QUOTAS[name] for name in names), pool.count)
    found: dict[str, Indices] = {}
    if share >= _SCAN_BELOW:
        # Enough more that the ones to be dropped do not starve the list.
        limit = min(int(wanted / share * 1.25) + _SPARE, items)
        queries = np.stack([vectors[name] for name in names])
        rows = release.search(queries, limit)
        found = {name: pool.of(row)[:wanted] for name, row in zip(names, rows, strict=True)}
    return {
        name: found[name]
        if name in found and len(found[name]) >= wanted
        else _scan(release, pool, vectors[name], wanted)
        for name in names
    }


def _scan(release: Release, pool: Eligible, query: Floats, wanted: int) -> Indices:
    """The exact nearest among the items of `pool`, best first."""
    index = np.flatnonzero(pool.mask)
    scores = release.item_vectors[index] @ query
    if len(index) > wanted:
        kept = np.argpartition(-scores, wanted - 1)[:wanted]
        index, scores = index[kept], scores[kept]
    return index[np.lexsort((index, -scores))]
