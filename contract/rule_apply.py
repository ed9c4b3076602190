"""What rules that hold make of a decision: `apply`, the last step, the same for a checkout and for
a dry run. Every contradiction between two rules is decided by their order and is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from contract import rule_offers, rule_products
from contract.rule_draft import Draft, Log, Ruled, Shop
from contract.rule_offers import Offers
from contract.rule_products import Products
from contract.rules import OrderPayments, OrderShipping, Rule


def apply(rules: Sequence[Rule], draft: Draft, shop: Shop) -> Ruled:
    """`draft` as `rules` would have it, which hold here and come the strongest first.

    A pinned item that can not be sold in this checkout is left out, and the notes say so; the same
    goes for a forced offer that the checkout may not have.
    """
    log = Log()
    items, by = tuple(draft.items[: draft.limit]), {}
    claims = _Claims.of(rules)
    if claims.products and draft.limit:
        products = Products(claims.products, draft, shop, log)
        items, by = products.shown(), products.by
    offers = Offers(claims.offers, shop, log)
    given = offers.given(draft.offers) if claims.offers else tuple(draft.offers)
    payments = _ordered(claims.payments, draft.payments, log)
    shipping = _ordered(claims.shipping, draft.shipping, log)
    return Ruled(
        *(items, given, payments, shipping, by, offers.by, offers.blocked),
        applied=log.applied(rules),
        notes=log.notes(),
    )


def offers_under(
    rules: Sequence[Rule], drawn: Sequence[tuple[str, ...]], shop: Shop
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The offers that would be given under `rules`, had each of `drawn` been chosen; empty where
    the rules say nothing of offers."""
    claims = _Claims.of(rules).offers
    return {one: Offers(claims, shop, Log()).given(one) for one in drawn} if claims else {}


_OrderClaim = tuple[Rule, OrderPayments | OrderShipping]


@dataclass(frozen=True)
class _Claims:
    """All that rules say, by what it is about, the strongest first."""

    products: list[rule_products.Claim] = field(default_factory=list)
    offers: list[rule_offers.Claim] = field(default_factory=list)
    payments: list[_OrderClaim] = field(default_factory=list)
    shipping: list[_OrderClaim] = field(default_factory=list)

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> Self:
        """Those of `rules`."""
        claims = cls()
        for rule in rules:
            for one in rule.actions:
                match one.kind:
                    case "pin" | "exclude" | "boost":
                        claims.products.append((rule, one))
                    case "order_payments":
                        claims.payments.append((rule, one))
                    case "order_shipping":
                        claims.shipping.append((rule, one))
                    case _:
                        claims.offers.append((rule, one))
        return claims


def _ordered(claims: Sequence[_OrderClaim], options: Sequence[str], log: Log) -> tuple[str, ...]:
    """`options` with what rules name first before the rest, and without what they hide."""
    first: dict[str, str] = {}
    hidden: dict[str, Rule] = {}
    hiding: list[Rule] = []
    for rule, action in claims:
        for option in action.first:
            if option in hidden:
                log.note(rule, f"{option}: hidden by {hidden[option].id}")
            elif option in options:
                first.setdefault(option, rule.id)
                log.follow(rule)
        for option in action.hide:
            if option in first:
                log.note(rule, f"{option}: put first by {first[option]}")
            elif option in options:
                hidden.setdefault(option, rule)
                hiding.append(rule)
    ordered = dict.fromkeys((*first, *options))
    left = tuple(one for one in ordered if one not in hidden)
    if left or not options:
        for rule in hiding:
            log.follow(rule)
        return left
    for option, rule in hidden.items():  # a checkout without any would be at its end
        log.note(rule, f"{option}: stays, as nothing else would be left")
    return tuple(ordered)
