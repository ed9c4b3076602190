"""From purchases and refunds to orders: one row a transaction, net of what was given back."""

from typing import Any

import numpy as np
import numpy.typing as npt

from contract.compiled import INT, KEY, compiled, records
from contract.events import EVENT_TYPE, WHOLE_ORDER
from contract.evidence_rows import ORDER
from contract.rows import Rows

# One row per order that was not given back in full, oldest first.
ORDERED = np.dtype(
    [
        ("occurred_us", "<i8"),
        ("spend", "<i8"),  # net, in minor units; -1 where the order did not say its amount
        ("coupon", "?"),
        ("currency_key", "<u8"),
    ]
)
_PURCHASE, _REFUND = EVENT_TYPE["purchase"], EVENT_TYPE["refund"]


def orders(state: Rows, now_us: int) -> npt.NDArray[Any]:
    """`ORDERED` rows of ORDER rows.

    A transaction that is told twice is one order, at its earlier time. A refund lowers the order
    of its transaction by its amount, or gives it back whole where it says neither amount nor items;
    one of items without an amount, or of an unknown order, lowers none.
    """
    found: npt.NDArray[Any] = _net(state, _PURCHASE, WHOLE_ORDER)
    return found


def undone(state: Rows) -> list[int]:
    """The keys of the transactions among ORDER rows that were given back whole."""
    refunds, found = state["event_type"] == _REFUND, list[int]()
    if not refunds.any():
        return found
    for key in np.unique(state["transaction_key"][refunds]).tolist():
        own = state[state["transaction_key"] == np.uint64(key)]
        bought = own["amount"][own["event_type"] == _PURCHASE]
        back = own["amount"][own["event_type"] == _REFUND]
        if key and len(bought):
            told = (back == WHOLE_ORDER).any()
            if told or 0 < bought[0] <= back[back > 0].sum():
                found.append(key)
    return found


@compiled(records(ORDER.dtype), INT, INT)
def _net(state: Any, purchase: int, whole_order: int) -> Any:
    """`ORDERED` rows of those that are orders, in their order, with what was spent on each."""
    rows = len(state)
    size = 1
    while size < 2 * rows:
        size *= 2
    # A hash table of transactions; their keys are digests, so their low bits will do.
    held = np.zeros(size, np.uint64)
    first, back = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    whole = np.zeros(size, np.bool_)
    kept, spend = np.zeros(rows, np.bool_), np.zeros(rows, np.int64)
    for row in range(rows):
        key = np.uint64(state[row].transaction_key)
        if key == 0:  # without a transaction's id every purchase is an order of its own
            if state[row].event_type == purchase:
                kept[row], spend[row] = True, state[row].amount
            continue
        slot = np.int64(key & np.uint64(size - 1))
        while held[slot] != key and held[slot] != 0:
            slot = (slot + 1) % size
        held[slot] = key
        if state[row].event_type != purchase:
            back[slot] += max(state[row].amount, 0)
            whole[slot] |= state[row].amount == whole_order
        elif first[slot] < 0:
            first[slot] = row
    for place in range(size):
        order = first[place]
        if order >= 0:
            amount = state[order].amount
            said = amount > 0
            kept[order] = not whole[place] and (not said or back[place] < amount)
            spend[order] = amount - back[place] if said else amount
    found, at = np.zeros(kept.sum(), ORDERED), 0
    for row in range(rows):
        if kept[row]:
            found[at].occurred_us, found[at].spend = state[row].occurred_us, spend[row]
            found[at].coupon = state[row].coupon != 0
            found[at].currency_key = state[row].currency_key
            at += 1
    return found


def mean_spend(orders: npt.NDArray[Any], currency_key: int) -> float:
    """Mean net amount in minor units of the ORDERED rows in the currency of that key (0: in that of
    the latest one with an amount); 0 where none says its amount."""
    return float(mean_of(orders, np.uint64(currency_key)))


@compiled(records(ORDERED), KEY)
def mean_of(orders: Any, wanted: np.uint64) -> float:
    """`mean_spend`, for compiled loops."""
    total, count, chosen = 0, 0, wanted != 0
    for row in range(len(orders) - 1, -1, -1):
        if orders[row].spend < 0:
            continue
        if not chosen:
            wanted, chosen = orders[row].currency_key, True
        if orders[row].currency_key == wanted:
            total += orders[row].spend
            count += 1
    return total / count if count else 0.0
