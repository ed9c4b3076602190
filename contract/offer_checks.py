"""What offers are held against, what comes of it, and which of them go together. Pure: uses are
counted by whoever holds the ledger."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from contract.events import EventContext
from contract.offers import Discount, FreeShipping, Limits, Offer

# Talon.One's words, so that a shop that knows them reads ours. The first that holds, in this order.
RejectionReason = Literal[
    "CouponNotFound",  # there is no such offer, or it was withdrawn
    "CouponStartDateInFuture",
    "CouponExpired",
    "CouponPartOfNotRunningCampaign",  # not at this hour, on this weekday, in this place
    "CouponRecipientDoesNotMatch",  # for somebody else
    "CouponRejectedByCondition",  # not for this cart
    "CouponLimitReached",  # used as often as it may be
    "ProfileLimitReached",  # this shopper has used it as often as anybody may
    "CampaignLimitReached",  # its budget is spent
]


@dataclass(frozen=True)
class Used:
    """How often an offer was used so far; reservations count. `spent` in minor units."""

    total: int = 0
    by_subject: int = 0
    spent: int = 0


NOT_USED: Final = Used()
NO_USES: Final[Mapping[str, Used]] = MappingProxyType({})


class Asked(NamedTuple):
    """The checkout that offers are held against.

    `value` of the goods before reductions, None where a line has no price; `shipping` the price of
    each way of delivery, as far as it is known; `margin` what the goods leave before reductions,
    None: not known. `identified`: the caller names a user. `may_target`: what is known of the
    shopper may be used for offers. `orders`: made so far, None: not known.
    """

    now: datetime
    currency: str
    catalogue_currency: str
    value: int | None
    shipping: Mapping[str, int] = MappingProxyType({})
    margin: int | None = None
    context: EventContext | None = None
    first_order: bool | None = None
    identified: bool = False
    may_target: bool = False
    orders: int | None = None

    def shipping_price(self, discount: FreeShipping) -> int:
        """The dearest delivery that `discount` would pay for: which one is taken is not known
        yet."""
        wanted = discount.shipping_ids or tuple(self.shipping)
        return max((self.shipping.get(one, 0) for one in wanted), default=0)


class ValidOffer(NamedTuple):
    """An offer that the checkout may have: `amount` it takes off at most, in minor units;
    `targeted`: because of who the shopper is; `most_in_all`: what it and all that go with it may
    take off, so that its margin floor is kept (None: it has none)."""

    offer: Offer
    discount: Discount
    amount: int
    targeted: bool
    most_in_all: int | None = None


class Rejected(NamedTuple):
    """An offer that it may not have."""

    offer_id: str
    reason: RejectionReason


class Evaluation(NamedTuple):
    """All offers, each in one of the two. Valid ones are in the order of the book; rejected ones as
    they came to be: first those that are not for this checkout, in the order of the book."""

    valid: tuple[ValidOffer, ...]
    rejected: tuple[Rejected, ...]

    def without(self, gone: Mapping[str, RejectionReason]) -> "Evaluation":
        """The same where those of these ids are rejected as well, and why."""
        if not gone:
            return self
        kept = tuple(one for one in self.valid if one.offer.offer_id not in gone)
        refused = (Rejected(*one) for one in gone.items())
        return Evaluation(kept, (*self.rejected, *refused))


def after_uses(found: Evaluation, used: Mapping[str, Used]) -> Evaluation:
    """`found` without what one more use of would not be within its limits; `used` by offer id."""
    gone: dict[str, RejectionReason] = {}
    for one in found.valid:
        offer = one.offer
        reason = used_up(offer.limits, used.get(offer.offer_id, NOT_USED), one.amount)
        if reason is not None:
            gone[offer.offer_id] = reason
    return found.without(gone)


def used_up(limits: Limits, used: Used, amount: int) -> RejectionReason | None:
    """Why one more use that takes `amount` off is not within `limits`."""
    if limits.total is not None and used.total >= limits.total:
        return "CouponLimitReached"
    if limits.per_subject is not None and used.by_subject >= limits.per_subject:
        return "ProfileLimitReached"
    if limits.budget is not None and used.spent + amount > limits.budget:
        return "CampaignLimitReached"
    return None


def room(limits: Limits, used: Used) -> float:
    """The most that one more use may take off, so that it is within `limits`."""
    if used_up(limits, used, 0) is not None:
        return 0
    return math.inf if limits.budget is None else limits.budget - used.spent


def first_set(valid: Iterable[ValidOffer], value: int) -> tuple[ValidOffer, ...]:
    """Of offers in the order of preference, the first and those that go with it: of the same group,
    free delivery once, never more off the goods than their `value`, and never more in all than
    leaves the margin floor of each."""
    chosen: list[ValidOffer] = []
    left, delivered = value, False
    for one in valid:
        if chosen and chosen[0].offer.group is None:
            break
        if chosen and one.offer.group != chosen[0].offer.group:
            continue
        if not floors_kept((some.amount, some.most_in_all) for some in (*chosen, one)):
            continue
        if isinstance(one.discount, FreeShipping):
            if delivered:
                continue
            delivered = True
        elif one.amount > left:
            continue
        else:
            left -= one.amount
        chosen.append(one)
    return tuple(chosen)


def floors_kept(taken: Iterable[tuple[int, int | None]]) -> bool:
    """Whether offers that take these amounts off, each with the most that may go in all, go
    together."""
    every = list(taken)
    in_all = sum(amount for amount, _ in every)
    return all(most is None or in_all <= most for _, most in every)
