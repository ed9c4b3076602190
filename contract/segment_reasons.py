"""Why a shopper is in a segment: the figures that made it so, against thresholds, in words."""

import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from contract.behaviour import (
    BEHAVIOUR,
    LONGEST_DAYS,
    LOOK_DAYS,
    ORDER_DAYS,
    SHARES,
    LearnedSegments,
    Vectors,
    behaviour,
    in_units,
)
from contract.events import EventContext
from contract.features import SubjectView
from contract.segment_config import WEEKDAYS, ContextualSegment, SegmentConfig
from contract.segments import Figures, local_time

_LEARNED_FIGURES = 3
# What a figure of behaviour counts.
_WORDS: Final = {
    "orders": f"orders in {ORDER_DAYS} days",
    "gap_days": "days between two orders",
    "days_since_order": "days since the last order",
    "items_per_order": "products per order",
    "spend_per_order": "per order on average, in minor units",
    "items_viewed": f"products looked at in {LOOK_DAYS} days",
    "categories_viewed": f"categories looked at in {LOOK_DAYS} days",
    "promotions": f"promotions seen or chosen in {LOOK_DAYS} days",
    "coupon_share": "of all orders had a coupon",
    "repeat_share": "of what was bought had been bought before",
}
_ONE = {
    "orders": "order",
    "products": "product",
    "categories": "category",
    "promotions": "promotion",
    "days": "day",
}
_COUNTED = re.compile("|".join(_ONE))


@dataclass(frozen=True)
class Why:
    """One figure, the threshold that it is held against, and both in words."""

    figure: str
    value: float | str
    threshold: float | str | None
    text: str


def rule_why(name: str, told: Figures, rules: SegmentConfig) -> tuple[Why, ...]:
    """Why the rule `name` holds."""
    first, high = rules.first_time_buyers, rules.high_value_repeat_buyers
    match name:
        case "unknown":
            return (Why("known", 0, None, "nothing is remembered about this shopper"),)
        case "prospects":
            return (Why("orders", 0, 0, "known, but without an order so far"),)
        case "first_time_buyers":
            return (
                Why("orders", 1, 1, "one order so far"),
                _below("days_since_order", told.days_since_order, first.within_days, "days ago"),
            )
        case "repeat_buyers":
            return (_at_least("orders", told.orders, rules.repeat_buyers.min_orders, "orders"),)
        case "high_value_repeat_buyers":
            mean = "per order on average, in minor units"
            return (
                _at_least("orders", told.orders, high.min_orders, "orders"),
                _at_least("spend_per_order", told.spend_per_order, high.min_spend_per_order, mean),
            )
        case "browsing_explorers":
            return _browsing(told, rules)
        case "promo_seekers":
            return _promotions(told, rules)
        case "lapsing":
            least, days = rules.lapsing.min_orders, rules.lapsing.days
            return (
                _at_least("orders", told.orders, least, "orders"),
                _at_least(
                    "days_since_order", told.days_since_order, days, "days since the last order"
                ),
            )
    raise KeyError(name)


def _browsing(told: Figures, rules: SegmentConfig) -> tuple[Why, ...]:
    limits = rules.browsing_explorers
    when = f"looked at in {limits.within_days:g} days and since the last order"
    return (
        _at_least("items", told.items, limits.min_items, f"different products {when}"),
        _at_least("categories", told.categories, limits.min_categories, "categories among them"),
    )


def _promotions(told: Figures, rules: SegmentConfig) -> tuple[Why, ...]:
    limits = rules.promo_seekers
    why = []
    if (
        told.coupon_orders >= limits.min_coupon_orders
        and told.coupon_share >= limits.min_coupon_share
    ):
        why = [
            _at_least(
                *("coupon_orders", told.coupon_orders, limits.min_coupon_orders),
                "orders with a coupon",
            ),
            Why(
                *("coupon_share", _short(told.coupon_share), limits.min_coupon_share),
                f"{100 * told.coupon_share:.0f} % of all orders had a coupon "
                f"(at least {100 * limits.min_coupon_share:g} %)",
            ),
        ]
    if told.promotions >= limits.min_promotions:
        when = f"promotions seen or chosen in {limits.within_days:g} days"
        why.append(_at_least("promotions", told.promotions, limits.min_promotions, when))
    return tuple(why)


def context_why(
    segment: ContextualSegment, context: EventContext, now_us: int, rules: SegmentConfig
) -> tuple[Why, ...]:
    """Why the contextual `segment` holds in `context`."""
    why = []
    local = local_time(now_us, context)
    if segment.devices and context.device:
        wanted = ", ".join(segment.devices)
        why.append(Why("device", context.device, wanted, f"on {context.device}"))
    if segment.lands and context.country:
        group = next(
            (name for name in segment.country_groups if context.country in _members(name, rules)),
            context.country,
        )
        text = f"in {context.country}" + (f" ({group})" if group != context.country else "")
        why.append(Why("country", context.country, ", ".join(segment.lands), text))
    if segment.regions and context.region:
        wanted = ", ".join(segment.regions)
        why.append(Why("region", context.region, wanted, f"in the region {context.region}"))
    if segment.hours is not None and local is not None:
        span = f"{segment.hours.from_hour:02d}:00 to {segment.hours.until_hour:02d}:00"
        text = f"{local:%H:%M} local time (from {span})"
        why.append(Why("local_time", f"{local:%H:%M}", span, text))
    if segment.weekdays and local is not None:
        day = WEEKDAYS[local.weekday()]
        why.append(Why("weekday", day, ", ".join(segment.weekdays), f"on a {day}"))
    return tuple(why)


def _members(group: str, rules: SegmentConfig) -> tuple[str, ...]:
    return rules.country_groups[group]


def learned_why(view: SubjectView, learned: LearnedSegments, segment: int) -> tuple[Why, ...]:
    """What sets the learned segment apart, and the shopper's own figures beside it; the threshold
    is the segment's mean."""
    own, centre = in_units(behaviour(view)), learned.centroids[segment]
    inside = in_units(centre * learned.scale + learned.mean)
    everybody = in_units(learned.mean)
    most = np.argsort(-np.abs(centre), kind="stable")[:_LEARNED_FIGURES].tolist()
    return tuple(
        Why(
            BEHAVIOUR[one],
            round(float(own[one]), 3),
            round(float(inside[one]), 3),
            f"{_said(one, own)} "
            f"(this segment {_figure(one, inside)}, all shoppers {_figure(one, everybody)})",
        )
        for one in most
        if centre[one] != 0
    )


def _said(one: int, own: Vectors) -> str:
    """The shopper's own figure in words, also where it stands for there being none."""
    name, value = BEHAVIOUR[one], float(own[one])
    if name == "days_since_order" and round(value) >= LONGEST_DAYS:
        return f"no order in {LONGEST_DAYS} days"
    if name == "gap_days" and not value:
        return "no second order so far"
    return _counted(_figure(one, own), _WORDS[name])


def _figure(one: int, figures: Vectors) -> str:
    """To two digits, which is as much as a person reads out of it; whole numbers below 100 stay."""
    value = float(figures[one])
    if BEHAVIOUR[one] in SHARES:
        return f"{100 * value:.0f} %"
    return f"{float(f'{value:.2g}'):,.12g}"


def _counted(number: str, of: str) -> str:
    """`number` and what it counts, which is one thing where the number is 1."""
    if number != "1":
        return f"{number} {of}"
    return f"1 {_COUNTED.sub(lambda found: _ONE[found[0]], of, count=1)}"


def _at_least(figure: str, value: float, threshold: float, of: str) -> Why:
    text = f"{_counted(_words(value), of)} (at least {_words(threshold)})"
    return Why(figure, _short(value), threshold, text)


def _below(figure: str, value: float, threshold: float, of: str) -> Why:
    text = f"{_counted(_words(value), of)} (less than {_words(threshold)})"
    return Why(figure, _short(value), threshold, text)


def _short(value: float) -> float:
    """To a hundredth, cut rather than rounded: 44.999 days are not the 45 that a rule asks for."""
    return math.floor(value * 100) / 100


def _words(value: float) -> str:
    return f"{_short(value):,.2f}".rstrip("0").rstrip(".")
