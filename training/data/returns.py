"""What came back, of which transaction: by refunds, which name it, and by what a shop says with
`returned`, which may not. Where both say so of an item it is one return, not two."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import to_us
from contract.events import NO_AMOUNT

WHOLE: Final = ""  # stands for every item of an order
COLUMNS: Final = (
    *("event_name", "occurred_at", "subject_id", "transaction_id", "items", "value"),
    "feedback",
)
Row = dict[str, Any]
Lines = tuple[str, str]  # transaction and item


def is_return(events: pa.Table) -> pa.Array:
    """Which of `events` say that something came back."""
    returned = pc.fill_null(pc.equal(events["feedback"], "returned"), False)
    return pc.or_(pc.equal(events["event_name"], "refund"), returned)


def returned(events: pa.Table) -> Mapping[Lines, int]:
    """How many pieces came back, by transaction and item; `WHOLE` as an item where refunds that
    name none give all of an order's worth back, or say no amount. A `returned` that names no
    transaction is of the shopper's latest order with the item."""
    back = events.filter(is_return(events)).select(list(COLUMNS)).to_pylist()
    if not back:
        return {}
    orders = _orders(events) if any(row["transaction_id"] is None for row in back) else {}
    refunds: dict[Lines, int] = defaultdict(int)
    said: dict[Lines, int] = defaultdict(int)
    money: dict[str, list[int | None]] = defaultdict(list)
    for row in back:
        items = row["items"] or ()
        if row["event_name"] == "refund":
            for item_id, count in _pieces(items):
                refunds[row["transaction_id"], item_id] += count
            if not items:
                money[row["transaction_id"]].append(row["value"])
            continue
        for item_id, count in _pieces(items):
            order = row["transaction_id"] or _latest(orders, row, item_id)
            if order is not None:
                said[order, item_id] += count
    for order in _whole(events, money):
        refunds[order, WHOLE] = 1
    return {line: max(refunds[line], said[line]) for line in {*refunds, *said}}


def _pieces(items: Iterable[Row]) -> list[tuple[str, int]]:
    return [(one["item_id"], one["quantity"] or 1) for one in items]


def _whole(events: pa.Table, money: Mapping[str, list[int | None]]) -> set[str]:
    """The transactions of which all the `money` came back."""
    whole = {order for order, amounts in money.items() if None in amounts}
    asked = pa.array(sorted(money.keys() - whole), pa.string())
    mine = pc.is_in(events["transaction_id"], value_set=asked)
    bought = events.filter(pc.and_(pc.equal(events["event_name"], "purchase"), mine))
    for row in bought.select(["transaction_id", "value", "items"]).to_pylist():
        back = sum(one or 0 for one in money[row["transaction_id"]])
        if 0 < _worth(row) <= back:
            whole.add(row["transaction_id"])
    return whole


def _worth(row: Row) -> int:
    """Of a purchase; NO_AMOUNT where nobody said it (contract.events.order_amount)."""
    if row["value"] is not None:
        return int(row["value"])
    lines = row["items"] or ()
    if not lines or any(one["price"] is None for one in lines):
        return NO_AMOUNT
    return sum(one["price"] * (one["quantity"] or 1) for one in lines)


def _orders(events: pa.Table) -> Mapping[Lines, list[tuple[int, str]]]:
    """When each shopper bought each item, and in which order, oldest first."""
    bought = events.filter(pc.equal(events["event_name"], "purchase")).select(list(COLUMNS))
    found: dict[Lines, list[tuple[int, str]]] = defaultdict(list)
    for row in bought.to_pylist():
        stamp = to_us(row["occurred_at"]), row["transaction_id"]
        for one in row["items"] or ():
            found[row["subject_id"], one["item_id"]].append(stamp)
    return {key: sorted(stamps) for key, stamps in found.items()}


def _latest(orders: Mapping[Lines, list[tuple[int, str]]], row: Row, item_id: str) -> str | None:
    stamps = orders.get((row["subject_id"], item_id), [])
    place = bisect_right(stamps, to_us(row["occurred_at"]), key=lambda one: one[0])
    return stamps[place - 1][1] if place else None
