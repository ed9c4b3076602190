"""What the live ranker's scores owe to each kind of evidence. The ranker is asked here, in this
process, whatever serves it: the file is the verified one, and small."""

import numpy as np

from contract.attribution import Background, attributions
from contract.candidates import MAX_CANDIDATES
from contract.items import Floats
from serving.inference.backend import finite
from serving.inference.embedded import Session


class Explainer:
    """Exact attributions by one release's ranker. Callable from any thread."""

    def __init__(self, ranker: Session, background: Background) -> None:
        self._ranker = ranker
        self.background = background

    def attribute(self, pairs: Floats) -> Floats:
        """What each of `contract.attribution.GROUPS` adds to the score of each item, [S, G], for
        pair features `pairs` [S, F]. Raises InferenceFailed."""
        return attributions(pairs, self.background, self.scores)

    def scores(self, rows: Floats) -> Floats:
        """The ranker's score of each of `rows` [R, F], any number of them, [R]. Raises
        InferenceFailed."""
        checkouts = -(-len(rows) // MAX_CANDIDATES)
        padded = np.empty((checkouts * MAX_CANDIDATES, rows.shape[1]), np.float32)
        padded[: len(rows)], padded[len(rows) :] = rows, 0.0
        batch = padded.reshape(checkouts, MAX_CANDIDATES, -1)
        scores = finite(self._ranker.infer({"pair_features": batch}), "scores")
        return scores.reshape(-1)[: len(rows)]
