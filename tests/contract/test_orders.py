"""Orders against a definition that is slow and obvious."""

from collections import defaultdict
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from contract.events import Event, key_of, order_amount
from contract.features import ORDERS
from tests.contract.examples import event, folded, logs, many, us


def slow_orders(log: list[Event], now_us: int) -> list[tuple[int, int, bool, int]]:
    """Time, net amount, coupon and currency of each order."""
    by_transaction: dict[str, list[tuple[int, int, Event]]] = defaultdict(list)
    for one in log:
        at = int(one.occurred_at.timestamp() * 10**6)
        told = one.event_name in {"purchase", "refund"} and "personalization" in one.purposes
        if told and at <= now_us:
            by_transaction[str(one.transaction_id)].append((at, key_of(str(one.event_id)), one))
    found = []
    for events in by_transaction.values():
        events.sort(key=lambda told: told[:2])
        bought = [told for told in events if told[2].event_name == "purchase"]
        back = sum(max(order_amount(t[2]), 0) for t in events if t[2].event_name == "refund")
        if bought:
            at, key, first = bought[0]
            amount = order_amount(first)
            if amount <= 0 or back < amount:
                currency = 0 if first.currency is None else key_of(first.currency)
                net = amount - back if amount > 0 else amount
                found.append(((at, key), (at, net, bool(first.coupon), currency)))
    return [order for _, order in sorted(found)]


@many
@given(logs(max_size=16), st.integers(-1, 5))
def test_orders_against_their_definition(log: list[Event], eighth: int) -> None:
    mine = [one for one in log if one.subject_id == UUID(int=1)]
    state = folded(ORDERS, mine)
    assert ORDERS.value(state, us(eighth / 8)).tolist() == slow_orders(mine, us(eighth / 8))


def test_by_hand() -> None:
    log = [
        event(1, day=1, value=1_000, coupon="SAVE10", currency="USD"),
        event(2, day=2, value=500, currency="USD"),
        event(3, "refund", day=3, value=300, transaction_id="t-1"),
        event(4, "refund", day=3, value=500, transaction_id="t-2"),
        event(5, "refund", day=3, value=9_999, transaction_id="unheard-of"),
    ]
    state = folded(ORDERS, log)
    usd = key_of("USD")
    assert ORDERS.value(state, us(2)).tolist() == [
        (us(1), 1_000, True, usd),
        (us(2), 500, False, usd),
    ]
    assert ORDERS.value(state, us(3)).tolist() == [(us(1), 700, True, usd)]


def test_purchases_without_a_transaction_are_orders_of_their_own() -> None:
    bare = [event(n, day=n).model_copy(update={"transaction_id": None}) for n in (1, 2)]
    assert len(ORDERS.value(folded(ORDERS, bare), us(3))) == 2
