"""What rules that hold make of a decision: `apply`, the last step, the same for a checkout and for
a dry run. Every contradiction between two rules is decided by their order and is told."""

from collections.abc import Sequence

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
    if on_products := rule_products.claims_of(rules):
        products = Products(on_products, draft, shop, log)
        items, by = products.shown(), products.by
    on_offers = rule_offers.claims_of(rules)
    offers = Offers(on_offers, shop, log)
    given = offers.given(draft.offers) if on_offers else tuple(draft.offers)
    payments = _ordered(_claims(rules, OrderPayments), draft.payments, log)
    shipping = _ordered(_claims(rules, OrderShipping), draft.shipping, log)
    return Ruled(
        *(items, given, payments, shipping, by, offers.by, offers.blocked),
        applied=log.applied(rules),
        notes=log.notes(),
    )


_OrderClaim = tuple[Rule, OrderPayments | OrderShipping]


def _claims(
    rules: Sequence[Rule], kind: type[OrderPayments] | type[OrderShipping]
) -> list[_OrderClaim]:
    return [(rule, one) for rule in rules for one in rule.actions if isinstance(one, kind)]


def _ordered(claims: Sequence[_OrderClaim], options: Sequence[str], log: Log) -> tuple[str, ...]:
    """`options` with what rules name first before the rest, and without what they hide."""
    first: dict[str, str] = {}
    hidden: dict[str, Rule] = {}
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
                log.follow(rule)
    ordered = dict.fromkeys((*first, *options))
    left = tuple(one for one in ordered if one not in hidden)
    if left or not options:
        return left
    for option, rule in hidden.items():  # a checkout without any would be at its end
        log.note(rule, f"{option}: stays, as nothing else would be left")
    return tuple(ordered)
