"""Orders against a definition that is slow and obvious."""

from collections import defaultdict
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import features
from contract.events import Event, given_back, key_of, order_amount
from contract.features import ORDERS
from tests.contract.examples import event, folded, frame_of, logs, many, us


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
        refunds = [given_back(told[2]) for told in events if told[2].event_name == "refund"]
        back = sum(one for one in refunds if one is not None)
        if bought and None not in refunds:
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


@pytest.mark.parametrize(
    ("refund", "left"),
    [
        ({"items": ()}, 0),  # nothing is named: all of it
        ({"items": (), "value": 300}, 700),
        ({"items": (), "value": 1_000}, 0),
        ({"items": ("milk",)}, 1_000),  # an item, and nobody said what it cost
    ],
)
def test_a_refund_without_amount_and_items_is_of_the_whole_order(
    refund: dict[str, Any], left: int
) -> None:
    log = [
        event(1, day=1, items=("milk", ("tea", 2)), value=1_000),
        event(2, day=2, items=("milk",), transaction_id="t-2"),
        event(3, "refund", day=3, transaction_id="t-1", **refund),
    ]
    for state in (features.update_all({}, log), features.replay(frame_of(log))[str(UUID(int=1))]):
        now, before = features.view(state, us(4)), features.view(state, us(2.5))
        assert now.orders["spend"].tolist() == [*([left] if left else []), -1]
        items = {key_of("milk"), key_of("tea")}
        assert set(before.purchased["item_key"].tolist()) == items
        if not left:
            milk = dict(zip(now.purchased["item_key"].tolist(), now.purchased, strict=True))
            assert list(milk) == [key_of("milk")]  # of the order that was kept
            assert milk[key_of("milk")]["baskets"] == 1
        assert len(before.orders) == 2


def test_purchases_without_a_transaction_are_orders_of_their_own() -> None:
    bare = [event(n, day=n).model_copy(update={"transaction_id": None}) for n in (1, 2)]
    assert len(ORDERS.value(folded(ORDERS, bare), us(3))) == 2
