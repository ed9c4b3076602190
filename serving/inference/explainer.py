"""What the live ranker's scores owe to each kind of evidence. It is computed here, in this
process, whatever serves the ranker: the file is the verified one, and small."""

import numpy as np

from contract.attribution import Background, attributions
from contract.candidates import MAX_CANDIDATES
from contract.items import Floats
from contract.manifest import ATTRIBUTIONS
from serving.inference.backend import InferenceFailed, finite
from serving.inference.embedded import Session

_TOLERANCE = 1e-3  # both add up hundreds of scores, in different orders


class Explainer:
    """Exact attributions by one release's ranker. Callable from any thread.

    `graph` computes them in one pass; without it the ranker is asked about every coalition.
    """

    def __init__(
        self, ranker: Session, background: Background, graph: Session | None = None
    ) -> None:
        """Raises InferenceFailed when `graph` says something else than `ranker`."""
        self.background = background
        self._ranker = ranker
        self._graph = graph
        if graph is not None:
            told, asked = self.attribute(background.rows), self._asked(background.rows)
            if told.shape != asked.shape or not np.allclose(told, asked, rtol=0.0, atol=_TOLERANCE):
                raise InferenceFailed("what it says is not what the ranker's scores say")

    def attribute(self, pairs: Floats) -> Floats:
        """What each of `contract.attribution.GROUPS` adds to the score of each item, [S, G], for
        pair features `pairs` [S, F]. Raises InferenceFailed."""
        if self._graph is None:
            return self._asked(pairs)
        return finite(self._graph.infer({"pair_features": pairs}), ATTRIBUTIONS)

    def _asked(self, pairs: Floats) -> Floats:
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
