"""Every ledger keeps the same promises: limits hold whoever comes at once, repeats change nothing,
and what is refused leaves no trace."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.postgres_process import PostgresServer, postgres
from contract.clock import to_us
from contract.errors import UserError
from contract.offer_checks import Used
from contract.offers import AmountOff, FreeShipping, Limits, PercentOff
from contract.pacing import Slot
from serving.state.coupon_ledger import (
    Claim,
    CouponRefused,
    DayLimit,
    Redemption,
    Reservation,
    Settled,
    Settlement,
)
from serving.state.ledger_database import (
    MIGRATIONS,
    NEWEST_STEP,
    LedgerDatabase,
    sqlite_ledger_database,
)
from serving.state.ledger_tables import METADATA
from serving.state.ledger_transfer import load_ledger
from serving.state.pacing_records import Price
from serving.state.postgres_ledger import LOCK, postgres_ledger_database
from serving.state.postgres_place import postgres_place
from serving.state.sql_coupon_ledger import SqlCouponLedger
from serving.state.sqlite_writer import StoreError, connect

NOON = datetime(2017, 11, 20, 12, tzinfo=UTC)
TTL = timedelta(minutes=10)
ONCE = Limits(total=1)
ROUNDS = 200 if os.environ.get("TILLWISE_PROVE") else 10
AT_ONCE = 100

Open = Callable[[], LedgerDatabase]


@pytest.fixture(params=["sqlite", "postgresql"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "sqlite":
        return lambda: sqlite_ledger_database(tmp_path / "ledger.sqlite")
    server: PostgresServer = request.getfixturevalue("database")
    place = postgres_place(server.url_of_own(), user=server.user)
    return lambda: postgres_ledger_database(place)


@pytest.fixture
def two(open_one: Open) -> Iterator[tuple[SqlCouponLedger, SqlCouponLedger]]:
    """The ledgers of two gateways."""
    both = SqlCouponLedger(open_one()), SqlCouponLedger(open_one())
    yield both
    for opened in both:
        opened.close()


@pytest.fixture
def ledger(open_one: Open) -> Iterator[SqlCouponLedger]:
    opened = SqlCouponLedger(open_one())
    yield opened
    opened.close()


def claim(token_id: str = "t-1", **changed: Any) -> Claim:
    plain: dict[str, Any] = {
        "token_id": token_id,
        "decision_id": UUID(int=7),
        "offer_id": "ten",
        "discount": PercentOff(percent=10),
        "amount": 500,
        "currency": "USD",
        "cart_digest": "cart-1",
    }
    return Claim(**(plain | changed))


def settlement(transaction_id: str = "order-1", **changed: Any) -> Settlement:
    plain: dict[str, Any] = {
        "transaction_id": transaction_id,
        "cart_digest": "cart-1",
        "currency": "USD",
        "value": 5_000,
        "total": 4_500,
    }
    return Settlement(**(plain | changed))


async def reserve(
    ledger: SqlCouponLedger,
    one: Claim | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    now: datetime = NOON,
) -> Reservation:
    return await ledger.reserve(one or claim(), limits, now, now + TTL)


async def refusal(step: Any) -> str:
    with pytest.raises(CouponRefused) as caught:
        await step
    return caught.value.reason


async def test_reserve_redeem_and_roll_back_count_once_each(ledger: SqlCouponLedger) -> None:
    held = await reserve(ledger)
    assert (held.state, held.amount, held.expires_at) == ("reserved", 500, NOON + TTL)
    assert await reserve(ledger) == held  # the same token
    assert await ledger.used(NOON) == {"ten": Used(1, 0, 500)}
    paid = await ledger.redeem([held.reservation_id], settlement(), NOON)
    assert paid.amounts == {held.reservation_id: 500}
    later = NOON + timedelta(days=1)
    assert await ledger.redeem([held.reservation_id], settlement(), later) == paid
    assert (await reserve(ledger, now=later)).state == "redeemed"
    assert await ledger.used(later) == {"ten": Used(1, 0, 500)}
    assert await ledger.settled_since(0) == [Settled("order-1", 500, to_us(NOON))]
    undone = await ledger.roll_back(paid.redemption_id, later)
    assert await ledger.settled_since(to_us(NOON) + 1) == [Settled("order-1", 0, to_us(later))]
    assert await ledger.settled_since(to_us(later) + 1) == []
    assert undone.rolled_back_at == later
    assert await ledger.roll_back(paid.redemption_id, later + TTL) == undone
    assert await ledger.used(later) == {"ten": Used(0, 0, 0)}
    # What was rolled back stays so: the same order cannot be redeemed a second time.
    assert await ledger.redeem([held.reservation_id], settlement(), later) == undone
    assert await ledger.used(later) == {"ten": Used(0, 0, 0)}


async def test_release_is_a_use_given_back(ledger: SqlCouponLedger) -> None:
    held = await reserve(ledger, limits=ONCE)
    assert await refusal(reserve(ledger, claim("t-2"), ONCE)) == "CouponLimitReached"
    freed = await ledger.release(held.reservation_id, NOON)
    assert freed.state == "released"
    assert await ledger.release(held.reservation_id, NOON) == freed
    assert await refusal(ledger.redeem([held.reservation_id], settlement(), NOON)) == (
        "ReservationReleased"
    )
    again = await reserve(ledger, claim("t-2"), ONCE)
    assert again.reservation_id != held.reservation_id
    assert await ledger.used(NOON) == {"ten": Used(1, 0, 500)}


async def test_what_is_over_is_free_again_to_the_microsecond(ledger: SqlCouponLedger) -> None:
    held = await reserve(ledger, limits=ONCE)
    last = NOON + TTL - timedelta(microseconds=1)
    assert await ledger.used(last) == {"ten": Used(1, 0, 500)}
    assert await refusal(reserve(ledger, claim("t-2"), ONCE, last)) == "CouponLimitReached"
    assert await ledger.used(NOON + TTL) == {"ten": Used(0, 0, 0)}
    assert await refusal(ledger.redeem([held.reservation_id], settlement(), NOON + TTL)) == (
        "ReservationExpired"
    )
    await reserve(ledger, claim("t-2"), ONCE, NOON + TTL)
    assert await refusal(ledger.redeem([held.reservation_id], settlement(), NOON)) == (
        "ReservationExpired"
    )
    assert (await ledger.release(held.reservation_id, NOON + TTL)).state == "expired"
    assert await ledger.used(NOON + TTL) == {"ten": Used(1, 0, 500)}


async def test_limits_of_each_shopper_and_of_the_budget(ledger: SqlCouponLedger) -> None:
    limits = Limits(per_subject=1, budget=1_200)
    mine, yours = claim("t-1", holders=("h-1", "h-0")), claim("t-2", holders=("h-2",))
    await reserve(ledger, mine, limits)
    other_device = claim("t-3", holders=("h-3", "h-1"))
    assert await refusal(reserve(ledger, other_device, limits)) == "ProfileLimitReached"
    await reserve(ledger, yours, limits)
    third = claim("t-4", holders=("h-4",))
    assert await refusal(reserve(ledger, third, limits)) == "CampaignLimitReached"
    await reserve(ledger, claim("t-5", amount=200), limits)
    assert await ledger.used(NOON) == {"ten": Used(3, 0, 1_200)}
    assert (await ledger.seen({"ten": ("h-0", "h-1"), "x": ("h-9",)}, (), NOON)).uses == {
        "ten": 1,
        "x": 0,
    }
    assert (await ledger.seen({"ten": ("h-1",)}, (), NOON + TTL)).uses == {"ten": 0}


async def test_what_one_gateway_has_counted_the_others_find(
    two: tuple[SqlCouponLedger, SqlCouponLedger],
) -> None:
    one, other = two
    many = [f"h-{n}" for n in range(1_200)]  # more than one question may name
    assert (await other.seen({"ten": many}, (), NOON)).uses == {"ten": 0}
    held = await reserve(one, claim(holders=("h-1100",)))
    assert (await other.seen({"ten": many, "x": ()}, (), NOON)).uses == {"ten": 1, "x": 0}
    await one.release(held.reservation_id, NOON)
    assert (await other.seen({"ten": many}, (), NOON)).uses == {"ten": 0}


@pytest.mark.parametrize("number", [1, 700])
async def test_uses_and_showings_come_at_one_look(
    two: tuple[SqlCouponLedger, SqlCouponLedger], number: int
) -> None:
    one, other = two
    names, now = [f"h-{n}" for n in range(number)], _us(NOON)
    await reserve(one, claim(holders=(names[-1],)))
    assert await one.pacing.show(["own"], "seat-1", now, now, 1)
    assert await one.pacing.show(["before"], "seat-2", now + 1, now, 1)
    seen = await other.seen({"ten": names, "x": ("h",)}, ("own", "before"), NOON)
    assert seen == ({"ten": 1, "x": 0}, {"seat-1": now, "seat-2": now + 1})
    assert (await other.seen({}, ("own",), NOON)) == ({}, {"seat-1": now})


async def test_a_shopper_is_looked_up_in_a_file_beside_a_long_read(tmp_path: Path) -> None:
    database, gate = sqlite_ledger_database(tmp_path / "ledger.sqlite"), Event()
    ledger = SqlCouponLedger(database)
    long_read = asyncio.create_task(database.read(lambda _: gate.wait()))
    await asyncio.sleep(0)
    await reserve(ledger, claim(holders=("h",)))
    assert (await ledger.seen({"ten": ("h",)}, (), NOON)).uses == {"ten": 1}
    assert await ledger.pacing.shown(["h"]) == {}
    assert not long_read.done()
    gate.set()
    assert await long_read
    ledger.close()
    with pytest.raises(StoreError):
        await ledger.seen({"ten": ("h",)}, (), NOON)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"cart_digest": "cart-2"}, "CartMismatch"),
        ({"currency": "EUR"}, "CartMismatch"),
        ({"total": 4_501}, "TotalMismatch"),
        ({"total": 5_000}, "TotalMismatch"),
        ({"value": 5_010, "total": 4_509}, "CartMismatch"),
        ({"shipping_id": "standard", "shipping_price": 499}, "TotalMismatch"),
    ],
)
async def test_another_cart_or_total_is_refused_and_changes_nothing(
    ledger: SqlCouponLedger, changed: dict[str, Any], reason: str
) -> None:
    held = await reserve(ledger)
    wrong = ledger.redeem([held.reservation_id], settlement(**changed), NOON)
    assert await refusal(wrong) == reason
    assert (await ledger.redeem([held.reservation_id], settlement(), NOON)).total == 4_500


async def test_an_order_is_redeemed_once(ledger: SqlCouponLedger) -> None:
    first, second = await reserve(ledger), await reserve(ledger, claim("t-2"))
    await ledger.redeem([first.reservation_id], settlement(), NOON)
    one_more = [second.reservation_id]
    assert await refusal(ledger.redeem(one_more, settlement(), NOON)) == "TransactionUsed"
    changed = settlement(value=4_000, total=3_600)
    repeated = ledger.redeem([first.reservation_id], changed, NOON)
    assert await refusal(repeated) == "TransactionUsed"
    elsewhere = ledger.redeem([first.reservation_id], settlement("order-2"), NOON)
    assert await refusal(elsewhere) == "ReservationRedeemed"
    assert await refusal(ledger.release(first.reservation_id, NOON)) == "ReservationRedeemed"
    await ledger.redeem(one_more, settlement("order-2"), NOON)


async def test_what_is_not_there(ledger: SqlCouponLedger) -> None:
    nowhere = str(uuid4())
    assert await refusal(ledger.release(nowhere, NOON)) == "ReservationNotFound"
    assert await refusal(ledger.redeem([nowhere], settlement(), NOON)) == "ReservationNotFound"
    assert await refusal(ledger.roll_back(nowhere, NOON)) == "RedemptionNotFound"
    held = await reserve(ledger)
    both = ledger.redeem([held.reservation_id, nowhere], settlement(), NOON)
    assert await refusal(both) == "ReservationNotFound"


async def test_free_delivery_takes_what_delivery_costs_then(ledger: SqlCouponLedger) -> None:
    free = claim(discount=FreeShipping(shipping_ids=("standard", "express")), amount=1_299)
    held = await reserve(ledger, free)
    at: dict[str, Any] = {"total": 5_000, "shipping_id": "standard", "shipping_price": 499}
    other = settlement(**(at | {"shipping_id": "drone"}))
    assert await refusal(ledger.redeem([held.reservation_id], other, NOON)) == (
        "CouponRejectedByCondition"
    )
    dear = settlement(**(at | {"shipping_id": "express", "shipping_price": 1_300}))
    assert await refusal(ledger.redeem([held.reservation_id], dear, NOON)) == "CartMismatch"
    paid = await ledger.redeem([held.reservation_id], settlement(**at), NOON)
    assert paid.amounts == {held.reservation_id: 499}
    assert await ledger.used(NOON) == {"ten": Used(1, 0, 499)}
    await ledger.roll_back(paid.redemption_id, NOON)
    assert await ledger.used(NOON) == {"ten": Used(0, 0, 0)}


async def test_offers_of_a_group_are_redeemed_together_or_not_at_all(
    ledger: SqlCouponLedger,
) -> None:
    a = await reserve(ledger, claim("t-a", group="summer"))
    b = await reserve(
        ledger,
        claim("t-b", offer_id="off", discount=AmountOff(amount=300), amount=300, group="summer"),
    )
    alone = await reserve(ledger, claim("t-c", offer_id="alone"))
    both = [a.reservation_id, b.reservation_id]
    with_it = ledger.redeem([*both, alone.reservation_id], settlement(total=3_700), NOON)
    assert await refusal(with_it) == "ExclusivityViolation"
    assert await refusal(ledger.redeem(both, settlement(), NOON)) == "TotalMismatch"
    paid = await ledger.redeem(both, settlement(total=4_200), NOON)
    assert paid.amounts == {a.reservation_id: 500, b.reservation_id: 300}
    assert await ledger.redeem(both[::-1], settlement(total=4_200), NOON) == paid
    await ledger.roll_back(paid.redemption_id, NOON)
    assert await ledger.used(NOON) == {
        "ten": Used(0, 0, 0),
        "off": Used(0, 0, 0),
        "alone": Used(1, 0, 500),
    }


async def _try_once(ledger: SqlCouponLedger, number: int, offer_id: str) -> Redemption | str:
    try:
        held = await reserve(ledger, claim(f"{offer_id}-{number}", offer_id=offer_id), ONCE)
        order = settlement(f"{offer_id}-order-{number}")
        return await ledger.redeem([held.reservation_id], order, NOON)
    except CouponRefused as refused:
        return refused.reason


async def test_a_hundred_at_once_and_one_gets_it(ledger: SqlCouponLedger) -> None:
    for turn in range(ROUNDS):
        offer_id = f"single-{turn}"
        tries = [_try_once(ledger, number, offer_id) for number in range(AT_ONCE)]
        ended = await asyncio.gather(*tries)
        assert sum(isinstance(one, Redemption) for one in ended) == 1
        assert ended.count("CouponLimitReached") == AT_ONCE - 1
        assert (await ledger.used(NOON))[offer_id] == Used(1, 0, 500)


async def test_one_reservation_paid_a_hundred_times_at_once(ledger: SqlCouponLedger) -> None:
    for turn in range(ROUNDS):
        held = await reserve(ledger, claim(f"t-{turn}"))
        same = [
            ledger.redeem([held.reservation_id], settlement(f"order-{turn}"), NOON)
            for _ in range(AT_ONCE // 2)
        ]
        others = [
            ledger.redeem([held.reservation_id], settlement(f"order-{turn}-{n}"), NOON)
            for n in range(AT_ONCE // 2)
        ]
        ended = await asyncio.gather(*same, *others, return_exceptions=True)
        paid = [one for one in ended if isinstance(one, Redemption)]
        assert paid
        assert all(one == paid[0] for one in paid)
        refused = [one.reason for one in ended if isinstance(one, CouponRefused)]
        assert len(paid) + len(refused) == AT_ONCE
        assert set(refused) <= {"ReservationRedeemed", "TransactionUsed"}


async def test_two_gateways_on_one_ledger(open_one: Open) -> None:
    ledgers = [SqlCouponLedger(open_one()) for _ in range(2)]
    for turn in range(max(ROUNDS // 5, 3)):
        tries = [_try_once(ledgers[n % 2], n, f"shared-{turn}") for n in range(AT_ONCE)]
        ended = await asyncio.gather(*tries)
        assert sum(isinstance(one, Redemption) for one in ended) == 1
    for one in ledgers:
        one.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "redeem", "release", "roll_back", "wait"]),
        st.integers(0, 4),
        st.integers(0, 2),
    ),
    max_size=40,
)


@settings(
    max_examples=200 if os.environ.get("TILLWISE_PROVE") else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
async def test_in_any_order_counts_are_those_of_a_plain_model(
    ledger: SqlCouponLedger, steps: list[tuple[str, int, int]]
) -> None:
    offer_id, now = f"offer-{uuid4()}", NOON
    limits = Limits(total=3, per_subject=2)
    held: dict[int, Reservation] = {}
    paid: dict[int, Redemption] = {}
    uses: dict[int, tuple[str, int, datetime]] = {}  # token: state, holder, end

    def in_force(token: int) -> bool:
        state, _, end = uses.get(token, ("", 0, now))
        return state == "redeemed" or (state == "reserved" and end > now)

    for act, token, who in steps:
        if act == "wait":
            now += TTL / 3
        elif act == "reserve":
            force = [one for one in uses if in_force(one)]
            mine = [one for one in force if uses[one][1] == who]
            one = claim(f"{offer_id}-{token}", offer_id=offer_id, holders=(f"{offer_id}/{who}",))
            if token in force or (len(force) < 3 and len(mine) < 2):
                found = await reserve(ledger, one, limits, now)
                if token not in force:
                    uses[token] = ("reserved", who, now + TTL)
                assert (
                    token not in held
                    or token not in force
                    or found.reservation_id == (held[token].reservation_id)
                )
                held[token] = found
            else:
                why = await refusal(reserve(ledger, one, limits, now))
                assert why == ("CouponLimitReached" if len(force) >= 3 else "ProfileLimitReached")
        elif token in held:
            wanted, (state, holder, end) = held[token].reservation_id, uses[token]
            if act == "redeem" and state == "reserved" and end > now:
                order = settlement(wanted)
                paid[token] = await ledger.redeem([wanted], order, now)
                uses[token] = ("redeemed", holder, end)
            elif act == "release" and state != "redeemed":
                await ledger.release(wanted, now)
                if in_force(token):
                    uses[token] = ("released", holder, end)
            elif act == "roll_back" and state == "redeemed":
                await ledger.roll_back(paid[token].redemption_id, now)
                uses[token] = ("rolled_back", holder, end)
        counted = sum(in_force(one) for one in uses)
        found_uses = (await ledger.used(now)).get(offer_id, Used())
        assert found_uses == Used(counted, 0, 500 * counted)


async def test_the_tables_are_those_that_the_migrations_make(open_one: Open) -> None:
    database = open_one()

    def differences(connection: Any) -> Any:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_object": lambda held, name, kind, reflected, other: (
                    kind != "table" or name != "ledger_version"
                )
            },
        )
        return compare_metadata(context, METADATA)

    assert await database.read(differences) == []
    database.close()


def test_the_newest_step_is_the_one_that_is_named() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == NEWEST_STEP


async def test_a_ledger_that_has_all_steps_opens_without_a_migration(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_one().close()
    monkeypatch.setattr("alembic.command.upgrade", None)  # must not be called
    open_one().close()


async def test_only_who_shares_a_schema_waits(request: pytest.FixtureRequest) -> None:
    server: PostgresServer = request.getfixturevalue("database")
    shops = [postgres_place(server.url_of_own(), user=server.user) for _ in range(2)]
    held = shops[0].connect(5.0)
    held.execute("BEGIN")
    held.execute(LOCK)
    postgres_ledger_database(shops[1]).close()
    with pytest.raises(StoreError, match="timeout"):
        postgres_ledger_database(shops[0])
    held.close()


async def test_an_older_version_refuses_a_newer_ledger(open_one: Open) -> None:
    database = open_one()
    await database.write(
        lambda connection: connection.exec_driver_sql(
            "UPDATE ledger_version SET version_num = '9999'"
        )
    )
    database.close()
    with pytest.raises(UserError, match="newer version"):
        open_one()


async def test_a_server_that_went_away_is_an_error_and_one_that_is_back_an_answer() -> None:
    with postgres() as server:
        place = postgres_place(server.url_of_own(), user=server.user)
        ledger = SqlCouponLedger(postgres_ledger_database(place))
        held = await reserve(ledger)
        server.kill()
        with pytest.raises(StoreError):
            await ledger.redeem([held.reservation_id], settlement(), NOON)
        server.start()
        paid = await ledger.redeem([held.reservation_id], settlement(), NOON)
        assert await ledger.redeem([held.reservation_id], settlement(), NOON) == paid
        assert await ledger.used(NOON) == {"ten": Used(1, 0, 500)}
        ledger.close()


async def test_a_days_budget_holds_for_all_offers_together(ledger: SqlCouponLedger) -> None:
    day = DayLimit("2017-11-20", 1_200)

    def one(token_id: str, offer_id: str) -> Claim:
        return claim(token_id, offer_id=offer_id, day=day)

    async def spent(at: datetime = NOON) -> int:
        return (await ledger.pacing.standing(day.name, _us(at))).spent

    held = await reserve(ledger, one("t-1", "ten"))
    await reserve(ledger, one("t-2", "other"))
    assert await spent() == 1_000
    assert await refusal(reserve(ledger, one("t-3", "ten"))) == "CampaignLimitReached"
    assert await reserve(ledger, one("t-1", "ten")) == held  # a repeat needs no room
    # Another day, or an offer that is of no day's budget, is not bound by it.
    other_day = claim("t-4", offer_id="ten", day=DayLimit("2017-11-21", 600))
    await reserve(ledger, other_day)
    await reserve(ledger, claim("t-5"))
    assert await spent() == 1_000
    paid = await ledger.redeem([held.reservation_id], settlement(), NOON)
    # What nobody redeems is free again once it is over, though nobody has taken it down.
    later = NOON + 2 * TTL
    assert await spent(later) == 500
    await reserve(ledger, one("t-6", "third"), now=later)
    assert await spent(later) == 1_000
    await ledger.roll_back(paid.redemption_id, later)
    assert await spent(later) == 500
    freed = await reserve(ledger, one("t-8", "ten"), now=later)
    await ledger.release(freed.reservation_id, later)
    assert await ledger.release(freed.reservation_id, later)
    assert await spent(later) == 500
    await reserve(ledger, one("t-2", "other"), now=later)  # takes down the one that is over
    assert await spent(later) == 1_000


async def test_a_days_budget_holds_whoever_comes_at_once(
    two: tuple[SqlCouponLedger, SqlCouponLedger],
) -> None:
    """Two gateways, many at the same time, several offers; some lapse and some are given back."""
    day = DayLimit("2017-11-20", 5_200)

    refusals: set[str] = set()

    async def buy(number: int) -> int:
        ledger = two[number % 2]
        one = claim(f"t-{number}", offer_id=f"offer-{number % 3}", day=day)
        try:
            held = await reserve(ledger, one)
        except CouponRefused as refused:
            refusals.add(refused.reason)
            return 0
        if number % 5 == 0:
            await ledger.release(held.reservation_id, NOON)
            return 0
        if number % 2:
            await ledger.redeem([held.reservation_id], settlement(f"order-{number}"), NOON)
        return 500

    taken = sum(await asyncio.gather(*(buy(number) for number in range(40))))
    assert refusals == {"CampaignLimitReached"}
    for ledger in two:
        assert (await ledger.pacing.standing(day.name, _us(NOON))).spent == taken <= 5_200
    # What was given back too late for somebody is there for the next.
    for number in range(100, 112):
        with suppress(CouponRefused):
            await reserve(two[number % 2], claim(f"t-{number}", day=day))
    assert (await two[0].pacing.standing(day.name, _us(NOON))).spent == 5_000


async def test_showings_are_counted_once_for_each_session(
    two: tuple[SqlCouponLedger, SqlCouponLedger],
) -> None:
    one, other = two[0].pacing, two[1].pacing
    since, now = _us(NOON) - 1_000, _us(NOON)
    assert await one.show(["own", "before"], "seat-1", now, since, 2)
    assert await other.show(["before"], "seat-2", now, since, 2)  # as a visitor, elsewhere
    assert not await one.show(["own", "before"], "seat-3", now, since, 2)
    assert await one.show(["own", "before"], "seat-2", now, since, 2)
    assert await one.show(["somebody"], "seat-3", now, since, 2)
    asked = [[one, other][n % 2].show(["crowd"], f"seat-{n}", now, since, 3) for n in range(20)]
    assert sum(await asyncio.gather(*asked)) == 3
    assert await one.shown(["own", "before"]) == {"seat-1": now, "seat-2": now}
    await one.forget_shown(now)
    assert len(await other.shown(["crowd"])) == 3
    await one.forget_shown(now + 1)
    assert await other.shown(["crowd", "own"]) == {}


async def test_one_price_for_all_gateways(
    two: tuple[SqlCouponLedger, SqlCouponLedger],
) -> None:
    one, other = two[0].pacing, two[1].pacing
    slot = Slot(_us(NOON), 3, (((1.5, -2.0), (5.0, 6.0)), ((), ())))
    await one.add_slots([slot, Slot(_us(NOON) - 10, 1)], 0)
    assert sorted(await other.slots(0), key=lambda held: -held.seen) == [
        slot,
        Slot(_us(NOON) - 10, 1),
    ]
    await other.add_slots([], _us(NOON))
    assert await one.slots(0) == [slot]
    first = Price("2017-11-20", 1, 0.5, 1_000, 900, 3, 10.0, None)
    late = replace(first, price=0.7)
    assert await one.put_price(first, None) == first
    assert await other.put_price(late, None) == first  # who comes second takes the first one's
    newer = replace(first, solved_us=2, price=0.9)
    assert await other.put_price(newer, first) == newer
    assert await one.put_price(replace(first, solved_us=3), first) == newer
    assert (await one.standing("2017-11-20", 0)).price == newer
    # A day without a price of its own begins with the last one.
    assert (await one.standing("2017-11-21", 0)).price == newer
    assert await one.put_price(replace(first, day="2017-11-21"), newer) == replace(
        first, day="2017-11-21"
    )


def _us(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


async def test_a_file_of_an_earlier_step_is_taken_over(tmp_path: Path, open_one: Open) -> None:
    path = tmp_path / "backup.sqlite"
    before = SqlCouponLedger(sqlite_ledger_database(path))
    held = await reserve(before)
    before.close()
    with closing(connect(path)) as file:
        file.execute("ALTER TABLE reservations DROP COLUMN most_in_all")
        file.execute("UPDATE ledger_version SET version_num = '0003'")
    database = open_one()
    await load_ledger(database, path)
    after = SqlCouponLedger(database)
    assert await after.find(held.reservation_id) == held
    after.close()
