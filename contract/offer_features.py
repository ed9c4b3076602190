"""What the uplift network sees of a checkout: one vector, the same in training and in serving.

Nothing here says where the shopper lives, and nothing is read from what a person did not agree to:
a view without history gives a vector without history.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.behaviour import BEHAVIOUR, behaviour
from contract.encoding import Situation
from contract.events import EVENT_TYPE, key_of
from contract.orders import mean_spend
from contract.segment_config import RULES
from contract.segments import figures as segment_figures
from contract.segments import held_rules

OFFER_FEATURES_VERSION: Final = 1  # raise it when a figure means something else
_DEVICES: Final = ("desktop", "mobile", "tablet", "other")
CART: Final = ("log_value", "lines", "log_units", "log_unit_price", "bought_before", "usual_spend")
RECENT: Final = ("views", "adds", "sessions", "views_a_session", "adds_a_view", "searches")
SESSION: Final = ("session_views", "session_adds", "session_minutes")
MOMENT: Final = ("hour_sin", "hour_cos", "weekend")
OFFER_FEATURES: Final = (
    *BEHAVIOUR,
    *RULES,
    *CART,
    *RECENT,
    *SESSION,
    *_DEVICES,
    *MOMENT,
)
_VIEW, _ADD = EVENT_TYPE["view_item"], EVENT_TYPE["add_to_cart"]
_MINUTE_US = 60_000_000

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CartLine:
    """A line of the cart; `price` of one unit, in minor units."""

    item_id: str
    quantity: int
    price: int


def offer_features(situation: Situation, cart: Sequence[CartLine]) -> Vector:
    """`OFFER_FEATURES` of a checkout, [len(OFFER_FEATURES)].

    Amounts and counts of the cart and of the session are log1p, `usual_spend` is the logarithm of
    the cart's value over the mean order (0 where there is none), `hour_*` are 0 where the local
    time is not known. The recent figures are over the interactions that are remembered.
    """
    view = situation.view
    held = held_rules(segment_figures(view, situation.rules), situation.rules)
    device = situation.context.device if situation.context else None
    return np.array(
        [
            *behaviour(view),
            *held,
            *_cart(situation, cart),
            *_recent(situation),
            *(device == name for name in _DEVICES),
            *_moment(situation),
        ],
        np.float32,
    )


def _cart(situation: Situation, cart: Sequence[CartLine]) -> tuple[float, ...]:
    if not cart:
        return (0.0,) * len(CART)
    view = situation.view
    value = sum(line.price * line.quantity for line in cart)
    units = sum(line.quantity for line in cart)
    known = np.array([key_of(line.item_id) for line in cart], np.uint64)
    usual = mean_spend(view.orders, situation.rules.currency_key)
    return (
        math.log1p(value),
        len(cart),
        math.log1p(units),
        math.log1p(value / max(units, 1)),
        float(np.isin(known, view.purchased["item_key"]).mean()),
        math.log((1 + value) / usual) if usual > 0 else 0.0,
    )


def _recent(situation: Situation) -> tuple[float, ...]:
    rows = situation.view.interactions
    if not len(rows):
        return (0.0,) * (len(RECENT) + len(SESSION))
    kind, session = rows["event_type"], rows["session_key"]
    views, adds = int((kind == _VIEW).sum()), int((kind == _ADD).sum())
    sessions = len(set(session.tolist()))
    now = session == session[-1]
    began_us = int(rows["occurred_us"][now][0])
    return (
        views,
        adds,
        sessions,
        views / sessions,
        adds / (1 + views),
        len(situation.view.searches),
        math.log1p(int((kind[now] == _VIEW).sum())),
        math.log1p(int((kind[now] == _ADD).sum())),
        math.log1p(max(situation.now_us - began_us, 0) / _MINUTE_US),
    )


def _moment(situation: Situation) -> tuple[float, float, float]:
    local = situation.local
    if local is None:
        return 0.0, 0.0, 0.0
    angle = 2 * math.pi * local.hour / 24
    return math.sin(angle), math.cos(angle), float(local.weekday() >= 5)
