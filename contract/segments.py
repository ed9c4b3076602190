"""Segments as pure functions: who the shopper is by behaviour, and in what context they shop. The
thresholds are those of a `SegmentConfig`; what they are held against is counted here, once."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US, from_us
from contract.events import EventContext
from contract.features import SubjectView
from contract.orders import mean_spend
from contract.rows import Rows
from contract.segment_config import (
    CONTEXT_SLOTS,
    DEFAULT,
    RULES,
    WEEKDAYS,
    ContextualSegment,
    Hours,
    SegmentConfig,
    Weekday,
    microseconds,
)

# Those of the default configuration; of another one: `SegmentConfig.names`.
SEGMENTS: tuple[str, ...] = DEFAULT.names
# The width of the models' input: every rule, then a place for each contextual segment there may be.
NUM_SEGMENTS = len(RULES) + CONTEXT_SLOTS
SEGMENTS_VERSION = 1  # raise it when a rule means something else under the same thresholds

Membership = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Figures:
    """What the rules are held against, at one moment."""

    known: bool
    orders: int
    coupon_orders: int
    spend_per_order: float  # minor units, over the orders that say it; 0 where none does
    since_order_us: int  # 0 where there is no order
    promotions: int  # seen or chosen within `promo_seekers.within_days`
    items: int  # different ones looked at since the last order, within the days of the rule
    categories: int  # theirs; items that say none make up one

    @property
    def coupon_share(self) -> float:
        """Orders with a coupon among all."""
        return self.coupon_orders / self.orders if self.orders else 0.0

    @property
    def days_since_order(self) -> float:
        """The age of the last order."""
        return self.since_order_us / DAY_US


def figures(view: SubjectView, rules: SegmentConfig = DEFAULT) -> Figures:
    """The figures of `view` at its moment."""
    return figures_of(view.orders, view.promotions, view.browsed, view.now_us, view.known, rules)


def figures_of(
    orders: npt.NDArray[Any],
    promotions: Rows,
    browsed: Rows,
    now_us: int,
    known: bool,
    rules: SegmentConfig,
) -> Figures:
    """The same of ORDERED, PROMOTION and BROWSED rows up to `now_us`."""
    last_us = int(orders["occurred_us"][-1]) if len(orders) else None
    return Figures(
        known=known,
        orders=len(orders),
        coupon_orders=int(np.count_nonzero(orders["coupon"])) if len(orders) else 0,
        spend_per_order=mean_spend(orders, rules.currency_key),
        since_order_us=0 if last_us is None else now_us - last_us,
        promotions=len(latest(promotions, now_us, rules.promo_seekers.within_days)),
        **_looked_at(latest(browsed, now_us, rules.browsing_explorers.within_days), last_us),
    )


def latest(rows: Rows, now_us: int, days: float) -> Rows:
    """The `rows` (oldest first) of the last `days`: an event counts until it is that old."""
    if not len(rows):
        return rows
    return rows[np.searchsorted(rows["occurred_us"], now_us - microseconds(days), side="right") :]


def _looked_at(browsed: Rows, last_order_us: int | None) -> dict[str, int]:
    if last_order_us is not None and len(browsed):
        browsed = browsed[np.searchsorted(browsed["occurred_us"], last_order_us, side="right") :]
    if not len(browsed):
        return {"items": 0, "categories": 0}
    return {
        "items": len(set(browsed["item_key"].tolist())),
        "categories": len(set(browsed["category_key"].tolist())),
    }


def held_rules(told: Figures, rules: SegmentConfig = DEFAULT) -> tuple[bool, ...]:
    """Which of `RULES` hold, in their order."""
    first, repeat, high = (
        rules.first_time_buyers,
        rules.repeat_buyers,
        rules.high_value_repeat_buyers,
    )
    promo, explore, lapse = rules.promo_seekers, rules.browsing_explorers, rules.lapsing
    coupons = told.coupon_orders >= promo.min_coupon_orders
    return (
        not told.known,
        told.known and not told.orders,
        told.orders == 1 and told.since_order_us < microseconds(first.within_days),
        told.orders >= repeat.min_orders,
        told.orders >= high.min_orders and told.spend_per_order >= high.min_spend_per_order,
        told.items >= explore.min_items and told.categories >= explore.min_categories,
        (coupons and told.coupon_share >= promo.min_coupon_share)
        or told.promotions >= promo.min_promotions,
        told.orders >= lapse.min_orders and told.since_order_us >= microseconds(lapse.days),
    )


def local_time(now_us: int, context: EventContext | None) -> datetime | None:
    """The shopper's local time, or None where the zone is not said or not known."""
    if context is None or context.timezone is None:
        return None
    try:
        return from_us(now_us).astimezone(ZoneInfo(context.timezone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def in_context(
    segment: ContextualSegment,
    context: EventContext | None,
    local: datetime | None,
    rules: SegmentConfig = DEFAULT,
) -> bool:
    """Whether the contextual `segment` of `rules` holds."""
    if context is None:
        return False
    if segment.devices and context.device not in segment.devices:
        return False
    if segment.lands and context.country not in rules.countries[segment.name]:
        return False
    if segment.regions and context.region not in segment.regions:
        return False
    return not segment.timed or (local is not None and in_time(segment, local))


class Timed(Protocol):
    """What has its hours and weekdays, as far as they are named."""

    @property
    def hours(self) -> Hours | None: ...
    @property
    def weekdays(self) -> tuple[Weekday, ...]: ...


def in_time(timed: Timed, local: datetime) -> bool:
    """Whether the hour and the weekday of `local` are those of `timed`."""
    if timed.weekdays and WEEKDAYS[local.weekday()] not in timed.weekdays:
        return False
    return timed.hours is None or timed.hours.holds(local.hour)


def assign(
    view: SubjectView,
    context: EventContext | None,
    local: datetime | None,
    rules: SegmentConfig = DEFAULT,
) -> Membership:
    """Membership in each of `rules.names`, [rules, contextual segments] of 0 or 1."""
    holds = partial(in_context, context=context, local=local, rules=rules)
    behaviour = held_rules(figures(view, rules), rules)
    return np.array([*behaviour, *(holds(one) for one in rules.contextual)], np.float32)


def names(membership: Membership, rules: SegmentConfig = DEFAULT) -> tuple[str, ...]:
    """The segments that `membership` says the shopper is in."""
    each = zip(rules.names, membership.tolist(), strict=True)
    return tuple([name for name, held in each if held])


def padded(membership: Membership) -> Membership:
    """`membership` as the models read it, [NUM_SEGMENTS]: 0 where there is no segment."""
    wide = np.zeros(NUM_SEGMENTS, np.float32)
    wide[: len(membership)] = membership
    return wide
