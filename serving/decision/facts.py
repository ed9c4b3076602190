"""What a merchant's conditions may know of a checkout. Without consent that is the cart and the
context alone, as for the models. A history that may not be, or could not be, read is not one of no
orders: what would be told of it has no value then."""

from datetime import datetime
from functools import lru_cache

from contract.clock import to_us
from contract.expression_variables import (
    CartLine,
    Suggested,
    Value,
    cart_values,
    context_values,
    decision_values,
    shopper_values,
)
from contract.expressions import Facts
from contract.features import SubjectState
from contract.segments import local_time
from serving.decision.checkout import Answer, Checkout

_TIMED = frozenset({"context.hour", "context.weekday"})


def orders_of(checkout: Checkout, state: SubjectState | None) -> int | None:
    """How many orders are remembered, less those given back; None where no history may be, or
    could be, read."""
    if state is None or not checkout.subject.personal:
        return None
    return len(checkout.asked_about(state).view.orders)


def offer_facts(
    checkout: Checkout, state: SubjectState | None, wanted: frozenset[str], now: datetime
) -> Facts:
    """The values for the conditions of offers: of at least the variables `wanted`, at the gateway's
    own time `now`."""
    return Facts(_values(checkout, state, wanted, now) | dict(checkout.assumed), "offer")


def rule_facts(
    checkout: Checkout,
    state: SubjectState | None,
    answer: Answer,
    offers: tuple[str, ...],
    wanted: frozenset[str],
    now: datetime,
) -> Facts:
    """The values for the conditions of rules: of at least the variables `wanted`, since most rules
    ask for little."""
    values = _values(checkout, state, wanted, now)
    if "decision" in _kinds(wanted):
        values |= _decision(checkout, answer, offers)
    return Facts({**values, **checkout.assumed})


@lru_cache(maxsize=64)  # of the books in force
def _kinds(wanted: frozenset[str]) -> frozenset[str]:
    return frozenset(name.partition(".")[0] for name in wanted)


def _values(
    checkout: Checkout, state: SubjectState | None, wanted: frozenset[str], now: datetime
) -> dict[str, Value]:
    """What is so before there is a decision."""
    values: dict[str, Value] = {}
    kinds = _kinds(wanted)
    if "shopper" in kinds or "segments" in kinds:
        values |= _shopper(checkout, state, wanted)
    if "cart" in kinds:
        values |= _cart(checkout, with_categories="cart.categories" in wanted)
    if "context" in kinds:
        values |= _context(checkout, now, timed=not _TIMED.isdisjoint(wanted))
    return values


def _shopper(
    checkout: Checkout, state: SubjectState | None, wanted: frozenset[str]
) -> dict[str, Value]:
    personal, names, known = checkout.subject.personal, None, None
    if personal and "segments" in wanted and state is not None:
        names = checkout.segments(state)()
    if "shopper.known" in wanted and not (personal and state is None):  # else it is unread
        known = checkout.asked_about(state or {}).view.known
    return shopper_values(
        known=known,
        signed_in=checkout.request.user_id is not None,
        first_order=checkout.request.context.first_order,
        orders=orders_of(checkout, state),
        segments=names,
    )


def _cart(checkout: Checkout, *, with_categories: bool) -> dict[str, Value]:
    release, cart = checkout.release, checkout.request.cart
    paths, index = release.catalogue.category_path, release.vocabulary.index
    lines = [
        CartLine(
            *(line.item_id, line.quantity, line.price),
            paths[index(line.item_id)] if with_categories else (),
        )
        for line in cart.items
    ]
    return cart_values(lines, cart.currency)


def _context(checkout: Checkout, now: datetime, *, timed: bool) -> dict[str, Value]:
    context = checkout.context
    return context_values(context, local_time(to_us(now), context) if timed else None)


def _decision(checkout: Checkout, answer: Answer, offers: tuple[str, ...]) -> dict[str, Value]:
    release = checkout.release
    index = answer.index[: checkout.request.num_results]
    paths = (release.catalogue.category_path[one] for one in index.tolist())
    return decision_values(
        Suggested(
            release.vocabulary.ids(index),
            tuple(dict.fromkeys(name for path in paths for name in path)),
            offers,
            answer.rung,
        )
    )
