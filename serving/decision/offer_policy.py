"""Which of the valid offers is worth its price at this checkout: the one with the most expected
margin over showing none, as the release's uplift network expects it, less the price of what it
spends of the day's budget; or none of them. Some decisions are drawn by chance instead, so that the
next network has something to learn from; without a network, that is all there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contract.features import SubjectState
from contract.offer_checks import ValidOffer
from contract.offer_features import CartLine, Vector, offer_features
from contract.policy import Choice, choose
from serving.decision.checkout import Checkout
from serving.inference.offer_judge import OfferJudge

# Of what the network can not speak of: chance may show it, the policy never does. A number, not
# infinity, because it goes into records.
UNKNOWN_GAIN: Final = -1e12


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
    return by and agreed and state is not None and bool(checkout.value)


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
    columns = [None if judge is None else judge.column(one.discount) for one in valid]
    open_to = [
        (one, column)
        for one, column in zip(valid, columns, strict=True)
        if column is not None or explore_share > 0
    ]
    if not open_to:
        return None
    offers = tuple(one for one, _ in open_to)
    gain, cost = [UNKNOWN_GAIN] * len(offers), [float(one.amount) for one in offers]
    if judge is not None:
        chance = _expected(checkout, state, judge)
        without = chance[0] * margin
        for place, (one, column) in enumerate(open_to):
            likely = chance[column or 0]
            cost[place] = likely * one.amount
            if column is not None:
                gain[place] = likely * (margin - one.amount) - without
    choice = choose(
        *([0.0, *(one + bonus for one in gain)], [0.0, *cost], [True] * (1 + len(offers))),
        *(price, draw),
        holdout_share=holdout_share,
        explore_share=explore_share,
    )
    return Judged(offers, choice, (0.0, *gain), (0.0, *cost), judge is not None)


def may_be_asked(checkout: Checkout) -> bool:
    """Whether the network will be asked about the checkout, as far as can be said before the offers
    are looked at."""
    return (
        checkout.chooses
        and checkout.release.offer_judge is not None
        and may_be_judged(checkout, {}, 0.0)
    )


def asked_about(checkout: Checkout, state: SubjectState) -> tuple[Vector, int]:
    """What the network is asked about the checkout."""
    lines = checkout.request.cart.items
    cart = [CartLine(one.item_id, one.quantity, one.price or 0) for one in lines]
    situation, prices = checkout.asked_about(state), checkout.release.price_levels
    return offer_features(situation, cart, prices), checkout.value or 0


def _expected(checkout: Checkout, state: SubjectState, judge: OfferJudge) -> list[float]:
    """The engine's answer, with others' at once, where it was asked."""
    if checkout.expected:
        return checkout.expected[0]
    return judge.chances([asked_about(checkout, state)])[0]
