"""From purchases and refunds to orders: one row a transaction, net of what was given back."""

from typing import Any

import numpy as np
import numpy.typing as npt

from contract.compiled import CODES, INT, INTS, KEY, KEYS, compiled
from contract.events import EVENT_TYPE
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
_PURCHASE = EVENT_TYPE["purchase"]


def orders(state: Rows, now_us: int) -> npt.NDArray[Any]:
    """`ORDERED` rows of ORDER rows.

    A transaction that is told twice is one order, at its earlier time. A refund lowers the order
    of its transaction by its amount; one without an amount, or of an unknown order, lowers none.
    """
    kept, spend = _net(
        np.ascontiguousarray(state["event_type"]),
        np.ascontiguousarray(state["amount"]),
        np.ascontiguousarray(state["transaction_key"]),
        _PURCHASE,
    )
    found = np.empty(len(kept), ORDERED)
    for column in ("occurred_us", "coupon", "currency_key"):
        found[column] = state[column][kept]
    found["spend"] = spend
    return found


@compiled(CODES, INTS, KEYS, INT)
def _net(
    event_type: npt.NDArray[np.uint8],
    amount: npt.NDArray[np.int64],
    transaction_key: npt.NDArray[np.uint64],
    purchase: int,
) -> tuple[Any, Any]:
    """The rows that are orders, in their order, and what was spent on each."""
    rows = len(event_type)
    size = 1
    while size < 2 * rows:
        size *= 2
    # A hash table of transactions; their keys are digests, so their low bits will do.
    held = np.zeros(size, np.uint64)
    first, back = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    kept, spend = np.zeros(rows, np.bool_), np.zeros(rows, np.int64)
    for row in range(rows):
        key = transaction_key[row]
        if key == 0:  # without a transaction's id every purchase is an order of its own
            if event_type[row] == purchase:
                kept[row], spend[row] = True, amount[row]
            continue
        slot = np.int64(key & np.uint64(size - 1))
        while held[slot] != key and held[slot] != 0:
            slot = (slot + 1) % size
        held[slot] = key
        if event_type[row] != purchase:
            back[slot] += max(amount[row], 0)
        elif first[slot] < 0:
            first[slot] = row
    for place in range(size):
        order = first[place]
        if order >= 0:
            said = amount[order] > 0
            kept[order] = not said or back[place] < amount[order]
            spend[order] = amount[order] - back[place] if said else amount[order]
    return np.flatnonzero(kept), spend[kept]


def mean_spend(orders: npt.NDArray[Any], currency_key: int) -> float:
    """Mean net amount in minor units of the ORDERED rows in the currency of that key (0: in that of
    the latest one with an amount); 0 where none says its amount."""
    if not len(orders):
        return 0.0
    spend, of = (np.ascontiguousarray(orders[name]) for name in ("spend", "currency_key"))
    return float(_mean(spend, of, np.uint64(currency_key)))


@compiled(INTS, KEYS, KEY)
def _mean(spend: npt.NDArray[np.int64], of: npt.NDArray[np.uint64], wanted: np.uint64) -> float:
    total, count, chosen = 0, 0, wanted != 0
    for row in range(len(spend) - 1, -1, -1):
        if spend[row] < 0:
            continue
        if not chosen:
            wanted, chosen = of[row], True
        if of[row] == wanted:
            total += int(spend[row])
            count += 1
    return total / count if count else 0.0
