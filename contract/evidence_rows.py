"""The rows that segments are told from: orders with their amounts, promotions, and what was looked
at with its category; what was said of items; and the traces that lasting counts are made of. One
event at a time and a frame at a time, like all of `contract.rows`."""

from typing import Any

import numpy as np

from contract.events import (
    EVENT_TYPE,
    FEEDBACK_CODE,
    NO_AMOUNT,
    WHOLE_ORDER,
    EventBody,
    given_back,
    key_of,
    order_amount,
)
from contract.frames import EventFrame
from contract.rows import ORDER_OF_ROWS, Numbers, RowKind, Rows, Seen, copied

# Traces of these are of each item; of other events one says it all.
_OF_ITEMS = frozenset(EVENT_TYPE[name] for name in ("view_item", "add_to_cart", "remove_from_cart"))


def _amount(event: EventBody) -> int:
    if event.event_name == "refund" and given_back(event) is None:
        return WHOLE_ORDER
    return order_amount(event)


def _order_row(seen: Seen) -> list[tuple[Any, ...]]:
    event = seen.event
    return [
        (
            *seen.stamp,
            0,
            seen.code,
            _amount(event),
            bool(event.coupon),
            0 if event.transaction_id is None else key_of(event.transaction_id),
            0 if event.currency is None else key_of(event.currency),
        )
    ]


def _promotion_row(seen: Seen) -> list[tuple[Any, ...]]:
    return [(*seen.stamp, 0, seen.code)]


def _browsed_rows(seen: Seen) -> list[tuple[Any, ...]]:
    occurred, key = seen.stamp
    return [
        (
            *(occurred, key, place, item_key),
            0 if item.item_category is None else key_of(item.item_category),
        )
        for place, (item, item_key) in enumerate(zip(seen.event.items, seen.item_keys, strict=True))
    ]


def _choice_row(seen: Seen) -> list[tuple[Any, ...]]:
    payment, tier = seen.event.payment_type, seen.event.shipping_tier
    if payment is None and tier is None:
        return []
    keys = (0 if one is None else key_of(one) for one in (payment, tier))
    return [(*seen.stamp, 0, seen.session_key, *keys)]


def _said_rows(seen: Seen) -> list[tuple[Any, ...]]:
    if seen.event.feedback is None:
        return []
    occurred, key = seen.stamp
    code = FEEDBACK_CODE[seen.event.feedback]
    return [
        (occurred, key, place, code, item.quantity, item_key)
        for place, (item, item_key) in enumerate(zip(seen.event.items, seen.item_keys, strict=True))
    ]


def _trace_rows(seen: Seen) -> list[tuple[Any, ...]]:
    (occurred, key), code, session = seen.stamp, seen.code, seen.session_key
    if code not in _OF_ITEMS:
        return [(occurred, key, 0, code, 0, session)]
    return [
        (occurred, key, place, code, item_key, session)
        for place, item_key in enumerate(seen.item_keys)
    ]


def _once(dtype: np.dtype[Any], frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    """One row an event."""
    kept = kept[frame.position[kept] == 0]
    return copied(frame, kept, dtype), frame.subject[kept]


def _orders(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    rows, subject = _once(ORDER.dtype, frame, kept)
    nameless = frame.item_key[kept[frame.position[kept] == 0]] == 0
    whole = (rows["event_type"] == EVENT_TYPE["refund"]) & (rows["amount"] == NO_AMOUNT) & nameless
    rows["amount"][whole] = WHOLE_ORDER
    return rows, subject


def _choices(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    return _once(
        CHOICE.dtype, frame, kept[(frame.payment_key[kept] != 0) | (frame.shipping_key[kept] != 0)]
    )


def _promotions(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    return _once(PROMOTION.dtype, frame, kept)


def _browsed(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    kept = kept[frame.item_key[kept] != 0]
    return copied(frame, kept, BROWSED.dtype), frame.subject[kept]


def _said(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    kept = kept[(frame.feedback[kept] != 0) & (frame.item_key[kept] != 0)]
    return copied(frame, kept, SAID.dtype), frame.subject[kept]


def _traces(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    of_items = np.isin(frame.event_type[kept], list(_OF_ITEMS))
    told = np.where(of_items, frame.item_key[kept] != 0, frame.position[kept] == 0)
    kept, of_items = kept[told], of_items[told]
    rows = copied(frame, kept, TRACE.dtype)
    rows["item_key"][~of_items] = 0
    return rows, frame.subject[kept]


ORDER = RowKind(
    "order",
    np.dtype(
        [
            *ORDER_OF_ROWS,
            ("event_type", "u1"),
            ("amount", "<i8"),  # minor units; NO_AMOUNT where it was not said, or WHOLE_ORDER
            ("coupon", "?"),
            ("transaction_key", "<u8"),
            ("currency_key", "<u8"),
        ]
    ),
    _order_row,
    _orders,
)
PROMOTION = RowKind(
    "promotion", np.dtype([*ORDER_OF_ROWS, ("event_type", "u1")]), _promotion_row, _promotions
)
BROWSED = RowKind(
    "browsed",
    np.dtype([*ORDER_OF_ROWS, ("item_key", "<u8"), ("category_key", "<u8")]),
    _browsed_rows,
    _browsed,
)
CHOICE = RowKind(
    "choice",
    np.dtype(
        [
            *ORDER_OF_ROWS,
            ("session_key", "<u8"),
            ("payment_key", "<u8"),  # 0 where it was not said
            ("shipping_key", "<u8"),
        ]
    ),
    _choice_row,
    _choices,
)
SAID = RowKind(
    "said",
    np.dtype([*ORDER_OF_ROWS, ("feedback", "u1"), ("quantity", "<i4"), ("item_key", "<u8")]),
    _said_rows,
    _said,
)
TRACE = RowKind(
    "trace",
    np.dtype(
        [
            *ORDER_OF_ROWS,
            ("event_type", "u1"),
            ("item_key", "<u8"),  # 0 where the event is not about one item
            ("session_key", "<u8"),
        ]
    ),
    _trace_rows,
    _traces,
)
