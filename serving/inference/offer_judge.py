"""What the release's uplift network expects of a checkout with each offer and without one. It is
asked in this process, whatever serves the other models: it is small, and a decision that must wait
for it offers nothing."""

from collections.abc import Sequence

import numpy as np

from contract.encoding import Encoded
from contract.offer_arms import OfferArms, size_of, split_answer
from contract.offer_features import Vector
from contract.offers import Discount
from serving.inference.backend import finite
from serving.inference.embedded import Session


class OfferJudge:
    """The network of one release with the arms that it tells apart. Callable from any thread."""

    def __init__(self, network: Session, arms: OfferArms) -> None:
        self._network, self._arms = network, arms
        self._columns: dict[tuple[str, float], int | None] = {}

    def column(self, discount: Discount) -> int | None:
        """See OfferArms; it is asked of every offer at every checkout."""
        key = discount.kind, size_of(discount)
        if key not in self._columns:
            self._columns[key] = self._arms.column(discount)
        return self._columns[key]

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
