"""What an offer is, and what it takes off.

Money is integer minor units of the catalogue's currency. Rounding: a percentage is rounded down to
whole minor units, so a shop never gives more than it said; everything else is whole already.
Percentages are of the goods' value before any reduction, also where several offers go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    model_validator,
)

from contract.catalogue import Currency
from contract.clock import DAY_US, to_us
from contract.fields import Name
from contract.schedule import Schedule
from contract.zones import Zone

OfferId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Minor = Annotated[int, Strict(), Field(ge=1, le=10**12)]
Count = Annotated[int, Strict(), Field(ge=1, le=10**9)]
Share = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]

MOST_OFFERS: Final = 200
MOST_CONDITION: Final = 1_000  # characters
DEFAULT_HOLDOUT: Final = 0.05
FIRST_ORDER_PERCENT: Final = 10.0
_PER_PERCENT = 100  # a percentage has two decimals at most


def _two_decimals(percent: float) -> float:
    if abs(percent * _PER_PERCENT - round(percent * _PER_PERCENT)) > 1e-6:
        raise ValueError("has more than two decimals")
    return percent


Percent = Annotated[
    float, Strict(), Field(ge=0.01, le=100, allow_inf_nan=False), AfterValidator(_two_decimals)
]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PercentOff(_Strict):
    """A share of the goods' value, at most `at_most`."""

    kind: Literal["percent"] = "percent"
    percent: Percent
    at_most: Minor | None = None


class AmountOff(_Strict):
    """A fixed amount, never more than the goods are worth."""

    kind: Literal["amount"] = "amount"
    amount: Minor


class FreeShipping(_Strict):
    """The price of delivery, for the shipping options named, or for every one."""

    kind: Literal["free_shipping"] = "free_shipping"
    shipping_ids: tuple[Name, ...] = ()


class LoyaltyTier(_Strict):
    """For who has made `min_orders` orders that were not given back in full."""

    name: Name
    min_orders: Count
    percent: Percent
    at_most: Minor | None = None


def _rising(tiers: tuple[LoyaltyTier, ...]) -> tuple[LoyaltyTier, ...]:
    orders = [tier.min_orders for tier in tiers]
    if orders != sorted(set(orders)):
        raise ValueError("tiers go from few orders to many, each with more than the one before")
    if len({tier.name for tier in tiers}) != len(tiers):
        raise ValueError("two tiers have the same name")
    return tiers


class LoyaltyTiers(_Strict):
    """The more orders somebody has made, the more: the last tier that is reached counts."""

    kind: Literal["loyalty_tier"] = "loyalty_tier"
    tiers: Annotated[
        tuple[LoyaltyTier, ...], Field(min_length=1, max_length=10), AfterValidator(_rising)
    ]


# What is taken off once it is known for whom: the same at the decision and at the till.
Discount = Annotated[PercentOff | AmountOff | FreeShipping, Field(discriminator="kind")]
AnyDiscount = Annotated[
    PercentOff | AmountOff | FreeShipping | LoyaltyTiers, Field(discriminator="kind")
]


class Limits(_Strict):
    """How often an offer may be used; reservations count. `budget` is of all reductions together,
    in minor units."""

    total: Count | None = None
    per_subject: Count | None = None
    budget: Minor | None = None


class Offer(_Strict):
    """An offer as a shop defines it.

    `condition` is an expression (CEL) over shopper, segments, cart and context. `first_order`: for
    first-time buyers, by the caller's word. `group`: offers of the same group may be had together,
    one without a group goes with no other. `unconditional`: given to whoever qualifies; any other
    only where a model expects more of it than it costs, or a rule says so. `margin_floor`, of the
    goods' value, must be left after it (the book's own counts where this is not said).
    `external_code`: of the coupon in an outside system that is told of its reservations and
    redemptions.
    """

    offer_id: OfferId
    title: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    discount: AnyDiscount
    currency: Currency
    schedule: Schedule = Schedule()
    condition: Annotated[str, StringConstraints(min_length=1, max_length=MOST_CONDITION)] | None = (
        None
    )
    first_order: bool = False
    min_value: Minor | None = None
    group: Name | None = None
    limits: Limits = Limits()
    unconditional: bool = False
    margin_floor: Share | None = None
    active: bool = True
    external_code: Name | None = None

    @property
    def in_money(self) -> bool:
        """Whether an amount is part of it, which means nothing in another currency."""
        limited = self.min_value is not None or self.limits.budget is not None
        if isinstance(self.discount, AmountOff) or limited:
            return True
        if isinstance(self.discount, LoyaltyTiers):
            return any(tier.at_most is not None for tier in self.discount.tiers)
        return isinstance(self.discount, PercentOff) and self.discount.at_most is not None


class FrequencyCap(_Strict):
    """At most `times` offers to one person within `days`."""

    times: Annotated[int, Strict(), Field(ge=1, le=1_000)]
    days: Annotated[float, Strict(), Field(gt=0, le=366, allow_inf_nan=False)]

    def holds(self, shown_us: Sequence[int], now_us: int) -> bool:
        """Whether one more may be shown, after those at `shown_us`."""
        since = now_us - int(self.days * DAY_US)
        return sum(shown > since for shown in shown_us) < self.times


@dataclass(frozen=True)
class ShopDay:
    """A day of a shop: its date there, and the moments at which it begins and is over."""

    name: str
    start_us: int
    end_us: int


class DailyBudget(_Strict):
    """What offers may take off in all on one day, in minor units; days begin at midnight in
    `timezone`."""

    amount: Minor
    timezone: Zone = "UTC"

    def day(self, now: datetime) -> ShopDay:
        """The day that it is."""
        zone = ZoneInfo(self.timezone)
        today = now.astimezone(zone).date()
        return ShopDay(
            today.isoformat(), _midnight(today, zone), _midnight(today + timedelta(days=1), zone)
        )


def _midnight(day: date, zone: ZoneInfo) -> int:
    return to_us(datetime.combine(day, time(), zone))


def _distinct(offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    if len({offer.offer_id for offer in offers}) != len(offers):
        raise ValueError("two offers have the same offer_id")
    return offers


class OfferBook(_Strict):
    """All offers of a shop, in the order in which they are preferred where nothing else decides.

    `holdout_share` of the decisions show no offer, by chance and on record, so that what offers
    bring can be measured; only what a rule forces is shown to them. `explore_share` of them show
    any offer that is not `unconditional`, or none, all alike, so that the next network has
    something to learn from; the first network comes about that way. `margin_rate` is the share of
    an item's price that is left where its cost is not known.

    `daily_budget` is of what offers that are not `unconditional` take off; the network's choices
    are paced so that it lasts for the day. `frequency_cap`: how often a shopper is shown one of
    those; a session counts once. `region_bonus`, minor units by region: what the network's gain of
    every offer is raised by there, so that regions are offered something as often as a floor asks
    (`tillwise-train fairness` says how much).
    """

    offers: Annotated[
        tuple[Offer, ...], Field(max_length=MOST_OFFERS), AfterValidator(_distinct)
    ] = ()
    holdout_share: Share = DEFAULT_HOLDOUT
    explore_share: Share = 0.0
    margin_rate: Share | None = None
    margin_floor: Share | None = None
    daily_budget: DailyBudget | None = None
    frequency_cap: FrequencyCap | None = None
    region_bonus: Annotated[dict[Name, Minor], Field(max_length=1_000)] = {}

    @model_validator(mode="after")
    def _one_currency(self) -> Self:
        if len({offer.currency for offer in self.offers}) > 1:
            raise ValueError("offers: all are in one currency, the catalogue's")
        if self.holdout_share + self.explore_share > 1:
            raise ValueError("holdout_share and explore_share are more than one together")
        return self

    def find(self, offer_id: str) -> Offer | None:
        """The offer with this id."""
        return next((offer for offer in self.offers if offer.offer_id == offer_id), None)

    def floor_of(self, offer: Offer) -> float | None:
        """The share of the goods' value that must be left with `offer`."""
        return self.margin_floor if offer.margin_floor is None else offer.margin_floor

    def budgeted(self, offer: Offer) -> bool:
        """Whether what `offer` takes off is of the day's budget."""
        return self.daily_budget is not None and not offer.unconditional

    def in_money(self, offer: Offer) -> bool:
        """Whether `offer` means nothing in another currency, by itself or by the day's budget."""
        return offer.in_money or self.budgeted(offer)


EMPTY_BOOK: Final = OfferBook()


def first_order_offer(currency: str, **more: Any) -> Offer:
    """The first-time buyers' ten per cent, once for each."""
    return Offer.model_validate(
        {
            "offer_id": "first-order",
            "title": "10 % off your first order",
            "discount": PercentOff(percent=FIRST_ORDER_PERCENT),
            "currency": currency,
            "first_order": True,
            "unconditional": True,
            "limits": Limits(per_subject=1),
        }
        | more
    )


def settled(discount: AnyDiscount, orders: int | None) -> Discount | None:
    """`discount` for who has made so many `orders` (None: not known); None where no tier is
    reached."""
    if not isinstance(discount, LoyaltyTiers):
        return discount
    reached = [tier for tier in discount.tiers if orders is not None and orders >= tier.min_orders]
    if not reached:
        return None
    return PercentOff(percent=reached[-1].percent, at_most=reached[-1].at_most)


def reduction(discount: Discount, value: int, shipping_price: int = 0) -> int:
    """What `discount` takes off goods worth `value` with delivery at `shipping_price`."""
    if isinstance(discount, FreeShipping):
        return max(shipping_price, 0)
    worth = max(value, 0)
    if isinstance(discount, AmountOff):
        return min(discount.amount, worth)
    taken = worth * round(discount.percent * _PER_PERCENT) // (100 * _PER_PERCENT)
    return taken if discount.at_most is None else min(taken, discount.at_most)


def go_together(offers: tuple[Offer, ...]) -> bool:
    """Whether one checkout may have all of `offers`."""
    if len(offers) < 2:
        return True
    groups = {offer.group for offer in offers}
    return len(groups) == 1 and None not in groups
