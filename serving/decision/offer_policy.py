"""Which of the valid offers is worth its price at this checkout: the one with the most expected
margin over showing none, as the release's uplift network expects it, or none of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.features import SubjectState
from contract.offer_checks import ValidOffer
from contract.offer_features import CartLine, offer_features
from contract.policy import Choice, choose
from serving.decision.checkout import Checkout


@dataclass(frozen=True)
class Judged:
    """`offers` are those that the network can speak of, in the order of the arms 1 .. n of
    `choice`; `gain` [1 + n] what each is expected to bring over none, minor units."""

    offers: tuple[ValidOffer, ...]
    choice: Choice
    gain: tuple[float, ...]

    @property
    def shown(self) -> tuple[ValidOffer, ...]:
        """The offer that was chosen, if any."""
        return self.offers[self.choice.arm - 1 : self.choice.arm] if self.choice.arm else ()


def judged(
    checkout: Checkout,
    state: SubjectState | None,
    valid: Sequence[ValidOffer],
    margin: int | None,
    draw: float,
    holdout_share: float,
    explore_share: float,
) -> Judged | None:
    """The choice for a checkout whose goods leave `margin` minor units without an offer, by the
    chance `draw` (see `contract.policy.choose`). None where there is nothing to judge by: no
    network, no consent to personalization and offers, no history read, no margin, no prices."""
    judge, request = checkout.release.offer_judge, checkout.request
    value, lines = request.cart.value, request.cart.items
    agreed = checkout.subject.personal and "offers" in checkout.subject.purposes
    if judge is None or not agreed or state is None or margin is None or not value:
        return None
    columns = {one.offer.offer_id: judge.arms.column(one.discount) for one in valid}
    offers = tuple(one for one in valid if columns[one.offer.offer_id] is not None)
    if not offers:
        return None
    cart = [CartLine(one.item_id, one.quantity, one.price or 0) for one in lines]
    chance = judge.chances(offer_features(checkout.asked_about(state), cart), value)
    with_offer = chance[[columns[one.offer.offer_id] or 0 for one in offers]]
    amount = np.array([one.amount for one in offers], np.float64)
    gain = np.concatenate(([0.0], with_offer * (margin - amount) - chance[0] * margin))
    cost = np.concatenate(([0.0], with_offer * amount))
    choice = choose(
        *(gain, cost, np.ones(len(gain), bool), 0.0, draw),
        holdout_share=holdout_share,
        explore_share=explore_share,
    )
    return Judged(offers, choice, tuple(gain.tolist()))
