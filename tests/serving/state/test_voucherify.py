"""An outside coupon system hears of everything once, in order, however it misbehaves, and no
checkout waits for it."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from contract.clock import FixedClock
from contract.errors import UserError
from contract.offers import Limits, PercentOff
from serving.monitoring.coupon_messages import OUTCOMES, CouponMessageMetrics
from serving.state import voucherify
from serving.state.coupon_ledger import Claim, Reservation, Settlement
from serving.state.ledger_database import sqlite_ledger_database
from serving.state.sql_coupon_ledger import SqlCouponLedger
from serving.state.voucherify import VoucherifyDelivery, VoucherifyPlace
from tests.serving.state.coupon_system import CouponSystem, coupon_system

NOON = datetime(2017, 11, 20, 12, tzinfo=UTC)
TTL = timedelta(minutes=10)


@pytest.fixture
def outside() -> Iterator[CouponSystem]:
    with coupon_system() as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlCouponLedger]:
    opened = SqlCouponLedger(sqlite_ledger_database(tmp_path / "ledger.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def to(
    url: str, ledger: SqlCouponLedger, clock: FixedClock, registry: CollectorRegistry | None = None
) -> VoucherifyDelivery:
    place = VoucherifyPlace.of(url, "app", "token")
    metrics = CouponMessageMetrics(registry or CollectorRegistry())
    return VoucherifyDelivery(ledger.outbox, place, clock, metrics)


@pytest.fixture
async def delivery(
    ledger: SqlCouponLedger,
    outside: CouponSystem,
    clock: FixedClock,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[VoucherifyDelivery]:
    monkeypatch.setattr(voucherify, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(voucherify, "_WHOLE_TIMEOUT_S", 2.0)
    opened = to(outside.url, ledger, clock, registry)
    yield opened
    await opened.aclose()


async def reserve(ledger: SqlCouponLedger, number: int = 1, code: str = "TEN") -> Reservation:
    ten = PercentOff(percent=10)
    claim = Claim(
        *(f"t-{number}", UUID(int=number), "ten", ten, 500, "USD", "cart"), external_code=code
    )
    return await ledger.reserve(claim, Limits(), NOON, NOON + TTL)


async def redeem(ledger: SqlCouponLedger, held: Reservation, number: int = 1) -> str:
    order = Settlement(f"order-{number}", "cart", "USD", 5_000, 4_500)
    return (await ledger.redeem([held.reservation_id], order, NOON)).redemption_id


async def all_told(delivery: VoucherifyDelivery, ledger: SqlCouponLedger, clock: Any) -> None:
    """Deliver until there is nothing left, as time goes by."""
    for _ in range(60):
        await delivery.deliver()
        if not await ledger.outbox.waiting():
            return
        clock.at += timedelta(minutes=5)
    raise AssertionError("the outbox never emptied")


async def test_a_life_is_told_in_order(
    delivery: VoucherifyDelivery, ledger: SqlCouponLedger, outside: CouponSystem, clock: FixedClock
) -> None:
    held = await reserve(ledger)
    assert await delivery.deliver() == 1
    assert outside.sessions == {("TEN", held.reservation_id)}
    paid = await redeem(ledger, held)
    await ledger.roll_back(paid, NOON)
    assert await delivery.deliver() == 2
    (one,) = outside.redemptions.values()
    assert one["rolled_back"]
    assert one["order"] == {"source_id": "order-1", "amount": 5_000}
    assert one["metadata"]["discount_amount"] == 500
    assert not outside.sessions
    assert await delivery.deliver() == 0


async def test_release_ends_the_session_and_repeats_say_nothing(
    delivery: VoucherifyDelivery, ledger: SqlCouponLedger, outside: CouponSystem
) -> None:
    held = await reserve(ledger)
    await reserve(ledger)  # the same again
    for _ in range(2):
        await ledger.release(held.reservation_id, NOON)
    assert await delivery.deliver() == 2
    assert not outside.sessions
    assert sum(outside.asked.values()) == 2


async def test_offers_of_our_own_are_nobody_elses_business(
    delivery: VoucherifyDelivery, ledger: SqlCouponLedger
) -> None:
    claim = Claim("t", UUID(int=1), "own", PercentOff(percent=10), 500, "USD", "cart")
    held = await ledger.reserve(claim, Limits(), NOON, NOON + TTL)
    await redeem(ledger, held)
    assert await ledger.outbox.waiting() == 0


@pytest.mark.parametrize(
    "fault",
    [
        *("500", "lost", "slow", "garbage"),
        *("401", "403", "302"),  # a key that has run out, an address that is not the right one
        *("nameless", "odd", "empty", "drip", "endless"),
    ],
)
async def test_a_redemption_arrives_once_whatever_happens_on_the_way(
    delivery: VoucherifyDelivery,
    ledger: SqlCouponLedger,
    outside: CouponSystem,
    clock: FixedClock,
    fault: str,
) -> None:
    held = await reserve(ledger)
    await delivery.deliver()
    paid = await redeem(ledger, held)
    outside.faults = [fault]
    assert await delivery.deliver() == 0
    assert await ledger.outbox.waiting() == 1
    assert await delivery.deliver() == 0  # not before its time
    await ledger.roll_back(paid, NOON)
    await all_told(delivery, ledger, clock)
    (one,) = outside.redemptions.values()
    assert one["rolled_back"]


async def test_a_rollback_whose_answer_was_lost_is_not_a_problem(
    delivery: VoucherifyDelivery, ledger: SqlCouponLedger, outside: CouponSystem, clock: FixedClock
) -> None:
    paid = await redeem(ledger, await reserve(ledger))
    await delivery.deliver()
    await ledger.roll_back(paid, NOON)
    outside.faults = ["lost"]
    await all_told(delivery, ledger, clock)
    assert outside.asked["POST redemptions rollback"] == 2
    assert [one["rolled_back"] for one in outside.redemptions.values()] == [True]


async def test_a_refusal_there_is_noted_and_holds_nothing_up(
    delivery: VoucherifyDelivery,
    ledger: SqlCouponLedger,
    outside: CouponSystem,
    clock: FixedClock,
    registry: CollectorRegistry,
) -> None:
    outside.refuses = {"GONE"}
    held = await reserve(ledger, 1, "GONE")
    paid = await redeem(ledger, held)
    await ledger.roll_back(paid, NOON)
    await redeem(ledger, await reserve(ledger, 2), 2)
    await all_told(delivery, ledger, clock)
    assert len(outside.redemptions) == 1
    name = "tillwise_coupon_messages"
    count = {one: registry.get_sample_value(f"{name}_total", {"outcome": one}) for one in OUTCOMES}
    assert count == {"told": 2, "refused": 3, "again": 0}
    assert registry.get_sample_value(f"{name}_waiting") == 0


async def test_what_waits_is_counted(
    delivery: VoucherifyDelivery,
    ledger: SqlCouponLedger,
    outside: CouponSystem,
    registry: CollectorRegistry,
) -> None:
    await redeem(ledger, await reserve(ledger))
    outside.faults = ["500"]
    await delivery.deliver()
    assert registry.get_sample_value("tillwise_coupon_messages_waiting") == 2
    again = {"outcome": "again"}
    assert registry.get_sample_value("tillwise_coupon_messages_total", again) == 1


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (("http://api.voucherify.io", "app", "token"), "URL: http goes to this machine only"),
        (("api.voucherify.io", "app", "token"), "URL: send https"),
        (("https://a:b@api.voucherify.io", "app", "token"), "URL: must hold no password"),
        (("https://api.voucherify.io", "", "token"), "APP_ID: say the application's"),
        (("https://api.voucherify.io", "app", "to\nken"), "APP_TOKEN: say the application's"),
    ],
)
def test_a_place_that_can_not_be_right_is_refused(place: tuple[str, str, str], why: str) -> None:
    with pytest.raises(UserError, match=f"TILLWISE_VOUCHERIFY_{why}"):
        VoucherifyPlace.of(*place)


async def test_two_that_deliver_tell_nothing_twice(
    delivery: VoucherifyDelivery, ledger: SqlCouponLedger, outside: CouponSystem, clock: FixedClock
) -> None:
    for number in range(10):
        await redeem(ledger, await reserve(ledger, number), number)
    other = to(outside.url, ledger, clock)
    for _ in range(30):
        await delivery.deliver()
        await other.deliver()
    await other.aclose()
    assert len(outside.redemptions) == 10
    assert outside.asked["POST redemptions"] == 10


async def test_a_long_bad_day(
    delivery: VoucherifyDelivery, ledger: SqlCouponLedger, outside: CouponSystem, clock: FixedClock
) -> None:
    random, back = Random(7), set()
    for number in range(20):
        held = await reserve(ledger, number)
        paid = await redeem(ledger, held, number)
        if number % 3 == 0:
            await ledger.roll_back(paid, NOON)
            back.add(held.reservation_id)
    outside.faults = [random.choice(["", "", "500", "lost", "garbage"]) for _ in range(120)]
    await all_told(delivery, ledger, clock)
    names = [one["metadata"]["reservation_id"] for one in outside.redemptions.values()]
    assert len(names) == len(set(names)) == 20
    undone = {
        one["metadata"]["reservation_id"]
        for one in outside.redemptions.values()
        if one["rolled_back"]
    }
    assert undone == back


async def test_nobody_answers_and_the_ledger_does_not_mind(
    ledger: SqlCouponLedger, clock: FixedClock
) -> None:
    delivery = to("http://127.0.0.1:9", ledger, clock)
    await redeem(ledger, await reserve(ledger))
    assert await delivery.deliver() == 0
    assert await ledger.outbox.waiting() == 2
    await delivery.aclose()
