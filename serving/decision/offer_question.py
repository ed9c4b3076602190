"""What a checkout asks of the offers: the facts that conditions read, and which offers are valid by
them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from contract.expressions import Facts
from contract.features import SubjectState
from contract.offer_checks import Asked, Evaluation, Used, evaluate
from contract.offers import Offer
from serving.decision.checkout import Checkout
from serving.decision.facts import offer_facts, orders_of
from serving.decision.offer_shelf import OfferShelf
from serving.state.coupon_holders import Holder


@dataclass(frozen=True, eq=False)
class Question:
    """A checkout that asks, with the facts made only where a condition wants them."""

    checkout: Checkout
    state: SubjectState | None
    shelf: OfferShelf
    now: datetime
    said: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def holder(self) -> Holder | None:
        """Under which names the shopper stands in the ledger; None for whom nobody knows. Raises
        StoreError."""
        subject_id = self.checkout.subject.subject_id
        return None if subject_id is None else self.shelf.holder(subject_id)

    @cached_property
    def facts(self) -> Facts:
        """What is known of the checkout and the shopper."""
        return offer_facts(self.checkout, self.state, self.now)

    @cached_property
    def margin(self) -> int | None:
        """What the cart's goods leave; None where it is not known."""
        return margin_of(self.checkout, self.shelf.current.book.margin_rate)

    def holds(self, offer: Offer) -> bool:
        """Whether the condition of `offer` does."""
        condition = self.shelf.current.conditions.get(offer.offer_id)
        if condition is None:
            return True
        text = condition.text  # offers often share a condition
        if text not in self.said:
            self.said[text] = condition.holds(self.facts) is True
        return self.said[text]


def evaluated(question: Question, offers: Iterable[Offer], uses: Mapping[str, Used]) -> Evaluation:
    """Which of `offers` are valid, after what was used of them."""
    held = question.shelf.current
    return evaluate(
        offers,
        _asked(question),
        uses,
        holds=question.holds,
        traits=held.traits_of,
    )


def _asked(question: Question) -> Asked:
    checkout, request = question.checkout, question.checkout.request
    return Asked(
        now=question.now,
        currency=request.cart.currency,
        catalogue_currency=checkout.release.catalogue.currency,
        value=request.cart.value,
        shipping={one.id: one.price for one in request.shipping_options if one.price is not None},
        margin=question.margin,
        context=checkout.context,
        first_order=request.context.first_order,
        identified=request.user_id is not None,
        may_target="offers" in checkout.subject.purposes,
        orders=orders_of(checkout, question.state),
    )


def margin_of(checkout: Checkout, rate: float | None) -> int | None:
    """What the cart's goods leave, by the cost that the shop said of each, else by its usual rate;
    None where neither is known of a line, or the cart is in another currency than the costs."""
    release, cart = checkout.release, checkout.request.cart
    if cart.currency != release.catalogue.currency:
        return None
    cost = release.catalogue.now.cost
    total = 0
    for line in cart.items:
        known = cost.get(release.vocabulary.index(line.item_id))
        if line.price is None or (known is None and rate is None):
            return None
        each = line.price - known if known is not None else int(line.price * (rate or 0.0))
        total += each * line.quantity
    return total
