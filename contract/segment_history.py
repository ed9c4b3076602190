"""Since when a shopper is in a segment, out of the state alone.

A membership changes only at known moments: when an event happened, and when an event or an order
becomes as old as some threshold. So the past is walked back from moment to moment while the
membership lasts. It is a function of the set of events: one that comes late, or twice, or out of
order gives the answer that it would have given in time, and replay gives the same.

States keep the newest rows only. Where that has cut something off which the segment is told from,
the answer is the earliest moment that what is left still shows, and `exact` is false.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.behaviour import LONGEST_DAYS, LOOK_DAYS, ORDER_DAYS, LearnedSegments
from contract.clock import DAY_US
from contract.events import EVENT_TYPE, EventContext
from contract.features import (
    BROWSING,
    ORDERS,
    PROMOTIONS,
    PURCHASES,
    RECENT_INTERACTIONS,
    RECENT_SEARCHES,
    SHOPPING_RHYTHM,
    Feature,
    SubjectState,
    view,
)
from contract.segment_config import (
    DEFAULT,
    RULES,
    ContextualSegment,
    SegmentConfig,
    microseconds,
)
from contract.segments import figures_of, held_rules, in_time, local_time

Moments = npt.NDArray[np.int64]
_HOUR_US: Final = DAY_US // 24
_HOURS_BACK: Final = 24 * 7
# A walk over learned segments looks at each day and event, a fifth of a millisecond each; one that
# is longer than this ends without an answer.
MOST_MOMENTS: Final = 400
_PURCHASE = EVENT_TYPE["purchase"]
_KNOWN_BY = (RECENT_INTERACTIONS, RECENT_SEARCHES, PROMOTIONS)
_TOLD_FROM: Final[dict[str, tuple[Feature, ...]]] = {
    "prospects": (*_KNOWN_BY, PURCHASES, ORDERS),
    "browsing_explorers": (BROWSING, ORDERS),
    "promo_seekers": (PROMOTIONS, ORDERS),
}
_LEARNED_FROM = (ORDERS, PROMOTIONS, BROWSING, PURCHASES, SHOPPING_RHYTHM)
# No segment changes with the rows of another feature.
_TOLD_FROM_ANY = (*_LEARNED_FROM, RECENT_INTERACTIONS, RECENT_SEARCHES)


@dataclass(frozen=True)
class Since:
    """The moment from which on a segment has held without a break."""

    us: int
    exact: bool


def rules_since(
    state: SubjectState, now_us: int, rules: SegmentConfig = DEFAULT
) -> dict[str, Since]:
    """Since when each of the rules that hold at `now_us` does; `unknown` has no beginning."""
    moments = _moments(
        state,
        now_us,
        {
            ORDERS.name: (rules.first_time_buyers.within_days, rules.lapsing.days),
            PROMOTIONS.name: (rules.promo_seekers.within_days,),
            BROWSING.name: (rules.browsing_explorers.within_days,),
        },
    )
    if not len(moments):
        return {}
    first_us = _first_known(state)

    def held_at(moment: int) -> set[str]:
        orders, promotions, browsed = (
            feature.value(state.get(feature.name, feature.nothing), moment)
            for feature in (ORDERS, PROMOTIONS, BROWSING)
        )
        told = figures_of(orders, promotions, browsed, moment, moment >= first_us, rules)
        return {name for name, held in zip(RULES, held_rules(told, rules), strict=True) if held}

    lasting, found = held_at(now_us) - {"unknown"}, {}
    for moment in moments.tolist():
        held = held_at(moment)
        lasting &= held
        if not lasting:
            break
        for name in lasting:
            found[name] = moment
    return {
        name: Since(us, not _cut(state, _TOLD_FROM.get(name, (ORDERS,))))
        for name, us in found.items()
    }


def learned_since(state: SubjectState, now_us: int, learned: LearnedSegments) -> Since | None:
    """Since when the shopper is in the learned segment of `now_us`; None for one that is unknown,
    or that has been in it for longer than is looked back."""
    segment = learned.of(view(state, now_us))
    ages = {
        ORDERS.name: (ORDER_DAYS,),
        PROMOTIONS.name: (LOOK_DAYS,),
        BROWSING.name: (LOOK_DAYS,),
    }
    moments = _moments(state, now_us, ages)
    if segment is None or not len(moments):
        return None
    orders = ORDERS.value(state.get(ORDERS.name, ORDERS.nothing), now_us)["occurred_us"]
    moments = np.unique(np.concatenate((moments, _days_since(orders, now_us))))[::-1]
    since = None
    for moment in moments[:MOST_MOMENTS].tolist():
        if learned.of(view(state, moment)) != segment:
            return Since(since, not _cut(state, _LEARNED_FROM)) if since is not None else None
        since = moment
    if since is None or len(moments) > MOST_MOMENTS:
        return None
    return Since(since, not _cut(state, _LEARNED_FROM))


def context_since(
    segment: ContextualSegment, now_us: int, context: EventContext | None
) -> int | None:
    """When the hours and weekdays of a contextual segment that holds began to; None for one that
    does not begin with the clock."""
    local = local_time(now_us, context)
    if not segment.timed or local is None:
        return None
    past_hour = (local.minute * 60 + local.second) * 1_000_000 + local.microsecond
    began = now_us - past_hour
    for _ in range(_HOURS_BACK):
        before = local_time(began - _HOUR_US, context)
        if before is None or not in_time(segment, before):
            return began
        began -= _HOUR_US
    return None


def _moments(state: SubjectState, now_us: int, ages: Mapping[str, tuple[float, ...]]) -> Moments:
    """Every moment up to `now_us` at which a row came, or reached one of its feature's `ages` in
    days, newest first."""
    parts: list[Any] = [np.empty(0, np.int64)]
    for feature in _TOLD_FROM_ANY:
        rows = state.get(feature.name)
        if rows is not None:
            times = rows["occurred_us"]
            parts += [times, *(times + microseconds(age) for age in ages.get(feature.name, ()))]
    moments = np.unique(np.concatenate(parts))
    return moments[moments <= now_us][::-1]


def _first_known(state: SubjectState) -> int:
    """The first moment at which `SubjectView.known` held; after now where it never did. A refund
    alone makes nobody known."""
    seen = [state[one.name] for one in _KNOWN_BY if one.name in state]
    if PURCHASES.name in state:
        rows = state[PURCHASES.name]
        seen.append(rows[rows["event_type"] == _PURCHASE])
    return min((int(rows["occurred_us"][0]) for rows in seen if len(rows)), default=2**62)


def _days_since(orders: Moments, now_us: int) -> Moments:
    """The moments at which the latest order was 1, 2, ... whole days old."""
    ends = np.append(orders, now_us)[1:]
    spans = [
        np.arange(order + DAY_US, min(end, order + LONGEST_DAYS * DAY_US) + 1, DAY_US)
        for order, end in zip(orders.tolist(), ends.tolist(), strict=True)
    ]
    return np.concatenate([np.empty(0, np.int64), *spans])


def _cut(state: SubjectState, told_from: Iterable[Feature]) -> bool:
    """Whether rows that the segment is told from may have been dropped."""
    return any(len(state.get(one.name, ())) >= one.capacity for one in told_from)
