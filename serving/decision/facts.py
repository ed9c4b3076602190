"""What a merchant's conditions may know of a checkout. Without consent that is the cart and the
context alone, as for the models."""

from datetime import datetime

from contract.clock import to_us
from contract.expression_variables import CartLine, cart_values, context_values, shopper_values
from contract.expressions import Facts
from contract.features import SubjectState
from contract.segments import figures, local_time
from serving.decision.checkout import Checkout


def orders_of(checkout: Checkout, state: SubjectState | None) -> int | None:
    """How many orders are remembered, less those given back; None where no history may be, or
    could be, read."""
    if state is None or not checkout.subject.personal:
        return None
    return figures(checkout.asked_about(state).view, checkout.release.rules).orders


def offer_facts(checkout: Checkout, state: SubjectState | None, now: datetime) -> Facts:
    """The values for the conditions of offers, at the gateway's own time `now`."""
    request, release = checkout.request, checkout.release
    context = request.context.event_context()
    view = checkout.asked_about(state or {}).view
    paths, vocabulary = release.catalogue.category_path, release.vocabulary
    lines = (
        CartLine(line.item_id, line.quantity, line.price, paths[vocabulary.index(line.item_id)])
        for line in request.cart.items
    )
    shopper = shopper_values(
        known=view.known,
        signed_in=request.user_id is not None,
        first_order=request.context.first_order,
        orders=orders_of(checkout, state) or 0,
        segments=() if state is None else checkout.segments(state)(),
    )
    return Facts(
        shopper
        | cart_values(lines, request.cart.currency)
        | context_values(context, local_time(to_us(now), context)),
        "offer",
    )
