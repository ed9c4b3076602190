"""What the release's uplift network expects of a checkout with each offer and without one. It is
asked in this process, whatever serves the other models: it is small, and a decision that must wait
for it offers nothing."""

import numpy as np
import numpy.typing as npt

from contract.encoding import Encoded
from contract.offer_arms import OfferArms, split_answer
from contract.offer_features import Vector
from serving.inference.backend import finite
from serving.inference.embedded import Session

Floats = npt.NDArray[np.float64]


class OfferJudge:
    """The network of one release with the arms that it tells apart. Callable from any thread."""

    def __init__(self, network: Session, arms: OfferArms) -> None:
        self._network = network
        self.arms = arms

    def chances(self, features: Vector, cart_value: int) -> Floats:
        """The chance of a purchase under every arm, no offer first, [1 + arms], for the
        `OFFER_FEATURES` of a checkout whose cart is worth `cart_value` minor units. Raises
        InferenceFailed."""
        value = np.array([[cart_value]], np.float32)
        asked: Encoded = {"offer_features": features[None], "cart_value": value}
        answer = finite(self._network.infer(asked), "offer_outcomes")
        found: Floats = np.clip(np.array(split_answer(answer[0].tolist())[0]), 0.0, 1.0)
        return found
