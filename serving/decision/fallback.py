"""The rungs that need no model: neighbourhoods of the cart with the shopper's own history, and the
popular items when there is not even that."""

import numpy as np

from contract import candidates
from contract.encoding import Situation
from contract.features import UNKNOWN
from serving.decision.blend import blend
from serving.decision.candidate_set import (
    CandidateSet,
    Ranked,
    collect,
    counting_sources,
    popular,
)
from serving.decision.eligibility import Eligible
from serving.inference.release import Release


def counted(
    release: Release, situation: Situation, may: Eligible, limit: int
) -> tuple[CandidateSet, Ranked] | None:
    """The best of the cart's neighbourhoods and the history, filled up with popular items; None
    where neither of the two says anything."""
    evidence = candidates.gather(situation, release.vocabulary, release.neighbours, release.knn)
    sources = counting_sources(release, situation, evidence, may)
    said = [may.of(sources[name]) for name in ("personal", "neighbours", "session_knn")]
    if not any(len(items) for items in said):
        return None
    found = collect(release, evidence, may, sources)
    return found, blend(found, limit)


def most_popular(
    release: Release, situation: Situation, may: Eligible, limit: int
) -> tuple[CandidateSet, Ranked]:
    """What is popular in the shopper's segment and region, best first; scores fall from 1 towards 0
    with the place. Nothing else of `situation` is looked at."""
    usual = release.popular_lists.of_situation(situation)
    nobody = Situation(UNKNOWN, (), 0)
    evidence = candidates.gather(nobody, release.vocabulary, release.neighbours, None)
    order = popular(release, may, limit, usual)
    found = collect(release, evidence, may, {"popular": order})
    places = np.searchsorted(found.listed.index, order)
    return found, Ranked(places, (1.0 / np.arange(1, len(order) + 1)).astype(np.float32))
