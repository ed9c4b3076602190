"""What the uplift network sees of a checkout: one vector, the same in training and in serving.

Nothing here says where the shopper lives, and nothing is read from what a person did not agree to:
a view without history gives a vector without history.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.behaviour import BEHAVIOUR, BEHAVIOUR_VERSION
from contract.encoding import Situation
from contract.events import EVENT_TYPE
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
from contract.lasting import LASTING, LASTING_CODES
from contract.offer_counts import CART, HABITS, RECENT, SESSION, vector_of
from contract.price_levels import PriceLevels
from contract.rows import item_key
from contract.segment_config import RULES
from contract.segments import SEGMENTS_VERSION

OFFER_FEATURES_VERSION: Final = 3  # raise it when a figure means something else
_DEVICES: Final = ("desktop", "mobile", "tablet", "other")
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
_CODES: Final = np.array(
    [EVENT_TYPE[name] for name in ("view_item", "add_to_cart", "select_item", "purchase")], np.int64
)

Vector = npt.NDArray[np.float32]


class CartLine(NamedTuple):
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
    view, local, context = situation.view, situation.local, situation.context
    hour, weekday = (None, None) if local is None else (local.hour, local.weekday())
    told: Vector = vector_of(
        np.array([item_key(line.item_id) for line in cart], np.uint64),
        *(np.array([line.quantity for line in cart], np.int64),),
        *(np.array([line.price for line in cart], np.int64),),
        *(view.purchased, view.interactions, view.orders, view.promotions, view.browsed),
        *(view.traces, view.rhythm, len(view.lines), len(view.searches), situation.now_us),
        *(np.uint64(situation.rules.currency_key), situation.segments[: len(RULES)]),
        *(_moment(context.device if context else None, hour, weekday), _CODES, LASTING_CODES),
        *(prices.table, prices.level, prices.category),
    )
    return told


@cache
def _moment(device: str | None, hour: int | None, weekday: int | None) -> Vector:
    """Of `_DEVICES` and `MOMENT`."""
    angle = 2 * math.pi * (hour or 0) / 24
    when = (0.0, 0.0, 0.0)
    if hour is not None and weekday is not None:
        when = (math.sin(angle), math.cos(angle), float(weekday >= 5))
    return np.array([*(device == name for name in _DEVICES), *when], np.float32)
