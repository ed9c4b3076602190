"""What the gateways of a shop share to pace a day's budget: what was spent of it, the decisions
that the price is solved from, the price itself, and how often shoppers were shown an offer.

Nothing here says who somebody is: a showing stands under a name that only the shopper's own data
key can make, and goes after the days that it counts for; decisions are numbers without a person.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from contract.pacing import Slot
from serving.state.ledger_database import LedgerDatabase, done_with, rows_of
from serving.state.ledger_tables import (
    DAY_SPEND,
    PACING_PRICES,
    PACING_SLOTS,
    RESERVATIONS,
    SHOWN,
)
from serving.state.sql import Asked, places

_SHOWN = "SELECT seat, shown_at FROM shown WHERE name IN ({})"
_SHOW = "INSERT INTO shown (name, seat, shown_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext(:name))")


@dataclass(frozen=True)
class Price:
    """A price of spending as it was solved: for a day's budget of `amount`, of which `usable` was
    left, from `seen` decisions of the day and `to_come` more (`usual` of a whole day, if known)."""

    day: str
    solved_us: int
    price: float
    amount: int
    usable: int
    seen: int
    to_come: float
    usual: float | None


@dataclass(frozen=True)
class Standing:
    """Of a day: what was spent, reservations in force included, and its price, if there is one."""

    spent: int
    price: Price | None


class PacingRecords:
    """The records in the coupon ledger's database. Every method raises StoreError."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    async def standing(self, day: str, now_us: int) -> Standing:
        """Of `day`; where it has no price yet, the one that was solved last."""

        def read(connection: Connection) -> Standing:
            return Standing(day_spent(connection, day, now_us), _price(connection, day))

        return await self._database.read(read)

    async def slots(self, since_us: int) -> list[Slot]:
        """What all gateways counted from then on."""

        def read(connection: Connection) -> list[Slot]:
            rows = connection.execute(
                select(PACING_SLOTS).where(PACING_SLOTS.c.start_at >= since_us)
            )
            return [
                Slot(int(row.start_at), int(row.seen), _rows_of(json.loads(row.body)))
                for row in rows
            ]

        return await self._database.read(read)

    async def add_slots(self, slots: Sequence[Slot], forget_before_us: int) -> None:
        """Add what was counted, and let go of what is older."""

        def write(connection: Connection) -> None:
            connection.execute(delete(PACING_SLOTS).where(_SLOTS.start_at < forget_before_us))
            for one in slots:
                row = {"start_at": one.start_us, "seen": one.seen, "body": json.dumps(one.rows)}
                connection.execute(insert(PACING_SLOTS).values(slot_id=str(uuid4()), **row))

        await self._database.write(write)

    async def put_price(self, price: Price, instead_of: Price | None) -> Price:
        """Put `price` down unless somebody has meanwhile; what stands there afterwards."""
        body = json.dumps(asdict(price))

        def write(connection: Connection) -> Price:
            row = {"day": price.day, "solved_at": price.solved_us, "body": body}
            if instead_of is not None and instead_of.day == price.day:
                connection.execute(
                    update(PACING_PRICES)
                    .where(_PRICES.day == price.day, _PRICES.solved_at == instead_of.solved_us)
                    .values(row)
                )
            else:
                _insert_new(connection, PACING_PRICES, row)
            found = _price(connection, price.day)
            assert found is not None
            return found

        return await self._database.write(write)

    async def shown(self, names: Sequence[str]) -> dict[str, int]:
        """When who has `names`, at least one, was shown something last, by the session's seat."""
        rows = await self._database.look(*asked_shown(names))
        return {seat: int(at) for seat, at in rows}

    async def show(
        self, names: Sequence[str], seat: str, at_us: int, since_us: int, most: int
    ) -> bool:
        """Put down that the session `seat` of who has `names`, the own one first, is shown an
        offer; whether it may be: not after `most` others since then."""

        def write(connection: Connection) -> bool:
            if connection.dialect.name == "postgresql":  # SQLite has one writer
                connection.execute(_LOCK, {"name": names[0]})
            rows = rows_of(connection, *asked_shown(names))
            before = {shown: int(at) for shown, at in rows}
            if seat in before:
                return True
            if sum(at > since_us for at in before.values()) >= most:
                return False
            # As text: a checkout waits for it, and to build the statement costs more than it does.
            done_with(connection, _SHOW, (names[0], seat, at_us))
            return True

        return await self._database.write(write)

    async def forget_shown(self, before_us: int) -> None:
        """Let go of what counts no more."""
        await self._database.write(
            lambda connection: _done(
                connection.execute(delete(SHOWN).where(SHOWN.c.shown_at < before_us))
            )
        )


def asked_shown(names: Sequence[str]) -> Asked:
    """The question when who has `names`, at least one, was shown something last, by the session's
    seat."""
    return _shown_query(len(names)), names


@cache
def _shown_query(number: int) -> str:
    return _SHOWN.format(places(number))


_SLOTS, _PRICES, _HELD = PACING_SLOTS.c, PACING_PRICES.c, RESERVATIONS.c


def day_spent(connection: Connection, day: str, now_us: int) -> int:
    """What was spent of the day's budget: what is reserved and over at `now_us` is given back, even
    if nobody has taken it down yet."""
    held = connection.execute(
        select(DAY_SPEND.c.spent).where(DAY_SPEND.c.day == day)
    ).scalar_one_or_none()
    if held is None:
        return 0
    over = connection.execute(
        select(func.coalesce(func.sum(_HELD.amount), 0)).where(
            _HELD.budget_day == day, _HELD.state == "reserved", _HELD.expires_at <= now_us
        )
    ).scalar_one()
    return int(held) - int(over)


def _price(connection: Connection, day: str) -> Price | None:
    """Of the day, else the last one that there is: what was right at midnight is a good guess."""
    wanted = (
        select(PACING_PRICES.c.body).where(_PRICES.day == day),
        select(PACING_PRICES.c.body).order_by(_PRICES.solved_at.desc()).limit(1),
    )
    for one in wanted:
        found = connection.execute(one).scalar_one_or_none()
        if found is not None:
            return Price(**json.loads(found))
    return None


def _insert_new(connection: Connection, table: Any, row: Mapping[str, Any]) -> None:
    makes = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(makes(table).values(row).on_conflict_do_nothing())


def _rows_of(said: Any) -> tuple[Any, ...]:
    return tuple((tuple(gain), tuple(cost)) for gain, cost in said)


def _done(_: object) -> None:
    return None
