"""Which of the valid offers is worth its price at this checkout: the one with the most expected
margin over showing none, as the release's uplift network expects it, less the price of what it
spends of the day's budget; or none of them. Some decisions are drawn by chance instead, so that the
next network has something to learn from; without a network, that is all there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.features import SubjectState
from contract.offer_checks import ValidOffer
from contract.offer_features import CartLine, offer_features
from contract.policy import Choice, choose
from serving.decision.checkout import Checkout

# Of what the network can not speak of: chance may show it, the policy never does. A number, not
# infinity, because it goes into records.
UNKNOWN_GAIN: Final = -1e12
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """`offers` are those that may be shown, in the order of the arms 1 .. n of `choice`; `gain` and
    `cost` [1 + n] what each is expected to bring over none and to spend, minor units. `known`:
    whether a network said so."""

    offers: tuple[ValidOffer, ...]
    choice: Choice
    gain: tuple[float, ...]
    cost: tuple[float, ...]
    known: bool

    @property
    def shown(self) -> tuple[ValidOffer, ...]:
        """The offer that was chosen, if any."""
        return self.offers[self.choice.arm - 1 : self.choice.arm] if self.choice.arm else ()


def may_be_judged(checkout: Checkout, state: SubjectState | None, explore_share: float) -> bool:
    """Whether there is anything to judge by: a network or chance, consent to personalization and
    offers, a history that could be read, prices."""
    by = checkout.release.offer_judge is not None or explore_share > 0
    agreed = checkout.subject.personal and "offers" in checkout.subject.purposes
    return by and agreed and state is not None and bool(checkout.request.cart.value)


def judged(
    checkout: Checkout,
    state: SubjectState,
    valid: Sequence[ValidOffer],
    margin: int | None,
    draw: float,
    holdout_share: float,
    explore_share: float,
    price: float,
    bonus: int = 0,
) -> Judged | None:
    """The choice for a checkout whose goods leave `margin` minor units without an offer, by the
    chance `draw` and the `price` of spending (see `contract.policy.choose`); every offer's gain is
    raised by `bonus` for the choice, and told as it is. None where the margin is not known or
    nothing could be shown."""
    if margin is None:
        return None
    judge = checkout.release.offer_judge
    columns = [None if judge is None else judge.arms.column(one.discount) for one in valid]
    open_to = [
        (one, column)
        for one, column in zip(valid, columns, strict=True)
        if column is not None or explore_share > 0
    ]
    if not open_to:
        return None
    offers = tuple(one for one, _ in open_to)
    amount = np.array([one.amount for one in offers], np.float64)
    gain, cost = np.full(len(offers), UNKNOWN_GAIN), amount
    if judge is not None:
        value, lines = checkout.request.cart.value or 0, checkout.request.cart.items
        cart = [CartLine(one.item_id, one.quantity, one.price or 0) for one in lines]
        prices = checkout.release.price_levels
        chance = judge.chances(offer_features(checkout.asked_about(state), cart, prices), value)
        with_offer = np.array([chance[column or 0] for _, column in open_to])
        can_tell = np.array([column is not None for _, column in open_to])
        told = with_offer * (margin - amount) - chance[0] * margin
        gain, cost = np.where(can_tell, told, UNKNOWN_GAIN), with_offer * amount
    gain, cost = np.concatenate(([0.0], gain)), np.concatenate(([0.0], cost))
    raised = gain + bonus * (np.arange(len(gain)) > 0)
    choice = choose(
        *(raised, cost, np.ones(len(gain), bool), price, draw),
        holdout_share=holdout_share,
        explore_share=explore_share,
    )
    return Judged(offers, choice, tuple(gain.tolist()), tuple(cost.tolist()), judge is not None)
