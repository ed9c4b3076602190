"""Better lists: the order to show, between the ranker's and the merchant's rules. It changes an
order and nothing else: what may be shown was settled before, and whatever is not chosen follows in
the order of its scores, for rules to choose from."""

import numpy as np

from contract import lists
from contract.items import LEVELS, Floats, Indices
from contract.lists import ListSettings
from serving.decision.candidate_set import Ranked
from serving.decision.checkout import Answer
from serving.decision.messages import MAX_RESULTS
from serving.inference.release import Release

# Rules may take out what was chosen: those that then move up were chosen as well.
_LENGTH = 2 * MAX_RESULTS


def arranged(release: Release, answer: Answer, settings: ListSettings) -> Answer:
    """`answer` in the order that `settings` ask for. Where the ranker did not speak the scores say
    nothing about likelihoods, so nothing can be weighed against them: the cap alone counts."""
    ranked, index = answer.ranked, answer.index
    if answer.rung != "full":
        settings = settings.cap_alone
    if ranked is None or not settings.on:
        return answer
    chosen = lists.choose(
        lists.relevance(ranked.scores),
        release.item_vectors[index if settings.diversity else index[:0]],
        np.ascontiguousarray(release.table.levels[index, list(LEVELS).index("wide")]),
        _margins(release, index) if settings.margin else np.zeros(len(index), np.float32),
        *(_LENGTH, settings),
    )
    order = np.concatenate((chosen, np.delete(np.arange(len(index)), chosen)))
    return answer.with_ranked(Ranked(ranked.places[order], ranked.scores[order]))


def _margins(release: Release, index: Indices) -> Floats:
    """What one of each of `index` leaves the shop, in minor units."""
    return release.catalogue.now.margins[index]
