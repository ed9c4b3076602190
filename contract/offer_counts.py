"""The loops behind `contract.offer_features`: a checkout's cart, and what is remembered of whoever
stands there, as numbers."""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.behaviour import behaviour_of
from contract.compiled import (
    FLOAT,
    FLOATS,
    INT,
    INTS,
    KEY,
    KEYS,
    KEYS_2D,
    array,
    compiled,
    records,
)
from contract.encoding import FIRST_ITEM, index_of_key
from contract.evidence_rows import BROWSED, PROMOTION, TRACE
from contract.features import PURCHASED
from contract.lasting import lasting_of
from contract.orders import ORDERED, mean_of
from contract.rows import INTERACTION

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
_EMPTY_CART: Final = (0.0,) * len(CART)
_NOTHING_RECENT: Final = (0.0,) * (len(RECENT) + len(HABITS) + len(SESSION))
_NOW, _ADDED, _ORDERED = 1, 2, 4  # what a session is, and what it held

Rows = Any
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Levels = npt.NDArray[np.float64]
_INTERACTIONS, _PURCHASED = records(INTERACTION.dtype), records(PURCHASED)
_ORDERS, _LEVELS = records(ORDERED), array(FLOAT)


@compiled(_PURCHASED, KEY)
def _owned(purchased: Rows, key: Any) -> bool:
    """Whether `key` is among the items of `purchased`, which are in the order of their keys."""
    low, high = 0, len(purchased)
    while low < high:
        middle = (low + high) // 2
        if purchased[middle].item_key < key:
            low = middle + 1
        else:
            high = middle
    return low < len(purchased) and purchased[low].item_key == key


@compiled(KEYS, INTS, INTS, _PURCHASED, _ORDERS, KEY, KEYS_2D, _LEVELS)
def _cart(
    keys: Keys,
    quantity: Ints,
    price: Ints,
    purchased: Rows,
    orders: Rows,
    currency: Any,
    table: Keys,
    level: Levels,
) -> tuple[float, ...]:
    if not len(keys):
        return _EMPTY_CART
    value = units = owned = priced = 0
    levels = 0.0
    for line in range(len(keys)):
        value += price[line] * quantity[line]
        units += quantity[line]
        owned += _owned(purchased, keys[line])
        place = index_of_key(table, keys[line]) - FIRST_ITEM
        if place >= 0:
            priced, levels = priced + 1, levels + level[place]
    usual = mean_of(orders, currency)
    return (
        math.log1p(value),
        float(len(keys)),
        math.log1p(units),
        math.log1p(value / max(units, 1)),
        owned / len(keys),
        math.log((1 + value) / usual) if usual > 0 else 0.0,
        levels / priced if priced else 0.0,
    )


@compiled(_INTERACTIONS)
def _sessions(rows: Rows) -> Ints:
    """The number of each row's session, counted as they begin."""
    number, count = np.empty(len(rows), np.int64), 0
    for row in range(len(rows)):
        before = row - 1
        while before >= 0 and rows[before].session_key != rows[row].session_key:
            before -= 1
        if before >= 0:
            number[row] = number[before]
        else:
            number[row], count = count, count + 1
    return number


@compiled(_INTERACTIONS, INT)
def _different(rows: Rows, kind: int) -> int:
    """How many different items there are among rows of `kind`."""
    found = 0
    for row in range(len(rows)):
        if rows[row].event_type != kind:
            continue
        before = row - 1
        while before >= 0 and (
            rows[before].event_type != kind or rows[before].item_key != rows[row].item_key
        ):
            before -= 1
        found += before < 0
    return found


@compiled(_INTERACTIONS, INTS, INTS, _PURCHASED, INT)
def _habits(
    rows: Rows, codes: Ints, session: Ints, purchased: Rows, now_us: int
) -> tuple[float, ...]:
    """How often the shopper comes, how they find things, and what became of what they put into the
    carts of earlier sessions, as far as it is remembered."""
    view, add, select, purchase = codes
    held = np.zeros(session.max() + 1, np.uint8)
    held[session[-1]] = _NOW
    looked = familiar = selects = bought = adds = new = 0
    for row in range(len(rows)):
        kind = rows[row].event_type
        if kind == view:
            looked, familiar = looked + 1, familiar + _owned(purchased, rows[row].item_key)
        elif kind == select:
            selects += 1
        elif kind == add:
            held[session[row]] |= _ADDED
            adds, new = adds + 1, new + (not _owned(purchased, rows[row].item_key))
        elif kind == purchase:
            held[session[row]] |= _ORDERED
            bought += 1
    filled = both = in_ordered = 0
    for one in held:
        before = not one & _NOW
        filled += before and one & _ADDED != 0
        both += before and one & _ADDED != 0 and one & _ORDERED != 0
    for row in range(len(rows)):
        of = held[session[row]]
        in_ordered += rows[row].event_type == add and not of & _NOW and of & _ORDERED != 0
    days = max((now_us - rows[0].occurred_us) / 86_400_000_000, 1.0)  # DAY_US
    views = max(looked, 1)
    return (
        math.log1p(7.0 * (len(held) - 1) / days),
        selects / views,
        familiar / views,
        _different(rows, view) / views,
        float(filled),
        float(filled - both),
        both / (1 + filled),
        bought / (1 + in_ordered),
        new / adds if adds else 0.0,
    )


@compiled(_INTERACTIONS, INTS, INTS, KEYS, INT)
def _session(rows: Rows, codes: Ints, session: Ints, cart: Keys, now_us: int) -> tuple[float, ...]:
    """What was done in the session under way. `session_removed`: what was put in and is not in the
    cart."""
    view, add, _, _ = codes
    views = adds = removed = 0
    first = len(rows) - 1
    for row in range(len(rows) - 1, -1, -1):
        if session[row] != session[-1]:
            continue
        first, kind = row, rows[row].event_type
        views += kind == view
        adds += kind == add
        if kind != add:
            continue
        kept = False  # in the cart, or counted already
        for line in range(len(cart)):
            kept |= cart[line] == rows[row].item_key
        for later in range(row + 1, len(rows)):
            again = rows[later].event_type == add and session[later] == session[row]
            kept |= again and rows[later].item_key == rows[row].item_key
        removed += not kept
    minutes = max(now_us - rows[first].occurred_us, 0) / 60_000_000
    return math.log1p(views), math.log1p(adds), math.log1p(minutes), float(removed)


@compiled(_INTERACTIONS, INTS, _PURCHASED, KEYS, INT, INT)
def _recent(
    rows: Rows, codes: Ints, purchased: Rows, cart: Keys, searches: int, now_us: int
) -> tuple[float, ...]:
    if not len(rows):
        return _NOTHING_RECENT
    views = adds = 0
    for row in range(len(rows)):
        views += rows[row].event_type == codes[0]
        adds += rows[row].event_type == codes[1]
    session = _sessions(rows)
    sessions = session.max() + 1
    counts = (
        float(views),
        float(adds),
        float(sessions),
        views / sessions,
        adds / (1 + views),
        float(searches),
    )
    habits = _habits(rows, codes, session, purchased, now_us)
    return counts + habits + _session(rows, codes, session, cart, now_us)


@compiled(
    *(KEYS, INTS, INTS, _PURCHASED, _INTERACTIONS, _ORDERS, records(PROMOTION.dtype)),
    *(records(BROWSED.dtype), records(TRACE.dtype), FLOATS, INT, INT, INT, KEY),
    *(FLOATS, FLOATS, INTS, INTS, KEYS_2D, _LEVELS, INTS),
)
def vector_of(
    cart: Keys,
    quantity: Ints,
    price: Ints,
    purchased: Rows,
    interactions: Rows,
    orders: Rows,
    promotions: Rows,
    browsed: Rows,
    traces: Rows,
    rhythm: Any,
    lines: int,
    searches: int,
    now_us: int,
    currency: Any,
    rules: Any,
    moment: Any,
    codes: Ints,
    lasting_codes: Ints,
    table: Keys,
    level: Levels,
    category: Ints,
) -> npt.NDArray[np.float32]:
    """`OFFER_FEATURES`: `rules` and `moment` (device, hour and weekday) as they are, the rest
    counted."""
    behaviour = behaviour_of(orders, browsed, promotions, rhythm, len(purchased), lines, now_us)
    in_cart = _cart(cart, quantity, price, purchased, orders, currency, table, level)
    recent = _recent(interactions, codes, purchased, cart, searches, now_us)
    lasts = lasting_of(traces, orders, now_us, lasting_codes, table, level, category)
    counted = in_cart + recent + lasts
    vector = np.empty(len(behaviour) + len(rules) + len(counted) + len(moment), np.float32)
    at = 0
    for one in behaviour:
        vector[at], at = one, at + 1
    for one in rules:
        vector[at], at = one, at + 1
    for one in counted:
        vector[at], at = one, at + 1
    for one in moment:
        vector[at], at = one, at + 1
    return vector
