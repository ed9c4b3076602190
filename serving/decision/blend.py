"""An order without the ranker: a fixed blend of the sources' own scores. The weights are a plain
prior (what one buys again, then what goes with the cart), not fitted to any shop."""

import numpy as np

from contract.items import Floats, Indices
from contract.ranks import highest
from serving.decision.candidate_set import CandidateSet, Ranked

_WEIGHTS = {
    "weight_60d": 0.35,
    "cart_similarity": 0.20,
    "session_knn": 0.15,
    "query_tower": 0.15,
    "sequence": 0.10,
    "recent_popularity": 0.05,
}


def blend(candidates: CandidateSet, limit: int) -> Ranked:
    """The best `limit` candidates; scores lie in 0..1."""
    scores = np.zeros(len(candidates), np.float32)
    for name, weight in _WEIGHTS.items():
        scores += np.float32(weight) * _unit(candidates.column(name))
    return best(scores, limit)


def best(scores: Floats, limit: int) -> Ranked:
    """The places of the highest of `scores` [C], best first; equal ones by place."""
    places: Indices = highest(scores, min(limit, len(scores)))
    return Ranked(places, scores[places])


def _unit(column: Floats) -> Floats:
    """Scaled to 0..1 over the candidates; all zero where the source says nothing."""
    if not len(column):
        return column
    low, high = column.min(), column.max()
    spread = high - low
    scaled: Floats = (column - low) / spread if spread > 0 else np.zeros_like(column)
    return scaled
