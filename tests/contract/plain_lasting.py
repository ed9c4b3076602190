"""`contract.lasting` a statistic at a time with numpy: what its compiled loops are held against."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from contract.events import EVENT_TYPE
from contract.features import SubjectView
from contract.lasting import LASTING
from contract.price_levels import PriceLevels

_VIEW, _ADD, _REMOVE, _SEARCH, _CHECKOUT, _PURCHASE = (
    EVENT_TYPE[name]
    for name in (
        *("view_item", "add_to_cart", "remove_from_cart"),
        *("search", "begin_checkout", "purchase"),
    )
)
_WEEK_US = 7 * DAY_US
_PRIOR_LEVELS, _PRIOR_SLOPE = 4.0, 2.0

Traces = npt.NDArray[Any]


def plain_lasting(view: SubjectView, prices: PriceLevels) -> tuple[float, ...]:
    return (*_habits(view.traces, view.now_us, prices), *_orders(view), *_levels(view, prices))


def _habits(rows: Traces, now_us: int, prices: PriceLevels) -> tuple[float, ...]:
    if not len(rows):
        return (0.0,) * LASTING.index("all_orders")
    kind, session = rows["event_type"], rows["session_key"]
    weeks = max(now_us - int(rows["occurred_us"][0]), 0) / _WEEK_US
    viewed = kind == _VIEW
    views, searches, adds, removed = (
        int(np.count_nonzero(kind == one)) for one in (_VIEW, _SEARCH, _ADD, _REMOVE)
    )
    visits = len(set(session.tolist()))
    now = session[-1]
    carts, begun, ordered = (
        set(session[(kind == one) & (session != now)].tolist())
        for one in (_ADD, _CHECKOUT, _PURCHASE)
    )
    again, same = _repeats(rows["item_key"][viewed], session[viewed], prices)
    return (
        math.log1p(weeks),
        math.log1p(visits),
        math.log((visits + 0.5) / (weeks + 0.5)),
        math.log1p(views),
        math.log((views + 0.5) / (visits + 0.5)),
        math.log((searches + 0.5) / (views + 0.5)),
        math.log((adds + 0.5) / (views + 0.5)),
        _odds(again, views),
        same,
        math.log((removed + 0.5) / (adds + 0.5)),
        _odds(len(carts), visits - 1),
        _odds(len(begun), len(carts | begun)),
        math.log1p(len(begun)),
        _odds(len(begun & ordered), len(begun)),
    )


def _repeats(items: Traces, session: Traces, prices: PriceLevels) -> tuple[int, float]:
    """How many views are of something that had been looked at in an earlier visit, and the
    log-odds that a view is of the category of the one before it in the same visit."""
    _, first, which = np.unique(items, return_index=True, return_inverse=True)
    again = int(np.count_nonzero(session != session[first[which]])) if len(items) else 0
    _, category = prices.at(items)
    together = (session[1:] == session[:-1]) & (category[1:] >= 0) & (category[:-1] >= 0)
    same = int(np.count_nonzero(together & (category[1:] == category[:-1])))
    return again, _odds(same, int(np.count_nonzero(together)))


def _orders(view: SubjectView) -> tuple[float, ...]:
    orders = view.orders
    if not len(orders):
        return (0.0,) * (LASTING.index("level_viewed") - LASTING.index("all_orders"))
    coupons = int(np.count_nonzero(orders["coupon"]))
    spend = int(np.maximum(orders["spend"], 0).sum())
    since_us = max(view.now_us - int(orders["occurred_us"][0]), 0)
    return (
        math.log1p(len(orders)),
        math.log1p(spend),
        math.log1p(coupons),
        _odds(coupons, len(orders)),
        math.log1p(since_us / _WEEK_US),
    )


def _levels(view: SubjectView, prices: PriceLevels) -> tuple[float, ...]:
    rows = view.traces
    level, _ = prices.at(rows["item_key"])
    known, kind = ~np.isnan(level), rows["event_type"]
    viewed, added, removed = (level[known & (kind == one)] for one in (_VIEW, _ADD, _REMOVE))
    kept, count = float(added.sum() - removed.sum()), max(len(added) - len(removed), 0)
    if not len(viewed):
        return (0.0, _drawn(added.sum(), len(added)), _drawn(kept, count), 0.0, 0.0)
    rate = min((len(added) + 0.5) / (len(viewed) + 1.0), 0.9)
    spread = float(((viewed - viewed.mean()) ** 2).sum()) * rate * (1.0 - rate)
    moved = float(added.sum() - len(added) * viewed.mean())
    return (
        _drawn(viewed.sum(), len(viewed)),
        _drawn(added.sum(), len(added)),
        _drawn(kept, count),
        moved / (spread + _PRIOR_SLOPE),
        math.log1p(spread),
    )


def _drawn(total: float, count: int) -> float:
    return float(total) / (count + _PRIOR_LEVELS)


def _odds(some: int, of_all: int) -> float:
    return math.log((some + 0.5) / (max(of_all - some, 0) + 0.5))
