"""What the release's uplift network expects of a checkout with each offer and without one. It is
asked in this process, whatever serves the other models: it is small, and a decision that must wait
for it offers nothing."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from contract.encoding import Encoded
from contract.offer_arms import OfferArms, split_answer
from contract.offer_features import Vector
from serving.inference.backend import finite
from serving.inference.embedded import Session


class OfferJudge:
    """The network of one release with the arms that it tells apart. Callable from any thread."""

    def __init__(self, network: Session, arms: OfferArms) -> None:
        self._network = network
        self.column = lru_cache(1_024)(arms.column)  # see OfferArms

    def chances(self, asked: Sequence[tuple[Vector, int]]) -> list[list[float]]:
        """The chance of a purchase under every arm, no offer first, [1 + arms], for each of
        `asked`: the `OFFER_FEATURES` of a checkout and what its cart is worth in minor units.
        Raises InferenceFailed."""
        batch: Encoded = {
            "offer_features": np.array([features for features, _ in asked]),
            "cart_value": np.array([[value] for _, value in asked], np.float32),
        }
        answers = finite(self._network.infer(batch), "offer_outcomes").tolist()
        return [[min(max(one, 0.0), 1.0) for one in split_answer(row)[0]] for row in answers]
