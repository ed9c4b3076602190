"""What a merchant's expression may speak of: one typed set of variables, for rules and for offers.

A variable that is not known has the value of nothing named here: conditions are read at every
checkout, and most know little of who stands there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final, Literal, NamedTuple

from contract.events import EventContext
from contract.segment_config import WEEKDAYS

Kind = Literal["bool", "int", "string", "list of string", "map of int by string"]
Value = bool | int | str | list[str] | dict[str, int]
Scope = Literal["rule", "offer"]
# Larger amounts than any cart has; what CEL calculates with has 64 bits.
_MOST = 10**15


@dataclass(frozen=True)
class Variable:
    """A variable's name, its type and what it says."""

    name: str
    kind: Kind
    text: str


VARIABLES: Final[tuple[Variable, ...]] = (
    Variable("shopper.known", "bool", "whether anything is remembered, with their consent"),
    Variable("shopper.signed_in", "bool", "whether the caller sent a user_id"),
    Variable("shopper.first_order", "bool", "the caller's word that this is a first order"),
    Variable(
        "shopper.orders",
        "int",
        "orders that are remembered, less those given back; no value without consent",
    ),
    Variable(
        "segments",
        "list of string",
        "the names of the segments in effect; no value without consent",
    ),
    Variable("cart.items", "list of string", "item ids, each once, in the order of the cart"),
    Variable("cart.categories", "list of string", "categories of these, at any level"),
    Variable("cart.quantities", "map of int by string", "how many of each item, by item id"),
    Variable("cart.quantity", "int", "how many items in all"),
    Variable("cart.total", "int", "the lines that say a price, in minor units"),
    Variable("cart.currency", "string", "three letters, such as EUR"),
    Variable("context.device", "string", 'desktop, mobile, tablet or other; "" if not said'),
    Variable("context.country", "string", 'two letters, such as DE; "" if not said'),
    Variable("context.region", "string", 'as the caller names it; "" if not said'),
    Variable("context.timezone", "string", 'IANA, such as Europe/Berlin; "" if not said'),
    Variable("context.hour", "int", "0 to 23 in that zone; -1 where it is not known"),
    Variable("context.weekday", "string", 'monday to sunday in that zone; "" if not known'),
    Variable("decision.items", "list of string", "the items that the models would show, in order"),
    Variable("decision.categories", "list of string", "categories of these, at any level"),
    Variable("decision.offers", "list of string", "the offers that would be shown"),
    Variable("decision.rung", "string", "full, no_ranker, session_knn, popular or empty"),
)
KIND: Final[Mapping[str, Kind]] = {one.name: one.kind for one in VARIABLES}


def variables_of(scope: Scope) -> tuple[Variable, ...]:
    """An offer is chosen before there is a decision: it cannot speak of one."""
    if scope == "rule":
        return VARIABLES
    return tuple(one for one in VARIABLES if not one.name.startswith("decision."))


class CartLine(NamedTuple):
    """A line of the cart; `price` of one unit in minor units, `categories` at any level."""

    item_id: str
    quantity: int
    price: int | None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suggested:
    """What would be shown: item ids in order, their categories, offer ids."""

    items: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    rung: str = "full"


def shopper_values(
    *,
    known: bool | None,
    signed_in: bool,
    first_order: bool | None,
    orders: int | None,
    segments: Iterable[str] | None,
) -> dict[str, Value]:
    """The values of `shopper.*` and `segments`. What could not be told (None) has no value: a
    condition that needs it does not hold, whichever way it asks."""
    values: dict[str, Value] = {
        "shopper.signed_in": signed_in,
        "shopper.first_order": first_order is True,
    }
    if known is not None:
        values["shopper.known"] = known
    if orders is not None:
        values["shopper.orders"] = orders
    if segments is not None:
        values["segments"] = list(segments)
    return values


def cart_values(lines: Iterable[CartLine], currency: str) -> dict[str, Value]:
    """The values of `cart.*`; an item on two lines counts with both."""
    quantities: dict[str, int] = {}
    categories: dict[str, None] = {}
    total = 0
    for item_id, quantity, price, path in lines:
        quantities[item_id] = quantities.get(item_id, 0) + quantity
        for one in path:
            categories[one] = None
        total += quantity * (price or 0)
    return {
        "cart.items": list(quantities),
        "cart.categories": list(categories),
        "cart.quantities": quantities,
        "cart.quantity": sum(quantities.values()),
        "cart.total": min(total, _MOST),
        "cart.currency": currency,
    }


def context_values(context: EventContext | None, local: datetime | None) -> dict[str, Value]:
    """The values of `context.*`; `local` is the gateway's time in the shopper's zone."""
    said = context or EventContext()
    return {
        "context.device": said.device or "",
        "context.country": said.country or "",
        "context.region": said.region or "",
        "context.timezone": said.timezone or "",
        "context.hour": -1 if local is None else local.hour,
        "context.weekday": "" if local is None else WEEKDAYS[local.weekday()],
    }


def decision_values(suggested: Suggested) -> dict[str, Value]:
    """The values of `decision.*`."""
    return {
        "decision.items": list(suggested.items),
        "decision.categories": list(suggested.categories),
        "decision.offers": list(suggested.offers),
        "decision.rung": suggested.rung,
    }


@cache
def hostile_samples() -> tuple[Mapping[str, Value], ...]:
    """Checkouts at the edge of what may come: nothing known, the usual, and as much as may be sent
    of everything, in texts as long and as alike as may be. Before that carts of fewer lines, so
    that what is slow is found out in a fraction of the time."""
    nothing = (
        shopper_values(known=False, signed_in=False, first_order=None, orders=0, segments=())
        | cart_values((), "EUR")
        | context_values(None, None)
        | decision_values(Suggested(rung="empty"))
    )
    usual = (
        shopper_values(
            known=True, signed_in=True, first_order=False, orders=3, segments=("repeat_buyers",)
        )
        | cart_values([CartLine("a", 2, 1_000, ("food", "fruit")), CartLine("b", 1, 250)], "EUR")
        | context_values(
            EventContext(device="mobile", country="DE", region="BE", timezone="Europe/Berlin"),
            datetime(2026, 1, 5, 18),
        )
        | decision_values(Suggested(("c", "d"), ("food",), ("welcome",)))
    )
    long = [f"{'a' * 120}{number:08d}" for number in range(500)]
    return nothing, usual, *(_most(long[:lines]) for lines in (5, 50, 500))


def _most(long: list[str]) -> dict[str, Value]:
    """As much as may be sent with a cart of the items `long`."""
    return (
        shopper_values(
            known=True, signed_in=True, first_order=True, orders=10**6, segments=long[:60]
        )
        | cart_values([CartLine(one, 10**6, 10**12, (one,)) for one in long], "EUR")
        | context_values(
            EventContext(device="other", country="ZZ", region="a" * 64, timezone="a" * 64),
            datetime(2026, 12, 31, 23),
        )
        | decision_values(Suggested(tuple(long[:5]), tuple(long[:40]), tuple(long[:10])))
    )
