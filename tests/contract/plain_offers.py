"""Offers held against a checkout one by one, rule by rule, conditions by CEL itself: what the index
of `contract.offer_index` is held against."""

from collections.abc import Mapping
from math import ceil

from contract.expressions import Facts, parse
from contract.offer_checks import (
    Asked,
    Evaluation,
    Rejected,
    RejectionReason,
    Used,
    ValidOffer,
    used_up,
)
from contract.offers import FreeShipping, LoyaltyTiers, Offer, OfferBook, reduction, settled


def plain_evaluation(
    book: OfferBook, of: Asked, facts: Facts, used: Mapping[str, Used]
) -> Evaluation:
    valid: list[ValidOffer] = []
    rejected: list[Rejected] = []
    too_often: list[Rejected] = []
    for offer in book.offers:
        found = _held(offer, book, of, facts)
        if isinstance(found, str):
            rejected.append(Rejected(offer.offer_id, found))
            continue
        reason = used_up(offer.limits, used.get(offer.offer_id, Used()), found.amount)
        if reason is not None:
            too_often.append(Rejected(offer.offer_id, reason))
        else:
            valid.append(found)
    return Evaluation(tuple(valid), (*rejected, *too_often))


def _held(offer: Offer, book: OfferBook, of: Asked, facts: Facts) -> ValidOffer | RejectionReason:
    if not offer.active:
        return "CouponNotFound"
    if not offer.schedule.begun(of.now):
        return "CouponStartDateInFuture"
    if offer.schedule.over(of.now):
        return "CouponExpired"
    if not offer.schedule.holds(of.now, of.context):
        return "CouponPartOfNotRunningCampaign"
    targeted, discount = _targeted(offer), settled(offer.discount, of.orders)
    first = of.first_order is True and of.identified and not of.orders
    if (targeted and not of.may_target) or discount is None or (offer.first_order and not first):
        return "CouponRecipientDoesNotMatch"
    if of.value is None or (offer.min_value is not None and of.value < offer.min_value):
        return "CouponRejectedByCondition"
    if book.in_money(offer) and of.currency != of.catalogue_currency:
        return "CouponRejectedByCondition"
    if offer.condition is not None and not _holds(offer.condition, facts):
        return "CouponRejectedByCondition"
    price = of.shipping_price(discount) if isinstance(discount, FreeShipping) else 0
    amount = reduction(discount, of.value, price)
    floor, most = book.floor_of(offer), None
    if floor is not None:
        most = 0 if of.margin is None else of.margin - ceil(floor * of.value)
    if amount <= 0 or (most is not None and amount > most):
        return "CouponRejectedByCondition"
    return ValidOffer(offer, discount, amount, targeted, most)


def _holds(condition: str, facts: Facts) -> bool:
    return parse(condition, "offer").by_the_library(facts) is True


def _targeted(offer: Offer) -> bool:
    if offer.first_order or not offer.unconditional or isinstance(offer.discount, LoyaltyTiers):
        return True
    said = offer.condition or ""
    return "shopper." in said or "segments" in said
