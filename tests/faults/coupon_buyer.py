"""Reserves and redeems as fast as it can, and says what it was told, until it is killed."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from contract.offers import Limits, PercentOff
from serving.state.coupon_ledger import Claim, Settlement
from serving.state.ledger_database import LedgerDatabase, sqlite_ledger_database
from serving.state.postgres_ledger import postgres_ledger_database
from serving.state.postgres_place import postgres_place
from serving.state.sql_coupon_ledger import SqlCouponLedger

NOON = datetime(2017, 11, 20, 12, tzinfo=UTC)
TTL = timedelta(minutes=10)


def claim(number: int) -> Claim:
    """Of checkout `number`."""
    ten = PercentOff(percent=10)
    return Claim(f"t-{number}", UUID(int=number), "ten", ten, 500, "USD", "cart", None, ("h",))


def settlement(number: int) -> Settlement:
    """Of checkout `number`."""
    return Settlement(f"order-{number}", "cart", "USD", 5_000, 4_500)


def opened(place: str, user: str | None = None) -> LedgerDatabase:
    """The ledger's database in a file, or in PostgreSQL."""
    if place.startswith("postgresql"):
        return postgres_ledger_database(postgres_place(place, user=user))
    return sqlite_ledger_database(Path(place))


async def buy(place: str, user: str | None = None) -> None:
    """Four checkouts at a time, for ever."""
    ledger = SqlCouponLedger(opened(place, user))

    async def one(number: int) -> None:
        held = await ledger.reserve(claim(number), Limits(), NOON, NOON + TTL)
        print("reserved", number, held.reservation_id, flush=True)
        paid = await ledger.redeem([held.reservation_id], settlement(number), NOON)
        print("redeemed", number, paid.redemption_id, flush=True)

    number = 0
    while True:
        await asyncio.gather(*(one(number + n) for n in range(4)))
        number += 4


if __name__ == "__main__":
    asyncio.run(buy(*sys.argv[1:]))
