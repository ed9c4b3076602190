"""Which offers a checkout may have, and why not the others. Pure: conditions are evaluated and uses
are counted by whoever holds the expressions and the ledger."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Final, Literal, NamedTuple, Self

from contract.events import EventContext
from contract.offers import (
    EMPTY_BOOK,
    Discount,
    FreeShipping,
    Limits,
    LoyaltyTiers,
    Offer,
    OfferBook,
    reduction,
    settled,
)
from contract.schedule import Schedule

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


@dataclass(frozen=True)
class Asked:
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
    shipping: Mapping[str, int] = field(default_factory=dict)
    margin: int | None = None
    context: EventContext | None = None
    first_order: bool | None = None
    identified: bool = False
    may_target: bool = False
    orders: int | None = None

    def shipping_price(self, discount: Discount) -> int:
        """The dearest delivery that `discount` would pay for: which one is taken is not known
        yet."""
        if not isinstance(discount, FreeShipping):
            return 0
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


@dataclass(frozen=True)
class Evaluation:
    """All offers, each in one of the two."""

    valid: tuple[ValidOffer, ...]
    rejected: tuple[Rejected, ...]


Condition = Callable[[Offer], bool]


@dataclass(frozen=True)
class Traits:
    """What of an offer is the same at every checkout.

    `targeted`: having it says something of who the shopper is, or it is chosen by that: then it is
    shown only where offers may be targeted. `floor`: the share of the goods' value that must be
    left with it. `in_money`: whether it means nothing in another currency. Offers of the same
    `gate` are closed to a checkout for the same reason, but for what they take off and what was
    used of them.
    """

    targeted: bool
    floor: float | None
    in_money: bool
    gate: Hashable

    @classmethod
    def of(cls, offer: Offer, book: OfferBook = EMPTY_BOOK, personal: bool | None = None) -> Self:
        """Of `offer` in `book`. `personal`: whether its condition looks at the shopper; None: any
        condition may."""
        if personal is None:
            personal = offer.condition is not None
        # The caller's word about a first order, given for a user who is named, is about the order.
        loyal = isinstance(offer.discount, LoyaltyTiers)
        targeted = loyal or personal or offer.first_order or not offer.unconditional
        in_money = book.in_money(offer)
        gate = (
            *(offer.active, offer.schedule, offer.first_order, targeted, in_money),
            *(offer.min_value, offer.condition, offer.discount if loyal else None),
        )
        return cls(targeted, book.floor_of(offer), in_money, gate)


def evaluate(
    offers: Iterable[Offer],
    asked: Asked,
    used: Mapping[str, Used],
    *,
    holds: Condition = lambda offer: offer.condition is None,
    traits: Callable[[Offer], Traits] = Traits.of,
) -> Evaluation:
    """`offers` held against a checkout, in their order.

    `used` by offer id. `holds`: whether an offer's condition does, which is asked only where
    everything cheaper has been right.
    """
    valid: list[ValidOffer] = []
    rejected: list[Rejected] = []
    closed: dict[Hashable, RejectionReason | None] = {}
    for offer in offers:
        own = traits(offer)
        if own.gate not in closed:
            closed[own.gate] = _closed(offer, own, asked)
        reason = closed[own.gate]
        if reason is None:
            found = _priced(offer, own, asked)
            if found is None:
                reason = "CouponRejectedByCondition"
            elif not holds(offer):
                reason = closed[own.gate] = "CouponRejectedByCondition"
            else:
                uses = used.get(offer.offer_id, NOT_USED)
                reason = used_up(offer.limits, uses, found.amount)
                if reason is None:
                    valid.append(found)
                    continue
        rejected.append(Rejected(offer.offer_id, reason))
    return Evaluation(tuple(valid), tuple(rejected))


def after_uses(found: Evaluation, used: Mapping[str, Used]) -> Evaluation:
    """`found`, where more is known of what was `used`, by offer id."""
    kept: list[ValidOffer] = []
    rejected = list(found.rejected)
    for one in found.valid:
        offer = one.offer
        reason = used_up(offer.limits, used.get(offer.offer_id, NOT_USED), one.amount)
        if reason is None:
            kept.append(one)
        else:
            rejected.append(Rejected(offer.offer_id, reason))
    return Evaluation(tuple(kept), tuple(rejected))


def _closed(offer: Offer, own: Traits, asked: Asked) -> RejectionReason | None:
    """Why none of the offer's gate is for this checkout, whatever they take off."""
    if not offer.active:
        return "CouponNotFound"
    if (reason := _not_now(offer.schedule, asked)) is not None:
        return reason
    if _settled(offer, asked) is None or not _theirs(offer, own, asked):
        return "CouponRecipientDoesNotMatch"
    value = asked.value
    right = (
        value is not None
        and (asked.currency == asked.catalogue_currency or not own.in_money)
        and (offer.min_value is None or value >= offer.min_value)
    )
    return None if right else "CouponRejectedByCondition"


def _priced(offer: Offer, own: Traits, asked: Asked) -> ValidOffer | None:
    """The offer, whose gate is open, with what it takes off; None where that is nothing, or more
    than its margin floor leaves."""
    discount, value = _settled(offer, asked), asked.value
    assert discount is not None
    assert value is not None
    amount = reduction(discount, value, asked.shipping_price(discount))
    most = None if own.floor is None else _most_in_all(asked, own.floor)
    if amount <= 0 or (most is not None and amount > most):
        return None
    return ValidOffer(offer, discount, amount, own.targeted, most)


def _settled(offer: Offer, asked: Asked) -> Discount | None:
    return settled(offer.discount, asked.orders if asked.may_target else None)


def _not_now(schedule: Schedule, asked: Asked) -> RejectionReason | None:
    if not schedule.begun(asked.now):
        return "CouponStartDateInFuture"
    if schedule.over(asked.now):
        return "CouponExpired"
    if not schedule.here_and_now(asked.now, asked.context):
        return "CouponPartOfNotRunningCampaign"
    return None


def _theirs(offer: Offer, own: Traits, asked: Asked) -> bool:
    if own.targeted and not asked.may_target:
        return False
    # A history that is not there never makes somebody a first-time buyer, one that is there tells
    # that the caller is wrong.
    first = asked.first_order is True and asked.identified and not asked.orders
    return first or not offer.first_order


def _most_in_all(asked: Asked, floor: float) -> int:
    """What may be taken off the cart in all while `floor` is kept."""
    # Costs that nobody said keep no floor, so there is no saying that it would be kept.
    return 0 if asked.margin is None else asked.margin - ceil(floor * (asked.value or 0))


def used_up(limits: Limits, used: Used, amount: int) -> RejectionReason | None:
    """Why one more use that takes `amount` off is not within `limits`."""
    if limits.total is not None and used.total >= limits.total:
        return "CouponLimitReached"
    if limits.per_subject is not None and used.by_subject >= limits.per_subject:
        return "ProfileLimitReached"
    if limits.budget is not None and used.spent + amount > limits.budget:
        return "CampaignLimitReached"
    return None


def first_set(valid: Sequence[ValidOffer], value: int) -> tuple[ValidOffer, ...]:
    """Of offers in the order of preference, the first and those that go with it: of the same group,
    free delivery once, never more off the goods than their `value`, and never more in all than
    leaves the margin floor of each."""
    chosen: list[ValidOffer] = []
    left, delivered = value, False
    for one in valid:
        if chosen and (one.offer.group is None or one.offer.group != chosen[0].offer.group):
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
