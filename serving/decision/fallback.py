"""The rungs that need no model: neighbourhoods of the cart with the shopper's own history, and the
popular items when there is not even that."""

import numpy as np

from contract import candidates
from contract.candidates import Candidates
from contract.encoding import Situation
from contract.features import UNKNOWN
from contract.pair_features import pair_features
from serving.decision.blend import blend
from serving.decision.candidate_set import (
    SOURCE,
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
    # As many as are asked for, beyond what this source may bring beside others: where rules leave
    # some out, these are all that there is to choose from.
    index = np.sort(order)
    brought = np.zeros((len(index), len(SOURCE)), np.bool_)
    brought[:, SOURCE["popular"]] = True
    pairs = pair_features(evidence, index, release.table, release.item_vectors)
    found = CandidateSet(evidence, Candidates(index, brought), pairs)
    places = np.searchsorted(index, order)
    return found, Ranked(places, (1.0 / np.arange(1, len(order) + 1)).astype(np.float32))
