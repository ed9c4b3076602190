"""The ledger in SQL, the same statements for SQLite and PostgreSQL.

Whoever changes the uses of an offer holds its row until the commit: in PostgreSQL by a row lock, in
SQLite because there is one writer. Rows are locked in the order of offers, then reservations, then
days.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, Table, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from contract.clock import MICROSECONDS, from_us, to_us
from contract.offer_checks import Used, used_up
from contract.offers import Discount, Limits
from serving.state.coupon_ledger import (
    Claim,
    CouponRefused,
    Redemption,
    Reservation,
    Settled,
    Settlement,
    taken_in_all,
)
from serving.state.coupon_outbox import CouponOutbox, note
from serving.state.ledger_database import LedgerDatabase
from serving.state.ledger_tables import (
    DAY_SPEND,
    HOLDER_USES,
    OFFER_USES,
    REDEMPTIONS,
    RESERVATIONS,
)
from serving.state.pacing_records import PacingRecords, day_spent

_DISCOUNT: TypeAdapter[Discount] = TypeAdapter(Discount)
_AT_ONCE = 500  # names in one query
_HELD = RESERVATIONS.c
_IN_FORCE = ("reserved", "redeemed")


class SqlCouponLedger:
    """A CouponLedger; `outbox` holds what an outside system is to be told of it, `pacing` what a
    day's budget is paced by."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database
        self.outbox = CouponOutbox(database)
        self.pacing = PacingRecords(database)

    async def reserve(
        self, claim: Claim, limits: Limits, now: datetime, until: datetime
    ) -> Reservation:
        return await self._database.write(
            lambda connection: _reserve(connection, claim, limits, to_us(now), to_us(until))
        )

    async def redeem(
        self, reservation_ids: Sequence[str], settlement: Settlement, now: datetime
    ) -> Redemption:
        return await self._database.write(
            lambda connection: _redeem(connection, reservation_ids, settlement, to_us(now))
        )

    async def release(self, reservation_id: str, now: datetime) -> Reservation:
        return await self._database.write(
            lambda connection: _release(connection, reservation_id, to_us(now))
        )

    async def roll_back(self, redemption_id: str, now: datetime) -> Redemption:
        return await self._database.write(
            lambda connection: _roll_back(connection, redemption_id, to_us(now))
        )

    async def find(self, reservation_id: str) -> Reservation | None:
        def read(connection: Connection) -> Reservation | None:
            wanted = select(RESERVATIONS).where(_HELD.reservation_id == reservation_id)
            row = connection.execute(wanted).one_or_none()
            return None if row is None else _reservation(row)

        return await self._database.read(read)

    async def of_token(self, token_id: str, now: datetime) -> Reservation | None:
        def read(connection: Connection) -> Reservation | None:
            wanted = select(RESERVATIONS).where(
                _HELD.token_id == token_id, _HELD.state.in_(_IN_FORCE)
            )
            row = connection.execute(wanted).one_or_none()
            if row is None or (row.state == "reserved" and row.expires_at <= to_us(now)):
                return None
            return _reservation(row)

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
        return await self._database.read(lambda connection: _used(connection, to_us(now)))

    async def used_by(self, holders: Mapping[str, Sequence[str]], now: datetime) -> dict[str, int]:
        every = [name for names in holders.values() for name in names]
        counted = await self._database.read(
            lambda connection: _uses_of(connection, every, to_us(now))
        )
        return {
            offer_id: sum(counted.get(name, 0) for name in names)
            for offer_id, names in holders.items()
        }

    def close(self) -> None:
        self._database.close()


def _reserve(
    connection: Connection, claim: Claim, limits: Limits, now_us: int, until_us: int
) -> Reservation:
    total, spent = _lock_offer(connection, claim.offer_id)
    freed = _expire(connection, claim.offer_id, now_us)
    total, spent = total - freed.total, spent - freed.spent
    before = connection.execute(
        select(RESERVATIONS).where(_HELD.token_id == claim.token_id, _HELD.state.in_(_IN_FORCE))
    ).one_or_none()
    if before is not None:
        return _reservation(before)
    by_subject = sum(_uses_of(connection, claim.holders, now_us).values())
    reason = used_up(limits, Used(total, by_subject, spent), claim.amount)
    if reason is not None:
        raise CouponRefused(reason, f"offer {claim.offer_id}: {_WHY[reason]}")
    if claim.day is not None:
        _lock_day(connection, claim.day.name)
        if day_spent(connection, claim.day.name, now_us) + claim.amount > claim.day.amount:
            raise CouponRefused(
                "CampaignLimitReached", f"offer {claim.offer_id}: the day's budget is spent."
            )
    holder = claim.holders[0] if claim.holders else None
    day = None if claim.day is None else claim.day.name
    row = {
        "reservation_id": str(uuid4()),
        "token_id": claim.token_id,
        "decision_id": str(claim.decision_id),
        "offer_id": claim.offer_id,
        "holder": holder,
        "discount": _DISCOUNT.dump_json(claim.discount).decode(),
        "amount": claim.amount,
        "currency": claim.currency,
        "cart_digest": claim.cart_digest,
        "offer_group": claim.group,
        "state": "reserved",
        "reserved_at": now_us,
        "expires_at": until_us,
        "external_code": claim.external_code,
        "budget_day": day,
    }
    connection.execute(insert(RESERVATIONS).values(row))
    if claim.external_code is not None:
        lock = {"code": claim.external_code, "seconds": max((until_us - now_us) // MICROSECONDS, 1)}
        note(connection, str(row["reservation_id"]), "lock", lock, now_us)
    _count(connection, claim.offer_id, holder, 1, claim.amount, day)
    return _reservation(_row_of(connection, row["reservation_id"]))


_WHY = {
    "CouponLimitReached": "it was used as often as it may be.",
    "ProfileLimitReached": "this shopper has used it as often as anybody may.",
    "CampaignLimitReached": "its budget is spent.",
}


def _redeem(
    connection: Connection, reservation_ids: Sequence[str], settlement: Settlement, now_us: int
) -> Redemption:
    wanted = sorted(set(reservation_ids))
    digest = _digest(wanted, settlement)
    before = connection.execute(
        select(REDEMPTIONS).where(REDEMPTIONS.c.transaction_id == settlement.transaction_id)
    ).one_or_none()
    if before is not None:
        return _repeated(connection, before, digest)
    rows = _lock_reservations(connection, wanted)
    for row in rows:
        _refuse_unless_reserved(row, now_us)
    taken = taken_in_all([_reservation(row) for row in rows], settlement)
    redemption_id = str(uuid4())
    connection.execute(
        insert(REDEMPTIONS).values(
            redemption_id=redemption_id,
            transaction_id=settlement.transaction_id,
            request_digest=digest,
            currency=settlement.currency,
            value=settlement.value,
            total=settlement.total,
            redeemed_at=now_us,
        )
    )
    for row in rows:
        amount = taken[row.reservation_id]
        # Delivery may have turned out cheaper than what was kept for it.
        _count(connection, row.offer_id, None, 0, amount - row.amount, row.budget_day)
        connection.execute(
            update(RESERVATIONS)
            .where(_HELD.reservation_id == row.reservation_id)
            .values(state="redeemed", amount=amount, redemption_id=redemption_id)
        )
        if row.external_code is not None:
            paid = {
                "code": row.external_code,
                "transaction_id": settlement.transaction_id,
                "value": settlement.value,
                "amount": amount,
                "currency": settlement.currency,
            }
            note(connection, row.reservation_id, "redeem", paid, now_us)
    return _redemption(connection, redemption_id)


def _repeated(connection: Connection, before: Row[Any], digest: str) -> Redemption:
    if before.request_digest != digest:
        raise CouponRefused(
            "TransactionUsed", "transaction_id: it was redeemed with another cart, total or offer."
        )
    return _redemption(connection, before.redemption_id)


def _refuse_unless_reserved(row: Row[Any], now_us: int) -> None:
    if row.state == "redeemed":
        raise CouponRefused(
            "ReservationRedeemed", "The reservation was redeemed in another transaction."
        )
    if row.state in {"released", "rolled_back"}:
        raise CouponRefused("ReservationReleased", "The reservation was given back.")
    if row.state == "expired" or row.expires_at <= now_us:
        raise CouponRefused("ReservationExpired", "The reservation has expired; reserve anew.")


def _release(connection: Connection, reservation_id: str, now_us: int) -> Reservation:
    (row,) = _lock_reservations(connection, [reservation_id])
    if row.state == "redeemed":
        raise CouponRefused(
            "ReservationRedeemed", "The reservation was redeemed; roll the redemption back."
        )
    if row.state == "reserved":
        _give_back(connection, [row], "released" if row.expires_at > now_us else "expired")
        if row.external_code is not None:
            note(connection, reservation_id, "unlock", {"code": row.external_code}, now_us)
    return _reservation(_row_of(connection, reservation_id))


def _roll_back(connection: Connection, redemption_id: str, now_us: int) -> Redemption:
    held = connection.execute(
        select(_HELD.reservation_id).where(_HELD.redemption_id == redemption_id)
    ).scalars()
    wanted = sorted(held)
    if not wanted:
        raise CouponRefused("RedemptionNotFound", "There is no such redemption.")
    rows = _lock_reservations(connection, wanted)
    paid = [row for row in rows if row.state == "redeemed"]
    _give_back(connection, paid, "rolled_back")
    for row in paid:
        if row.external_code is not None:
            undone = {"code": row.external_code}
            note(connection, row.reservation_id, "roll_back", undone, now_us)
    connection.execute(
        update(REDEMPTIONS)
        .where(REDEMPTIONS.c.redemption_id == redemption_id)
        .where(REDEMPTIONS.c.rolled_back_at.is_(None))
        .values(rolled_back_at=now_us)
    )
    return _redemption(connection, redemption_id)


def _lock_offer(connection: Connection, offer_id: str) -> tuple[int, int]:
    """Hold the offer until the commit; its uses and its spend."""
    _add(connection, OFFER_USES, {"offer_id": offer_id, "uses": 0, "spent": 0})
    found = connection.execute(
        select(OFFER_USES.c.uses, OFFER_USES.c.spent)
        .where(OFFER_USES.c.offer_id == offer_id)
        .with_for_update()
    ).one()
    return int(found.uses), int(found.spent)


def _lock_day(connection: Connection, day: str) -> None:
    """Hold the day's budget until the commit."""
    _add(connection, DAY_SPEND, {"day": day, "spent": 0})
    connection.execute(
        select(DAY_SPEND.c.spent).where(DAY_SPEND.c.day == day).with_for_update()
    ).one()


def _lock_reservations(connection: Connection, reservation_ids: Sequence[str]) -> list[Row[Any]]:
    """The rows, held until the commit with the offers that they are of. Raises CouponRefused."""
    wanted = select(RESERVATIONS).where(_HELD.reservation_id.in_(reservation_ids))
    for offer_id in sorted({row.offer_id for row in connection.execute(wanted)}):
        _lock_offer(connection, offer_id)
    # Read again: what stood there may have changed while the offers were waited for.
    rows = list(connection.execute(wanted.order_by(_HELD.reservation_id).with_for_update()))
    if not rows or len(rows) != len(reservation_ids):
        raise CouponRefused("ReservationNotFound", "There is no such reservation.")
    return rows


def _expire(connection: Connection, offer_id: str, now_us: int) -> Used:
    """Give back what was reserved of an offer, which is held, and is over; how much that was."""
    over = list(
        connection.execute(
            select(RESERVATIONS).where(
                _HELD.offer_id == offer_id,
                _HELD.state == "reserved",
                _HELD.expires_at <= now_us,
            )
        )
    )
    _give_back(connection, over, "expired")
    return Used(total=len(over), spent=sum(row.amount for row in over))


def _give_back(connection: Connection, rows: Iterable[Row[Any]], state: str) -> None:
    for row in rows:
        _count(connection, row.offer_id, row.holder, -1, -row.amount, row.budget_day)
        connection.execute(
            update(RESERVATIONS)
            .where(_HELD.reservation_id == row.reservation_id)
            .values(state=state)
        )


def _count(
    connection: Connection,
    offer_id: str,
    holder: str | None,
    uses: int,
    spent: int,
    day: str | None,
) -> None:
    connection.execute(
        update(OFFER_USES)
        .where(OFFER_USES.c.offer_id == offer_id)
        .values(uses=OFFER_USES.c.uses + uses, spent=OFFER_USES.c.spent + spent)
    )
    if day is not None:
        connection.execute(
            update(DAY_SPEND).where(DAY_SPEND.c.day == day).values(spent=DAY_SPEND.c.spent + spent)
        )
    if holder is not None:
        _add(connection, HOLDER_USES, {"holder": holder, "uses": 0})
        connection.execute(
            update(HOLDER_USES)
            .where(HOLDER_USES.c.holder == holder)
            .values(uses=HOLDER_USES.c.uses + uses)
        )


def _add(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert `row` unless it is there."""
    makes: Callable[[Table], Any]
    makes = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(makes(table).values(row).on_conflict_do_nothing())


def _used(connection: Connection, now_us: int) -> dict[str, Used]:
    over = {
        row.offer_id: Used(total=int(row.uses), spent=int(row.spent))
        for row in connection.execute(
            select(
                _HELD.offer_id,
                func.count().label("uses"),
                func.sum(_HELD.amount).label("spent"),
            )
            .where(_HELD.state == "reserved", _HELD.expires_at <= now_us)
            .group_by(_HELD.offer_id)
        )
    }
    found = {}
    for row in connection.execute(select(OFFER_USES)):
        freed = over.get(row.offer_id, Used())
        found[row.offer_id] = Used(row.uses - freed.total, 0, row.spent - freed.spent)
    return found


def _uses_of(connection: Connection, holders: Sequence[str], now_us: int) -> dict[str, int]:
    """How often was used under each of `holders`; those never used are left out."""
    if not holders:
        return {}
    counted = connection.execute(
        select(HOLDER_USES.c.holder, HOLDER_USES.c.uses).where(HOLDER_USES.c.holder.in_(holders))
    )
    found = {row.holder: int(row.uses) for row in counted}
    if found:
        over = connection.execute(
            select(_HELD.holder).where(
                _HELD.holder.in_(list(found)),
                _HELD.state == "reserved",
                _HELD.expires_at <= now_us,
            )
        )
        for row in over:
            found[row.holder] -= 1
    return found


def _made_by(
    connection: Connection, decision_ids: Sequence[str], holders: Sequence[str]
) -> list[Reservation]:
    found: dict[str, Reservation] = {}
    for column, names in ((_HELD.decision_id, decision_ids), (_HELD.holder, holders)):
        for start in range(0, len(names), _AT_ONCE):
            asked = select(RESERVATIONS).where(column.in_(names[start : start + _AT_ONCE]))
            found |= {row.reservation_id: _reservation(row) for row in connection.execute(asked)}
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


def _row_of(connection: Connection, reservation_id: object) -> Row[Any]:
    return connection.execute(
        select(RESERVATIONS).where(_HELD.reservation_id == reservation_id)
    ).one()


def _reservation(row: Row[Any]) -> Reservation:
    return Reservation(
        row.reservation_id,
        row.offer_id,
        UUID(row.decision_id),
        row.state,
        _DISCOUNT.validate_json(row.discount),
        int(row.amount),
        row.currency,
        row.cart_digest,
        row.offer_group,
        from_us(row.reserved_at),
        from_us(row.expires_at),
    )


def _redemption(connection: Connection, redemption_id: str) -> Redemption:
    row = connection.execute(
        select(REDEMPTIONS).where(REDEMPTIONS.c.redemption_id == redemption_id)
    ).one()
    amounts = connection.execute(
        select(_HELD.reservation_id, _HELD.amount)
        .where(_HELD.redemption_id == redemption_id)
        .order_by(_HELD.reservation_id)
    )
    over = row.rolled_back_at
    return Redemption(
        row.redemption_id,
        row.transaction_id,
        {one.reservation_id: int(one.amount) for one in amounts},
        row.currency,
        int(row.total),
        from_us(row.redeemed_at),
        None if over is None else from_us(over),
    )


def _digest(reservation_ids: Sequence[str], settlement: Settlement) -> str:
    """Of what is redeemed: a repeat says the same."""
    said = [
        list(reservation_ids),
        settlement.cart_digest,
        settlement.currency,
        settlement.value,
        settlement.total,
        settlement.shipping_id,
        settlement.shipping_price,
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
