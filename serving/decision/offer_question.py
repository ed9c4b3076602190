"""What a checkout asks of the offers: the facts that conditions read, and which offers are valid by
them."""

from datetime import datetime

from contract.expressions import Facts
from contract.features import SubjectState
from contract.offer_checks import Asked, Evaluation
from serving.decision.checkout import Checkout
from serving.decision.facts import offer_facts, orders_of
from serving.decision.offer_shelf import OfferShelf
from serving.state.coupon_holders import Holder


class Question:
    """A checkout that asks, with the facts made only where a condition wants them. `value` of the
    cart's goods, None where a line has no price; `margin`: what they leave, None: not known."""

    def __init__(
        self, checkout: Checkout, state: SubjectState | None, shelf: OfferShelf, now: datetime
    ) -> None:
        self.checkout, self.state, self.shelf, self.now = checkout, state, shelf, now
        self.held = shelf.current
        self.value = checkout.value
        self.margin = margin_of(checkout, self.held.book.margin_rate)
        self._facts: Facts | None = None
        self._holder: Holder | None = None

    def holder(self) -> Holder | None:
        """Under which names the shopper stands in the ledger; None for whom nobody knows. Raises
        StoreError."""
        subject_id = self.checkout.subject.subject_id
        if self._holder is None and subject_id is not None:
            self._holder = self.shelf.holder(subject_id)
        return self._holder

    def facts(self) -> Facts:
        """What is known of the checkout and the shopper, as far as conditions read it."""
        if self._facts is None:
            wanted = self.held.index.variables
            self._facts = offer_facts(self.checkout, self.state, wanted, self.now)
        return self._facts


def evaluated(question: Question) -> Evaluation:
    """Which offers are valid, as far as is known without asking the ledger."""
    uses = question.shelf.uses
    return question.held.index.evaluate(_asked(question), question.facts, uses)


def _asked(question: Question) -> Asked:
    checkout, request = question.checkout, question.checkout.request
    return Asked(
        now=question.now,
        currency=request.cart.currency,
        catalogue_currency=checkout.release.catalogue.currency,
        value=question.value,
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
