"""From purchases and refunds to orders: one row a transaction, net of what was given back."""

from typing import Any

import numpy as np
import numpy.typing as npt

from contract.compiled import CODES, INT, INTS, KEYS, compiled
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
    by_transaction = np.argsort(transaction_key, kind="mergesort")
    spend = np.full(rows, -2, np.int64)  # -2: no order
    start = 0
    while start < rows:
        key = transaction_key[by_transaction[start]]
        end, first, back = start, -1, np.int64(0)
        while end < rows and transaction_key[by_transaction[end]] == key:
            row = by_transaction[end]
            if event_type[row] == purchase:
                # Without a transaction's id every purchase is an order of its own.
                if key == 0:
                    spend[row] = amount[row]
                elif first < 0:
                    first = row
            elif amount[row] > 0:
                back += amount[row]
            end += 1
        if first >= 0:
            if amount[first] < 0:
                spend[first] = -1
            elif amount[first] == 0 or back < amount[first]:
                spend[first] = amount[first] - back if amount[first] > 0 else 0
        start = end
    kept = np.flatnonzero(spend > -2)
    return kept, spend[kept]
