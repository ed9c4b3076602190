"""Everything that is remembered about a subject, each feature with both of its halves: how an event
changes its state, and what its value is. Ingest, replay, training and serving all call these.

A state is a bounded set of rows, ordered by (occurred_us, event_key, position); the newest ones are
kept. That is a function of the set of events alone, so events may come late, twice, or in any
order, and replay gives the live state. Features see only what was written under `personalization`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from contract.compiled import INT, KEYS, compiled, records
from contract.consent import allows
from contract.events import EVENT_TYPE, FEEDBACK_CODE, Event
from contract.evidence_rows import BROWSED, CHOICE, ORDER, PROMOTION, SAID, TRACE
from contract.frames import EventFrame
from contract.orders import ORDERED, orders, undone
from contract.rows import INTERACTION, SEARCH, VISIT, RowKind, Rows, Seen, by_subject, merge

Scope = Literal["subject"]

# One row per item that the subject bought (and did not give back).
PURCHASED = np.dtype(
    [
        ("item_key", "<u8"),
        ("baskets", "<f4"),  # how many baskets held it
        ("weight_60d", "<f4"),  # the same, each basket halved every 60 days of age
        ("weight_14d", "<f4"),
        ("first_us", "<i8"),
        ("last_us", "<i8"),
        ("in_last_basket", "?"),
    ]
)
# One row per item and basket that held it.
BASKET_LINE = np.dtype([("basket", "<i8"), ("row", "<i8")])  # 0 is the newest; into PURCHASED rows
RHYTHM = ("baskets", "days_since_last", "mean_gap_days", "mean_basket_items")

_PURCHASE, _REFUND = EVENT_TYPE["purchase"], EVENT_TYPE["refund"]
_RETURNED = FEEDBACK_CODE["returned"]
_INTERACTIONS = frozenset(
    EVENT_TYPE[name]
    for name in ("view_item", "select_item", "add_to_cart", "purchase", "hover", "click")
)


@dataclass(frozen=True)
class Feature:
    """A named, versioned feature of a subject; raise `version` when its meaning changes.

    `dtype` is that of one element of `value`; `capacity` bounds the rows of its state. Where not
    `of_products`, no model of products reads it, and it is no part of `feature_hash`.
    """

    name: str
    version: int
    scope: Scope
    dtype: np.dtype[Any]
    kind: RowKind
    capacity: int
    event_types: frozenset[int]
    compute: Callable[[Rows, int], npt.NDArray[Any]]
    of_products: bool = True

    @cached_property
    def nothing(self) -> Rows:
        """The state of a subject nothing is known about, shared: it cannot be written."""
        rows = np.empty(0, self.kind.dtype)
        rows.flags.writeable = False
        return rows

    def update(self, state: Rows, event: Event) -> Rows:
        """The state after `event`; the given state is left as it is."""
        return self.update_all(state, (event,))

    def update_all(self, state: Rows, events: Sequence[Event]) -> Rows:
        """The state after all of `events`, which may come in any order."""
        return self.merged(
            state,
            [
                row
                for seen in _seen(events)
                if seen.code in self.event_types
                for row in self.kind.from_event(seen)
            ],
        )

    def merged(self, state: Rows, rows: list[tuple[Any, ...]]) -> Rows:
        """The state that holds `rows` as well, which may be in any order."""
        if not rows:
            return state
        rows.sort(key=_stamp)
        return merge(state, np.array(rows, self.kind.dtype), self.capacity)

    def value(self, state: Rows, now_us: int) -> npt.NDArray[Any]:
        """The feature's value at `now_us`, from rows up to then."""
        return self.compute(_until(state, now_us), now_us)

    def replay(self, frame: EventFrame, *, capacity: int | None = None) -> dict[str, Rows]:
        """The states that `frame` leads to, by subject: the columnar form of `update`. Another
        `capacity` than the feature's own keeps more rows, to cut states of any moment from."""
        wanted = np.isin(frame.event_type, list(self.event_types)) & frame.personal
        rows, subject = self.kind.from_frame(frame, np.flatnonzero(wanted))
        return by_subject(rows, subject, frame.subjects, capacity or self.capacity)


_stamp = itemgetter(0, 1, 2)  # of a row, whatever its kind: contract.rows.ORDER_OF_ROWS


def _until(state: Rows, now_us: int) -> Rows:
    if len(state) and state["occurred_us"][-1] > now_us:
        return state[: np.searchsorted(state["occurred_us"], now_us, side="right")]
    return state


def _purchased(state: Rows, now_us: int) -> npt.NDArray[Any]:
    """One `PURCHASED` row per item, ordered by item_key."""
    return _bought(state, now_us)[0]


def _bought(state: Rows, now_us: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """`PURCHASED` rows, and one `BASKET_LINE` row per item and basket, the newest basket last.

    Items that were given back in full were not bought, and an item that stands on two lines of one
    basket was bought in one basket.
    """
    value, lines = _counted(state, _REFUND, now_us)
    return value, lines


@compiled(KEYS)
def by_key(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The order of `keys`, equal ones by place. Keys are hashes, so their first bits alone sort
    nearly all of them."""
    bits = 0
    while 1 << bits < len(keys):
        bits += 1
    begin, first = np.zeros((1 << bits) + 1, np.int64), np.empty(len(keys), np.int64)
    for place in range(len(keys)):
        first[place] = np.int64(keys[place] >> np.uint64(64 - bits)) if bits else 0
        begin[first[place] + 1] += 1
    for bucket in range(1 << bits):
        begin[bucket + 1] += begin[bucket]
    order = np.empty(len(keys), np.int64)
    for place in range(len(keys)):
        order[begin[first[place]]] = place
        begin[first[place]] += 1
    for after in range(1, len(order)):
        place, at = order[after], after
        while at > 0 and keys[order[at - 1]] > keys[place]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = place
    return order


@compiled(records(INTERACTION.dtype), INT, INT)
def _counted(state: Any, refund: int, now_us: int) -> tuple[Any, Any]:
    """`PURCHASED` and `BASKET_LINE` rows of rows in the order of (time, event)."""
    rows = len(state)
    item_key = np.empty(rows, np.uint64)
    given_back = False
    for row in range(rows):
        item_key[row] = state[row].item_key
        given_back |= state[row].event_type == refund
    by_item = by_key(item_key)
    place = np.full(rows, -1, np.int64)  # of the item that a row says was bought
    keys, items, lines, start = np.empty(rows, np.uint64), 0, 0, 0
    while start < rows:
        end, net = start, 0
        while end < rows and item_key[by_item[end]] == item_key[by_item[start]]:
            row = by_item[end]
            net += -state[row].quantity if state[row].event_type == refund else state[row].quantity
            end += 1
        if net > 0 or not given_back:
            latest = -1  # the row before; the lines of one basket stand together
            for row in by_item[start:end]:
                if state[row].event_type == refund:
                    continue
                if latest < 0 or state[latest].event_key != state[row].event_key:
                    place[row] = items
                    lines += 1
                latest = row
            keys[items] = item_key[by_item[start]]
            items += 1
        start = end
    # Summed in 64 bits, kept in 32.
    weights = np.zeros((2, items))
    bought = np.zeros(items, PURCHASED)
    told = np.zeros(lines, BASKET_LINE)
    for at in range(items):
        bought[at].item_key = keys[at]
    line, number, newest, weighed_us = 0, 0, np.uint64(0), np.int64(-(2**62))
    weight_60d, weight_14d = 0.0, 0.0  # once for the lines of a basket
    for row in range(rows):
        at = place[row]
        if at < 0:
            continue
        number += line > 0 and state[row].event_key != newest
        newest = state[row].event_key
        if state[row].occurred_us != weighed_us:
            weighed_us = state[row].occurred_us
            age_days = (now_us - weighed_us) / 86_400_000_000  # DAY_US
            weight_60d, weight_14d = 2.0 ** (-age_days / 60.0), 2.0 ** (-age_days / 14.0)
        if bought[at].baskets == 0:
            bought[at].first_us = weighed_us
        bought[at].last_us = weighed_us
        bought[at].baskets += np.float32(1)
        weights[0, at] += weight_60d
        weights[1, at] += weight_14d
        told[line].basket, told[line].row = number, at
        line += 1
    for line in range(lines):
        told[line].basket = number - told[line].basket
        if told[line].basket == 0:
            bought[told[line].row].in_last_basket = True
    for at in range(items):
        bought[at].weight_60d, bought[at].weight_14d = weights[0, at], weights[1, at]
    return bought, told


def _less_undone(bought: Rows, ordered: Rows) -> Rows:
    """Rows of `PURCHASES` without those of orders that were given back whole: such a refund may
    name no items, so rows of `ORDERS` tell which events the order is made of."""
    keys = undone(ordered)
    if not keys:
        return bought
    events = ordered["event_key"][np.isin(ordered["transaction_key"], np.array(keys, np.uint64))]
    return bought[~np.isin(bought["event_key"], events)]


def _less_returned(bought: Rows, said: Rows) -> Rows:
    """Rows of `PURCHASES` with what a shop said came back, as far as no refund says the same: a
    `returned` is a refund as far as models are concerned."""
    back = said[said["feedback"] == _RETURNED]
    if not len(back) or not len(bought):
        return bought
    keys, place = np.unique(back["item_key"], return_inverse=True)
    refunds = bought[(bought["event_type"] == _REFUND) & np.isin(bought["item_key"], keys)]
    told = np.bincount(
        np.searchsorted(keys, refunds["item_key"]), refunds["quantity"], minlength=len(keys)
    )
    more = np.bincount(place, back["quantity"], minlength=len(keys)) - told
    added = np.zeros(len(keys), bought.dtype)
    added["event_type"], added["item_key"] = _REFUND, keys
    added["occurred_us"], added["quantity"] = bought["occurred_us"][-1], np.maximum(more, 0)
    return np.concatenate((bought, added[more > 0]))


def _rhythm(state: Rows, now_us: int) -> npt.NDArray[np.float32]:
    """`RHYTHM` as [4] floats; all zero for a subject without purchases."""
    told: npt.NDArray[np.float32] = _of_visits(state, now_us)
    return told


@compiled(records(VISIT.dtype), INT)
def _of_visits(state: Any, now_us: int) -> npt.NDArray[np.float32]:
    told, visits, day_us = np.zeros(4, np.float32), len(state), 86_400_000_000  # DAY_US
    if not visits:
        return told
    first, last, items = state[0].occurred_us, state[visits - 1].occurred_us, 0
    for row in range(visits):
        items += state[row].items
    told[0], told[1] = visits, (now_us - last) / day_us
    told[2] = (last - first) / day_us / (visits - 1) if visits > 1 else 0.0
    told[3] = items / visits
    return told


def _as_is(state: Rows, now_us: int) -> npt.NDArray[Any]:
    return state


PURCHASES = Feature(
    "purchases",
    2,
    "subject",
    PURCHASED,
    INTERACTION,
    2_048,
    frozenset({_PURCHASE, _REFUND}),
    _purchased,
)
SHOPPING_RHYTHM = Feature(
    "shopping_rhythm",
    1,
    "subject",
    np.dtype(np.float32),
    VISIT,
    512,
    frozenset({_PURCHASE}),
    _rhythm,
)
RECENT_INTERACTIONS = Feature(
    "recent_interactions", 1, "subject", INTERACTION.dtype, INTERACTION, 64, _INTERACTIONS, _as_is
)
RECENT_SEARCHES = Feature(
    "recent_searches",
    1,
    "subject",
    SEARCH.dtype,
    SEARCH,
    4,
    frozenset({EVENT_TYPE["search"]}),
    _as_is,
)
# What segments are told from.
ORDERS = Feature(
    "orders", 1, "subject", ORDERED, ORDER, 512, frozenset({_PURCHASE, _REFUND}), orders
)
PROMOTIONS = Feature(
    "promotions",
    1,
    "subject",
    PROMOTION.dtype,
    PROMOTION,
    64,
    frozenset({EVENT_TYPE["view_promotion"], EVENT_TYPE["select_promotion"]}),
    _as_is,
)
BROWSING = Feature(
    "browsing",
    1,
    "subject",
    BROWSED.dtype,
    BROWSED,
    64,
    frozenset({EVENT_TYPE["view_item"], EVENT_TYPE["select_item"]}),
    _as_is,
)
# What payments and deliveries are ordered by; `contract.choices_made` counts them.
CHOICES = Feature(
    "choices",
    1,
    "subject",
    CHOICE.dtype,
    CHOICE,
    64,
    frozenset(EVENT_TYPE[name] for name in ("add_payment_info", "add_shipping_info", "purchase")),
    _as_is,
)
# What was said of items; `contract.feedback` tells what follows.
FEEDBACK = Feature(
    *("feedback", 1, "subject", SAID.dtype, SAID, 256, frozenset({EVENT_TYPE["feedback"]}), _as_is),
    of_products=False,
)
# What lasting counts are told from, `contract.lasting`: enough rows for half a year of most people.
TRACES = Feature(
    "traces",
    1,
    "subject",
    TRACE.dtype,
    TRACE,
    2_048,
    frozenset(
        EVENT_TYPE[name]
        for name in (
            *("view_item", "add_to_cart", "remove_from_cart"),
            *("search", "begin_checkout", "purchase"),
        )
    ),
    _as_is,
    of_products=False,
)
# Those that no model of products reads last, in the order in which they came to be: states that
# were stored before there was one end without it.
FEATURES: tuple[Feature, ...] = (
    PURCHASES,
    SHOPPING_RHYTHM,
    RECENT_INTERACTIONS,
    RECENT_SEARCHES,
    ORDERS,
    PROMOTIONS,
    BROWSING,
    CHOICES,
    FEEDBACK,
    TRACES,
)

# By the code of an event: the places of the features that it changes, and how.
_LEFT_BY = tuple(
    tuple(
        (place, feature.kind.from_event)
        for place, feature in enumerate(FEATURES)
        if code in feature.event_types
    )
    for code in range(len(EVENT_TYPE) + 1)
)

SubjectState = dict[str, Rows]


@dataclass(frozen=True)
class SubjectView:
    """The values of a subject's features at one moment, but for `CHOICES` and `FEEDBACK`."""

    purchased: npt.NDArray[Any]  # PURCHASED rows
    rhythm: npt.NDArray[np.float32]  # [4]
    interactions: Rows  # INTERACTION rows, oldest first
    searches: Rows  # SEARCH rows, oldest first
    lines: npt.NDArray[Any]  # BASKET_LINE rows
    orders: npt.NDArray[Any]  # ORDERED rows
    promotions: Rows  # PROMOTION rows, oldest first
    browsed: Rows  # BROWSED rows, oldest first
    traces: Rows  # TRACE rows, oldest first
    now_us: int  # the moment

    @property
    def known(self) -> bool:
        """Whether anything at all is remembered."""
        seen = (self.interactions, self.purchased, self.searches, self.promotions)
        return any(len(rows) for rows in seen)


def view(state: SubjectState, now_us: int) -> SubjectView:
    """The values of all `FEATURES` but `CHOICES` and `FEEDBACK`, which no model reads from here, at
    `now_us`; an absent state counts as empty."""
    # Of purchases both the value and what it was counted from are told.
    rows = _until(state.get(PURCHASES.name, PURCHASES.nothing), now_us)
    ordered = _until(state.get(ORDERS.name, ORDERS.nothing), now_us)
    rows = _less_undone(rows, ordered)
    said = state.get(FEEDBACK.name)
    if said is not None:
        rows = _less_returned(rows, _until(said, now_us))
    purchased, lines = _bought(rows, now_us)
    interactions, searches, promotions, browsed, traces = (
        _until(state.get(name, nothing), now_us) for name, nothing in _AS_THEY_ARE
    )
    rhythm = _rhythm(
        _until(state.get(SHOPPING_RHYTHM.name, SHOPPING_RHYTHM.nothing), now_us), now_us
    )
    return SubjectView(
        *(purchased, rhythm, interactions, searches, lines, orders(ordered, now_us)),
        *(promotions, browsed, traces, now_us),
    )


_AS_THEY_ARE = tuple(
    (feature.name, feature.nothing)
    for feature in (RECENT_INTERACTIONS, RECENT_SEARCHES, PROMOTIONS, BROWSING, TRACES)
)


UNKNOWN = view({}, 0)


def update(state: SubjectState, event: Event) -> SubjectState:
    """The state of every feature after `event`."""
    return update_all(state, (event,))


def update_all(state: SubjectState, events: Sequence[Event]) -> SubjectState:
    """The state of every feature after `events` of one subject, which may come in any order."""
    rows: list[list[tuple[Any, ...]]] = [[] for _ in FEATURES]
    for seen in _seen(events):
        for place, from_event in _LEFT_BY[seen.code]:
            rows[place] += from_event(seen)
    after = {feature.name: state.get(feature.name, feature.nothing) for feature in FEATURES}
    for feature, left in zip(FEATURES, rows, strict=True):
        if left:
            after[feature.name] = feature.merged(after[feature.name], left)
    return after


def _seen(events: Sequence[Event]) -> list[Seen]:
    """Those of `events` that features may see."""
    return [Seen(event) for event in events if allows(event.purposes, "personalization")]


def replay(frame: EventFrame) -> dict[str, SubjectState]:
    """The states of all subjects after the events of `frame`."""
    states: dict[str, SubjectState] = {}
    for feature in FEATURES:
        for subject, rows in feature.replay(frame).items():
            states.setdefault(subject, {})[feature.name] = rows
    return states


def feature_hash(*parts: object) -> str:
    """A digest of the definitions of all features of products' models and of `parts` (encoder and
    pair feature versions).

    Serving refuses a release that was made for another hash.
    """
    return hash_of((feature for feature in FEATURES if feature.of_products), *parts)


def hash_of(features: Iterable[Feature], *parts: object) -> str:
    """A digest of the definitions of `features` and of `parts`: what a model was made for."""
    described = [_described(feature) for feature in features]
    text = json.dumps([described, [repr(part) for part in parts]])
    return hashlib.sha256(text.encode()).hexdigest()


def hashes_beside() -> tuple[str, ...]:
    """Digests of the definitions of the other features: of none, of the first, of the first two,
    and so on to all of them, as there were more with time."""
    beside = [feature for feature in FEATURES if not feature.of_products]
    return tuple(
        hashlib.sha256(json.dumps([_described(one) for one in beside[:end]]).encode()).hexdigest()
        for end in range(len(beside) + 1)
    )


def _described(feature: Feature) -> tuple[Any, ...]:
    return (
        *(feature.name, feature.version, feature.scope, str(feature.dtype)),
        *(str(feature.kind.dtype), feature.capacity, sorted(feature.event_types)),
    )
