"""The ledger in SQL, the same statements for SQLite and PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select

from contract.clock import to_us
from contract.offer_checks import Used
from contract.offers import Limits
from serving.state import ledger_steps, ledger_uses
from serving.state.coupon_ledger import (
    Claim,
    Redemption,
    Reservation,
    Seen,
    Settled,
    Settlement,
)
from serving.state.coupon_outbox import CouponOutbox
from serving.state.ledger_database import LedgerDatabase
from serving.state.ledger_rows import IN_FORCE, reservation_of
from serving.state.ledger_tables import REDEMPTIONS, RESERVATIONS
from serving.state.pacing_records import PacingRecords, asked_shown
from serving.state.sql import at_one_look

_AT_ONCE = 500  # names in one query
_HELD = RESERVATIONS.c


class SqlCouponLedger:
    """A CouponLedger; `outbox` holds what an outside system is to be told of it, `pacing` what a
    day's budget is paced by."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database
        self.outbox = CouponOutbox(database)
        self.pacing = PacingRecords(database)

    @property
    def looks_beside(self) -> bool:
        return self._database.looks_beside

    async def reserve(
        self, claim: Claim, limits: Limits, now: datetime, until: datetime
    ) -> Reservation:
        return await self._database.write(
            lambda connection: ledger_steps.reserve(
                connection, claim, limits, to_us(now), to_us(until)
            )
        )

    async def redeem(
        self, reservation_ids: Sequence[str], settlement: Settlement, now: datetime
    ) -> Redemption:
        return await self._database.write(
            lambda connection: ledger_steps.redeem(
                connection, reservation_ids, settlement, to_us(now)
            )
        )

    async def release(self, reservation_id: str, now: datetime) -> Reservation:
        return await self._database.write(
            lambda connection: ledger_steps.release(connection, reservation_id, to_us(now))
        )

    async def roll_back(self, redemption_id: str, now: datetime) -> Redemption:
        return await self._database.write(
            lambda connection: ledger_steps.roll_back(connection, redemption_id, to_us(now))
        )

    async def find(self, reservation_id: str) -> Reservation | None:
        def read(connection: Connection) -> Reservation | None:
            wanted = select(RESERVATIONS).where(_HELD.reservation_id == reservation_id)
            row = connection.execute(wanted).one_or_none()
            return None if row is None else reservation_of(row)

        return await self._database.read(read)

    async def of_token(self, token_id: str, now: datetime) -> Reservation | None:
        def read(connection: Connection) -> Reservation | None:
            wanted = select(RESERVATIONS).where(
                _HELD.token_id == token_id, _HELD.state.in_(IN_FORCE)
            )
            row = connection.execute(wanted).one_or_none()
            if row is None or (row.state == "reserved" and row.expires_at <= to_us(now)):
                return None
            return reservation_of(row)

        return await self._database.read(read)

    async def made_by(
        self, decision_ids: Sequence[str], holders: Sequence[str]
    ) -> list[Reservation]:
        return await self._database.read(
            lambda connection: _made_by(connection, decision_ids, holders)
        )

    async def settled_since(self, since_us: int) -> list[Settled]:
        """What was redeemed or rolled back from then on, the oldest first."""
        return await self._database.read(lambda connection: _settled(connection, since_us))

    async def used(self, now: datetime) -> dict[str, Used]:
        return await self._database.read(
            lambda connection: ledger_uses.used(connection, to_us(now))
        )

    async def seen(
        self, holders: Mapping[str, Sequence[str]], viewer: Sequence[str], now: datetime
    ) -> Seen:
        every = [name for names in holders.values() for name in names]
        asked = [
            ledger_uses.asked_uses(every[start : start + _AT_ONCE], to_us(now))
            for start in range(0, len(every), _AT_ONCE)
        ]
        if viewer:
            last = [asked.pop()] if asked else []
            asked.append(at_one_look(*last, asked_shown(viewer)))
        found: dict[str, int] = {}
        for query, values in asked:
            found |= {
                name: int(number) for name, number in await self._database.look(query, values)
            }
        # Names and seats are digests: none is another.
        uses = {
            offer_id: sum([found.pop(name, 0) for name in names])
            for offer_id, names in holders.items()
        }
        return Seen(uses, found)

    def close(self) -> None:
        self._database.close()


def _made_by(
    connection: Connection, decision_ids: Sequence[str], holders: Sequence[str]
) -> list[Reservation]:
    found: dict[str, Reservation] = {}
    for column, names in ((_HELD.decision_id, decision_ids), (_HELD.holder, holders)):
        for start in range(0, len(names), _AT_ONCE):
            asked = select(RESERVATIONS).where(column.in_(names[start : start + _AT_ONCE]))
            found |= {row.reservation_id: reservation_of(row) for row in connection.execute(asked)}
    return sorted(found.values(), key=lambda one: (one.reserved_at, one.reservation_id))


def _settled(connection: Connection, since_us: int) -> list[Settled]:
    of = REDEMPTIONS.c
    moved = func.coalesce(of.rolled_back_at, of.redeemed_at)
    rows = connection.execute(
        select(of.transaction_id, of.rolled_back_at, moved.label("at"), func.sum(_HELD.amount))
        .join(RESERVATIONS, _HELD.redemption_id == of.redemption_id, isouter=True)
        .where(moved >= since_us)
        .group_by(of.redemption_id, of.transaction_id, of.rolled_back_at, of.redeemed_at)
        .order_by("at")
    )
    return [
        Settled(name, 0 if back is not None else int(amount or 0), int(at))
        for name, back, at, amount in rows
    ]
