"""Retrieval: from hundreds of thousands of items to at most MAX_CANDIDATES that this shopper may be
shown, from the index, the neighbourhoods, the shopper's own history and the popular items."""

from collections.abc import Mapping, Sequence

import numpy as np

from contract import candidates
from contract.encoding import Situation
from contract.index_entry import WANTED
from contract.items import Floats, Indices
from serving.decision.candidate_set import CandidateSet, collect, counting_sources
from serving.decision.eligibility import Eligible
from serving.inference.release import Release

Nearest = Mapping[str, Indices]


def retrieve(
    release: Release,
    situation: Situation,
    may: Eligible,
    vectors: Mapping[str, Floats],
    near: Nearest | None = None,
) -> CandidateSet:
    """The candidates of one checkout.

    `vectors` maps "query_tower" and "sequence" to query vectors [d]; one that is absent brings
    nothing. `near`: their nearest items, where they were searched for already. Items that `may` not
    be shown never appear.
    """
    evidence = candidates.gather(
        situation,
        release.vocabulary,
        release.neighbours,
        release.knn,
        query_vector=vectors.get("query_tower"),
        sequence_vector=vectors.get("sequence"),
    )
    if near is None:
        (near,) = nearest(release, [(may, vectors)])
    counted = counting_sources(release, situation, evidence, may)
    return collect(release, evidence, may, {**counted, **near})


def nearest(
    release: Release, asked: Sequence[tuple[Eligible, Mapping[str, Floats]]]
) -> list[Nearest]:
    """The items nearest to the vectors of each checkout, by source; those that have vectors from
    the same sources are searched together."""
    found: list[Nearest] = [{} for _ in asked]
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, (_, vectors) in enumerate(asked):
        alike.setdefault(tuple(vectors), []).append(place)
    for sources, places in alike.items():
        if not sources:
            continue
        queries = np.array([[asked[place][1][name] for name in sources] for place in places])
        masks = [asked[place][0].mask for place in places]
        rows = release.index.nearest_each(queries, masks, WANTED)
        for place, row in zip(places, rows, strict=True):
            found[place] = dict(zip(sources, row, strict=True))
    return found
