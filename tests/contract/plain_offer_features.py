"""`contract.offer_features` a figure at a time with numpy and sets: what its compiled loops are
held against."""

import math
from collections.abc import Iterable, Sequence, Set

import numpy as np
import numpy.typing as npt

from contract.behaviour import behaviour
from contract.clock import DAY_US
from contract.encoding import Situation
from contract.events import EVENT_TYPE, key_of
from contract.offer_counts import CART, HABITS, RECENT, SESSION
from contract.offer_features import CartLine, Vector
from contract.orders import mean_spend
from contract.price_levels import PriceLevels
from contract.segments import figures, held_rules
from tests.contract.plain_lasting import plain_lasting

_DEVICES = ("desktop", "mobile", "tablet", "other")
_VIEW, _ADD = EVENT_TYPE["view_item"], EVENT_TYPE["add_to_cart"]
_SELECT, _PURCHASE = EVENT_TYPE["select_item"], EVENT_TYPE["purchase"]
_MINUTE_US = 60_000_000

Mask = npt.NDArray[np.bool_]


def plain_offer_features(
    situation: Situation, cart: Sequence[CartLine], prices: PriceLevels
) -> Vector:
    view = situation.view
    known, owned = [key_of(line.item_id) for line in cart], set(view.purchased["item_key"].tolist())
    held = held_rules(figures(view, situation.rules), situation.rules)
    device = situation.context.device if situation.context else None
    return np.array(
        [
            *behaviour(view),
            *held,
            *_cart(situation, cart, known, owned, prices),
            *_recent(situation, known, owned),
            *plain_lasting(view, prices),
            *(device == name for name in _DEVICES),
            *_moment(situation),
        ],
        np.float32,
    )


def _cart(
    situation: Situation,
    cart: Sequence[CartLine],
    known: Sequence[int],
    owned: Set[int],
    prices: PriceLevels,
) -> tuple[float, ...]:
    if not cart:
        return (0.0,) * len(CART)
    view = situation.view
    value = sum(line.price * line.quantity for line in cart)
    units = sum(line.quantity for line in cart)
    usual = mean_spend(view.orders, situation.rules.currency_key)
    level, _ = prices.at(np.array(known, np.uint64))
    level = level[~np.isnan(level)]
    return (
        math.log1p(value),
        len(cart),
        math.log1p(units),
        math.log1p(value / max(units, 1)),
        _among(known, owned) / len(known),
        math.log((1 + value) / usual) if usual > 0 else 0.0,
        float(level.mean()) if len(level) else 0.0,
    )


def _recent(situation: Situation, known: Sequence[int], owned: Set[int]) -> tuple[float, ...]:
    rows = situation.view.interactions
    if not len(rows):
        return (0.0,) * (len(RECENT) + len(HABITS) + len(SESSION))
    kind, session, item = rows["event_type"], rows["session_key"], rows["item_key"]
    viewed, added = kind == _VIEW, kind == _ADD
    views, adds = int(viewed.sum()), int(added.sum())
    sessions = len(set(session.tolist()))
    now = session == session[-1]
    began_us = int(rows["occurred_us"][now][0])
    put_in = set(item[added & now].tolist())
    return (
        views,
        adds,
        sessions,
        views / sessions,
        adds / (1 + views),
        len(situation.view.searches),
        *_habits(situation, viewed, added, now, owned),
        math.log1p(int((viewed & now).sum())),
        math.log1p(int((added & now).sum())),
        math.log1p(max(situation.now_us - began_us, 0) / _MINUTE_US),
        len(put_in.difference(known)),
    )


def _habits(
    situation: Situation, viewed: Mask, added: Mask, now: Mask, owned: Set[int]
) -> tuple[float, ...]:
    rows = situation.view.interactions
    kind, session, item = rows["event_type"], rows["session_key"], rows["item_key"]
    days = max((situation.now_us - int(rows["occurred_us"][0])) / DAY_US, 1.0)
    views, visits = max(int(viewed.sum()), 1), len(set(session.tolist()))
    bought = kind == _PURCHASE
    filled, ordered = (set(session[one & ~now].tolist()) for one in (added, bought))
    in_ordered = _among(session[added].tolist(), ordered)
    looked_at, put_in = item[viewed].tolist(), item[added].tolist()
    return (
        math.log1p(7.0 * (visits - 1) / days),
        int((kind == _SELECT).sum()) / views,
        _among(looked_at, owned) / views,
        len(set(looked_at)) / views,
        len(filled),
        len(filled - ordered),
        len(filled & ordered) / (1 + len(filled)),
        int(bought.sum()) / (1 + in_ordered),
        (len(put_in) - _among(put_in, owned)) / len(put_in) if put_in else 0.0,
    )


def _among(keys: Iterable[int], some: Set[int]) -> int:
    return sum([key in some for key in keys])


def _moment(situation: Situation) -> tuple[float, float, float]:
    local = situation.local
    if local is None:
        return 0.0, 0.0, 0.0
    angle = 2 * math.pi * local.hour / 24
    return math.sin(angle), math.cos(angle), float(local.weekday() >= 5)
