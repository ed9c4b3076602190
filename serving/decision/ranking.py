"""Ranking: the ranker's score for every candidate, and the order that follows from it."""

import numpy as np

from contract.candidates import (
    MAX_CANDIDATES,
)
from contract.encoding import Encoded
from contract.items import Floats
from contract.manifest import RANKER
from contract.pair_features import (
    PAIR_FEATURES,
)
from serving.decision.blend import best
from serving.decision.candidate_set import CandidateSet, Ranked
from serving.inference.backend import InferenceBackend, InferenceFailed, Outputs, finite


async def rank(models: InferenceBackend, candidates: CandidateSet, limit: int) -> Ranked:
    """The best `limit` candidates; raises InferenceFailed."""
    outputs = await models.run(RANKER, inputs(candidates))
    finite(outputs, "scores")
    return ranked(candidates, outputs, limit)


def inputs(candidates: CandidateSet) -> Encoded:
    """What the ranker is asked, its candidates padded to MAX_CANDIDATES."""
    pairs = np.empty((MAX_CANDIDATES, len(PAIR_FEATURES)), np.float32)
    put(pairs, candidates)
    return {"pair_features": pairs}


def put(pairs: Floats, candidates: CandidateSet) -> None:
    """Write the same into `pairs` [MAX_CANDIDATES, F]."""
    pairs[: len(candidates)] = candidates.pairs
    pairs[len(candidates) :] = 0.0


def ranked(candidates: CandidateSet, outputs: Outputs, limit: int) -> Ranked:
    """The best `limit` by the ranker's `outputs`, which are finite; raises InferenceFailed."""
    scores: Floats = np.asarray(outputs["scores"][: len(candidates)], np.float32)
    if scores.shape != (len(candidates),):
        raise InferenceFailed(f"scores have shape {scores.shape}")
    return best(scores, limit)
