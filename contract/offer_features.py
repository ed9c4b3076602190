"""What the uplift network sees of a checkout: one vector, the same in training and in serving.

Nothing here says where the shopper lives, and nothing is read from what a person did not agree to:
a view without history gives a vector without history.
"""

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.behaviour import BEHAVIOUR, BEHAVIOUR_VERSION, behaviour
from contract.clock import DAY_US
from contract.encoding import Situation
from contract.events import EVENT_TYPE, key_of
from contract.features import (
    BROWSING,
    ORDERS,
    PROMOTIONS,
    PURCHASES,
    RECENT_INTERACTIONS,
    RECENT_SEARCHES,
    SHOPPING_RHYTHM,
    TRACES,
    hash_of,
)
from contract.lasting import LASTING, lasting
from contract.orders import mean_spend
from contract.price_levels import PriceLevels
from contract.segment_config import RULES
from contract.segments import SEGMENTS_VERSION, held_rules
from contract.segments import figures as segment_figures

OFFER_FEATURES_VERSION: Final = 3  # raise it when a figure means something else
_DEVICES: Final = ("desktop", "mobile", "tablet", "other")
CART: Final = (
    *("log_value", "lines", "log_units", "log_unit_price", "bought_before", "usual_spend"),
    "cart_level",
)
RECENT: Final = ("views", "adds", "sessions", "views_a_session", "adds_a_view", "searches")
HABITS: Final = (
    *("sessions_a_week", "selects_a_view", "familiar_views", "different_views"),
    *("carts_before", "carts_left", "carts_ordered", "lines_ordered", "new_lines"),
)
SESSION: Final = ("session_views", "session_adds", "session_minutes", "session_removed")
MOMENT: Final = ("hour_sin", "hour_cos", "weekend")
OFFER_FEATURES: Final = (
    *BEHAVIOUR,
    *RULES,
    *CART,
    *RECENT,
    *HABITS,
    *SESSION,
    *LASTING,
    *_DEVICES,
    *MOMENT,
)
# What of a shopper's state they are told from.
_TOLD_FROM: Final = (
    *(PURCHASES, SHOPPING_RHYTHM, RECENT_INTERACTIONS, RECENT_SEARCHES, ORDERS),
    *(PROMOTIONS, BROWSING, TRACES),
)
_VIEW, _ADD = EVENT_TYPE["view_item"], EVENT_TYPE["add_to_cart"]
_SELECT, _PURCHASE = EVENT_TYPE["select_item"], EVENT_TYPE["purchase"]
_MINUTE_US = 60_000_000

Vector = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CartLine:
    """A line of the cart; `price` of one unit, in minor units."""

    item_id: str
    quantity: int
    price: int


def offer_feature_hash() -> str:
    """A digest of the definitions of `OFFER_FEATURES` and of the state that they are told from. An
    uplift network is asked by code of its own hash alone; the models of products have another."""
    return hash_of(
        _TOLD_FROM,
        *(OFFER_FEATURES_VERSION, OFFER_FEATURES),
        *(BEHAVIOUR_VERSION, SEGMENTS_VERSION, RULES),
    )


def offer_features(situation: Situation, cart: Sequence[CartLine], prices: PriceLevels) -> Vector:
    """`OFFER_FEATURES` of a checkout in the shop of `prices`, [len(OFFER_FEATURES)].

    Amounts and counts of the cart and of the session are log1p, `usual_spend` is the logarithm of
    the cart's value over the mean order (0 where there is none), `cart_level` the mean price level
    of its lines, `hour_*` are 0 where the local time is not known. The recent figures and the
    habits are over the interactions that are remembered; what was put in in this session and is not
    in the cart was taken out again. The lasting ones are `contract.lasting`'s.
    """
    view = situation.view
    known, owned = [key_of(line.item_id) for line in cart], set(view.purchased["item_key"].tolist())
    held = held_rules(segment_figures(view, situation.rules), situation.rules)
    device = situation.context.device if situation.context else None
    return np.array(
        [
            *behaviour(view),
            *held,
            *_cart(situation, cart, known, owned, prices),
            *_recent(situation, known, owned),
            *lasting(view, prices),
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
    """How often the shopper comes, how they find things, and what became of what they put into the
    carts of earlier sessions, as far as it is remembered."""
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
    """How many of `keys` are in `some`. By hand: numpy takes twenty times as long to begin."""
    return sum([key in some for key in keys])


def _moment(situation: Situation) -> tuple[float, float, float]:
    local = situation.local
    if local is None:
        return 0.0, 0.0, 0.0
    angle = 2 * math.pi * local.hour / 24
    return math.sin(angle), math.cos(angle), float(local.weekday() >= 5)
