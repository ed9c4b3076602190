"""The order of the payment methods and shipping options that the caller sent: the likeliest first.
Nothing is added and nothing left out; what a release can not judge stays as it was sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contract.choices import ChoiceWeights, Option, in_order
from contract.choices_made import made_before
from contract.events import key_of
from contract.features import SubjectState
from serving.decision.checkout import Checkout

Why = Literal["chosen_before", "usual_here", "as_sent"]


@dataclass(frozen=True)
class Ordered:
    """One kind of option in its order, with the share of shoppers like this one who would take
    each; empty where nobody could say."""

    ids: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    why: Why = "as_sent"

    def record(self) -> dict[str, Any]:
        """For the decision's event."""
        return {"order": list(self.ids), "shares": list(self.shares), "reason": self.why}


@dataclass(frozen=True)
class Orders:
    """Both kinds, as far as they were asked for."""

    payment: Ordered = Ordered()
    shipping: Ordered = Ordered()
    deliveries: tuple[Option, ...] = ()  # the shipping options as they were sent

    def record(self) -> dict[str, Any]:
        """For the decision's event; nothing where nothing was asked."""
        told = {"payment_methods": self.payment, "shipping_options": self.shipping}
        found = {name: one.record() for name, one in told.items() if one.ids}
        if "shipping_options" in found:
            sent = {one.id: one for one in self.deliveries}
            of_each = [sent[one] for one in self.shipping.ids]
            found["shipping_options"] |= {
                "prices": [one.price for one in of_each],
                "days": [one.days for one in of_each],
            }
        return found


_NOTHING_SENT = Orders()


def as_sent(checkout: Checkout) -> Orders:
    """The orders in which the caller sent the options."""
    if not (checkout.request.payment_methods or checkout.request.shipping_options):
        return _NOTHING_SENT
    payments, deliveries = _asked(checkout)
    return Orders(
        Ordered(tuple(one.id for one in payments)),
        Ordered(tuple(one.id for one in deliveries)),
        tuple(deliveries),
    )


def ordered(checkout: Checkout, state: SubjectState | None, sent: Orders) -> Orders:
    """What was `sent`, the likeliest first, for who has `state`: None or empty without consent or a
    history."""
    choices = checkout.release.choices
    if choices is None or not (sent.payment.ids or sent.shipping.ids):
        return sent
    payments, deliveries = _asked(checkout)
    own = made_before(state if checkout.subject.personal and state else {}, checkout.now_us)
    return Orders(
        _one(checkout, choices.payment, payments, own.payments) or sent.payment,
        _one(checkout, choices.shipping, deliveries, own.deliveries) or sent.shipping,
        sent.deliveries,
    )


def _asked(checkout: Checkout) -> tuple[list[Option], list[Option]]:
    request = checkout.request
    payments = request.payment_methods if "payment" in request.placements else ()
    deliveries = request.shipping_options if "shipping" in request.placements else ()
    return (
        [Option(one) for one in payments],
        [Option(one.id, one.price, one.days) for one in deliveries],
    )


def _one(
    checkout: Checkout,
    weights: ChoiceWeights | None,
    options: Sequence[Option],
    before: Mapping[int, float],
) -> Ordered | None:
    if weights is None or not options:
        return None
    context, value = checkout.context, checkout.value
    own = {one.id: before.get(key_of(one.id), 0.0) for one in options} if before else {}
    if value is None:  # an unpriced cart says nothing of its size
        value = weights.middle_value
    likely = weights.likely(options, context, value, own)
    ids = in_order(options, likely)
    share = dict(zip((one.id for one in options), likely.tolist(), strict=True))
    why: Why = "chosen_before" if own.get(ids[0]) else "usual_here"
    return Ordered(ids, tuple(share[one] for one in ids), why)
