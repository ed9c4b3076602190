"""Retrieval: from hundreds of thousands of items to at most MAX_CANDIDATES that this shopper may be
shown, from the index, the neighbourhoods, the shopper's own history and the popular items."""

from collections.abc import Mapping

import numpy as np

from contract import candidates
from contract.encoding import Situation
from contract.index_entry import WANTED
from contract.items import Floats, Indices
from serving.decision.candidate_set import CandidateSet, collect, counting_sources
from serving.decision.eligibility import Eligible
from serving.inference.release import Release


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
    sources = counting_sources(release, situation, evidence, may)
    sources |= _nearest(release, may, vectors)
    return collect(release, evidence, may, sources)


def _nearest(release: Release, pool: Eligible, vectors: Mapping[str, Floats]) -> dict[str, Indices]:
    if not vectors:
        return {}
    queries = np.stack(list(vectors.values()))
    return dict(zip(vectors, release.index.nearest(queries, pool.mask, WANTED), strict=True))
