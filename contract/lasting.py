"""How somebody shops, over everything that is remembered of them: counts that do not decay, and how
much their carts follow the price."""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.compiled import CODES, FLOAT, INT, INTS, KEY, KEYS, KEYS_2D, array, compiled, records
from contract.encoding import FIRST_ITEM, index_of_key
from contract.events import EVENT_TYPE
from contract.evidence_rows import TRACE
from contract.features import SubjectView
from contract.orders import ORDERED
from contract.price_levels import PriceLevels

LASTING: Final = (
    *("weeks_known", "visits", "visits_each_week", "all_views", "views_each_visit"),
    *("views_searched", "views_added", "views_again", "views_same_category", "adds_removed"),
    *("visits_with_cart", "carts_to_checkout", "checkouts", "checkouts_ordered"),
    *("all_orders", "all_spend", "coupons_used", "orders_with_coupon", "weeks_since_first_order"),
    *("level_viewed", "level_added", "level_kept", "price_slope", "price_evidence"),
)
LASTING_CODES: Final = np.array(
    [
        EVENT_TYPE[name]
        for name in (
            *("view_item", "search", "add_to_cart", "remove_from_cart"),
            *("begin_checkout", "purchase"),
        )
    ],
    np.int64,
)
_WEEK_US: Final = 7 * 86_400_000_000  # contract.clock.DAY_US
# What nothing is known of counts as this much evidence of the middle: so one event moves little.
_PRIOR_LEVELS: Final = 4.0
_PRIOR_SLOPE: Final = 2.0
# What a visit held.
_ANYTHING, _ADDED, _BEGUN, _ORDERED = 1, 2, 4, 8
_NO_HABITS: Final = (0.0,) * LASTING.index("all_orders")
_NO_ORDERS: Final = (0.0,) * (LASTING.index("level_viewed") - LASTING.index("all_orders"))
_TRACES, _LEVELS = records(TRACE.dtype), array(FLOAT)

Rows = Any
Ints = npt.NDArray[np.int64]
Levels = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]


def lasting(view: SubjectView, prices: PriceLevels) -> tuple[float, ...]:
    """`LASTING` of `view` at its moment.

    Counts and amounts are log1p. What is one of another is told by its log-odds, or by a logarithm
    where it may be more than it, with half an event added to each side. Checkouts, and what became
    of them, are of earlier visits: in this one the outcome is open. `level_*` are mean price levels
    of what was looked at, put in, and put in and not taken out again, drawn towards 0 by
    four items of the middle. `price_slope` is how the chance that something is put in changes with
    its price level (log-odds; one step from no dependence, drawn towards it), `price_evidence` the
    logarithm of what it rests on.
    """
    told: tuple[float, ...] = lasting_of(
        *(view.traces, view.orders, view.now_us, LASTING_CODES),
        *(prices.table, prices.level, prices.category),
    )
    return told


@compiled(INT, INT)
def _odds(some: int, of_all: int) -> float:
    return math.log((some + 0.5) / (max(of_all - some, 0) + 0.5))


@compiled(FLOAT, FLOAT)
def _ratio(one: float, other: float) -> float:
    return math.log((one + 0.5) / (other + 0.5))


@compiled(FLOAT, INT)
def _drawn(total: float, count: int) -> float:
    return total / (count + _PRIOR_LEVELS)


@compiled(INT)
def _room_for(count: int) -> int:
    room = 16
    while room < 2 * count:
        room *= 2
    return room


@compiled(KEYS, CODES, KEY)
def _slot_of(keys: Keys, taken: Any, key: Any) -> int:
    """Where `key` stands in a table, or where it would. Keys are digests: their last bits do."""
    slot = np.int64(key & np.uint64(len(keys) - 1))
    while taken[slot] and keys[slot] != key:
        slot = (slot + 1) & (len(keys) - 1)
    return int(slot)


@compiled(_TRACES, INTS)
def _visits(rows: Rows, codes: Ints) -> tuple[int, int, int, int, int]:
    """How many visits there were; how many earlier ones with something put in, with a checkout,
    with either, and with a checkout and an order."""
    _, _, add, _, checkout, purchase = codes
    room = _room_for(len(rows))
    keys, held = np.empty(room, np.uint64), np.zeros(room, np.uint8)
    now = rows[len(rows) - 1].session_key
    for row in range(len(rows)):
        session, kind = rows[row].session_key, rows[row].event_type
        slot = _slot_of(keys, held, session)
        keys[slot] = session
        held[slot] |= _ANYTHING
        if session == now:
            continue
        if kind == add:
            held[slot] |= _ADDED
        elif kind == checkout:
            held[slot] |= _BEGUN
        elif kind == purchase:
            held[slot] |= _ORDERED
    visits = carts = begun = either = ordered = 0
    for one in held:
        visits += one != 0
        carts += one & _ADDED != 0
        begun += one & _BEGUN != 0
        either += one & (_ADDED | _BEGUN) != 0
        ordered += one & _BEGUN != 0 and one & _ORDERED != 0
    return visits, carts, begun, either, ordered


@compiled(_TRACES, INT, INTS, INTS)
def _views(rows: Rows, view: int, place: Ints, category: Ints) -> tuple[int, int, int, int]:
    """How many views there were; how many of something that had been looked at in an earlier visit;
    how many after another of the same visit, both of known categories; how many of these of its
    category. `place` of each row's item in `category`, below 0 where it is not known."""
    room = _room_for(len(rows))
    keys, taken = np.empty(room, np.uint64), np.zeros(room, np.uint8)
    first = np.empty(room, np.uint64)
    views = again = together = same = 0
    before = -1
    for row in range(len(rows)):
        if rows[row].event_type != view:
            continue
        item, session = rows[row].item_key, rows[row].session_key
        slot = _slot_of(keys, taken, item)
        if not taken[slot]:
            keys[slot], taken[slot], first[slot] = item, 1, session
        again += first[slot] != session
        known = before >= 0 and place[before] >= 0 and place[row] >= 0
        if known and rows[before].session_key == session:
            together += 1
            same += category[place[before]] == category[place[row]]
        views, before = views + 1, row
    return views, again, together, same


@compiled(_TRACES, INT, INTS, INTS, INTS)
def _habits(rows: Rows, now_us: int, codes: Ints, place: Ints, category: Ints) -> tuple[float, ...]:
    if not len(rows):
        return _NO_HABITS
    view, search, add, remove, _, _ = codes
    searches = adds = removed = 0
    for row in range(len(rows)):
        kind = rows[row].event_type
        searches += kind == search
        adds += kind == add
        removed += kind == remove
    weeks = max(now_us - rows[0].occurred_us, 0) / _WEEK_US
    visits, carts, begun, either, ordered = _visits(rows, codes)
    views, again, together, same = _views(rows, view, place, category)
    return (
        math.log1p(weeks),
        math.log1p(visits),
        _ratio(visits, weeks),
        math.log1p(views),
        _ratio(views, visits),
        _ratio(searches, views),
        _ratio(adds, views),
        _odds(again, views),
        _odds(same, together),
        _ratio(removed, adds),
        _odds(carts, visits - 1),
        _odds(begun, either),
        math.log1p(begun),
        _odds(ordered, begun),
    )


@compiled(records(ORDERED), INT)
def _orders(orders: Rows, now_us: int) -> tuple[float, ...]:
    if not len(orders):
        return _NO_ORDERS
    coupons = spend = 0
    for row in range(len(orders)):
        coupons += orders[row].coupon != 0
        spend += max(orders[row].spend, 0)
    return (
        math.log1p(len(orders)),
        math.log1p(spend),
        math.log1p(coupons),
        _odds(coupons, len(orders)),
        math.log1p(max(now_us - orders[0].occurred_us, 0) / _WEEK_US),
    )


@compiled(_TRACES, INTS, INTS, _LEVELS)
def _levels(rows: Rows, codes: Ints, place: Ints, level: Levels) -> tuple[float, ...]:
    view, _, add, remove, _, _ = codes
    views = adds = removes = 0
    added = removed = mean = squares = 0.0  # the mean of views, squares of how far they are off it
    for row in range(len(rows)):
        if place[row] < 0:
            continue
        kind, own = rows[row].event_type, level[place[row]]
        if kind == view:
            views, off = views + 1, own - mean
            mean += off / views
            squares += off * (own - mean)
        elif kind == add:
            adds, added = adds + 1, added + own
        elif kind == remove:
            removes, removed = removes + 1, removed + own
    of_added, of_kept = _drawn(added, adds), _drawn(added - removed, max(adds - removes, 0))
    if not views:
        return 0.0, of_added, of_kept, 0.0, 0.0
    rate = min((adds + 0.5) / (views + 1.0), 0.9)
    spread = squares * rate * (1.0 - rate)
    slope = (added - adds * mean) / (spread + _PRIOR_SLOPE)
    return _drawn(mean * views, views), of_added, of_kept, slope, math.log1p(spread)


@compiled(_TRACES, records(ORDERED), INT, INTS, KEYS_2D, _LEVELS, INTS)
def lasting_of(
    rows: Rows,
    orders: Rows,
    now_us: int,
    codes: Ints,
    table: Keys,
    level: Levels,
    category: Ints,
) -> tuple[float, ...]:
    """`lasting`, for compiled loops; `codes` are `LASTING_CODES`."""
    place = np.empty(len(rows), np.int64)
    for row in range(len(rows)):
        place[row] = index_of_key(table, rows[row].item_key) - FIRST_ITEM
    return (
        _habits(rows, now_us, codes, place, category)
        + _orders(orders, now_us)
        + _levels(rows, codes, place, level)
    )
