"""The steps of a coupon, each one transaction: reserved, redeemed or released, and rolled back."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, insert, select, update

from contract.clock import MICROSECONDS
from contract.offer_checks import Used, used_up
from contract.offers import Limits
from serving.state.coupon_ledger import (
    Claim,
    CouponRefused,
    Redemption,
    Reservation,
    Settlement,
    taken_in_all,
)
from serving.state.coupon_outbox import note
from serving.state.ledger_rows import IN_FORCE, discount_text, redemption_of, reservation_of, row_of
from serving.state.ledger_tables import REDEMPTIONS, RESERVATIONS
from serving.state.ledger_uses import (
    count,
    expire,
    give_back,
    lock_day,
    lock_offer,
    lock_reservations,
    uses_of,
)
from serving.state.pacing_records import day_spent

_HELD = RESERVATIONS.c

_WHY = {
    "CouponLimitReached": "it was used as often as it may be.",
    "ProfileLimitReached": "this shopper has used it as often as anybody may.",
    "CampaignLimitReached": "its budget is spent.",
}


def reserve(
    connection: Connection, claim: Claim, limits: Limits, now_us: int, until_us: int
) -> Reservation:
    """As of a CouponLedger, like the other steps."""
    total, spent = lock_offer(connection, claim.offer_id)
    freed = expire(connection, claim.offer_id, now_us)
    total, spent = total - freed.total, spent - freed.spent
    before = connection.execute(
        select(RESERVATIONS).where(_HELD.token_id == claim.token_id, _HELD.state.in_(IN_FORCE))
    ).one_or_none()
    if before is not None:
        return reservation_of(before)
    by_subject = sum(uses_of(connection, claim.holders, now_us).values())
    reason = used_up(limits, Used(total, by_subject, spent), claim.amount)
    if reason is not None:
        raise CouponRefused(reason, f"offer {claim.offer_id}: {_WHY[reason]}")
    if claim.day is not None:
        lock_day(connection, claim.day.name)
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
        "discount": discount_text(claim.discount),
        "amount": claim.amount,
        "currency": claim.currency,
        "cart_digest": claim.cart_digest,
        "offer_group": claim.group,
        "state": "reserved",
        "reserved_at": now_us,
        "expires_at": until_us,
        "external_code": claim.external_code,
        "budget_day": day,
        "most_in_all": claim.most_in_all,
    }
    connection.execute(insert(RESERVATIONS).values(row))
    if claim.external_code is not None:
        lock = {"code": claim.external_code, "seconds": max((until_us - now_us) // MICROSECONDS, 1)}
        note(connection, str(row["reservation_id"]), "lock", lock, now_us)
    count(connection, claim.offer_id, holder, 1, claim.amount, day)
    return reservation_of(row_of(connection, row["reservation_id"]))


def redeem(
    connection: Connection, reservation_ids: Sequence[str], settlement: Settlement, now_us: int
) -> Redemption:
    wanted = sorted(set(reservation_ids))
    digest = _digest(wanted, settlement)
    before = connection.execute(
        select(REDEMPTIONS).where(REDEMPTIONS.c.transaction_id == settlement.transaction_id)
    ).one_or_none()
    if before is not None:
        return _repeated(connection, before, digest)
    rows = lock_reservations(connection, wanted)
    for row in rows:
        _refuse_unless_reserved(row, now_us)
    taken = taken_in_all([reservation_of(row) for row in rows], settlement)
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
        count(connection, row.offer_id, None, 0, amount - row.amount, row.budget_day)
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
    return redemption_of(connection, redemption_id)


def _repeated(connection: Connection, before: Row[Any], digest: str) -> Redemption:
    if before.request_digest != digest:
        raise CouponRefused(
            "TransactionUsed", "transaction_id: it was redeemed with another cart, total or offer."
        )
    return redemption_of(connection, before.redemption_id)


def _refuse_unless_reserved(row: Row[Any], now_us: int) -> None:
    if row.state == "redeemed":
        raise CouponRefused(
            "ReservationRedeemed", "The reservation was redeemed in another transaction."
        )
    if row.state in {"released", "rolled_back"}:
        raise CouponRefused("ReservationReleased", "The reservation was given back.")
    if row.state == "expired" or row.expires_at <= now_us:
        raise CouponRefused("ReservationExpired", "The reservation has expired; reserve anew.")


def release(connection: Connection, reservation_id: str, now_us: int) -> Reservation:
    (row,) = lock_reservations(connection, [reservation_id])
    if row.state == "redeemed":
        raise CouponRefused(
            "ReservationRedeemed", "The reservation was redeemed; roll the redemption back."
        )
    if row.state == "reserved":
        give_back(connection, [row], "released" if row.expires_at > now_us else "expired")
        if row.external_code is not None:
            note(connection, reservation_id, "unlock", {"code": row.external_code}, now_us)
    return reservation_of(row_of(connection, reservation_id))


def roll_back(connection: Connection, redemption_id: str, now_us: int) -> Redemption:
    held = connection.execute(
        select(_HELD.reservation_id).where(_HELD.redemption_id == redemption_id)
    ).scalars()
    wanted = sorted(held)
    if not wanted:
        raise CouponRefused("RedemptionNotFound", "There is no such redemption.")
    rows = lock_reservations(connection, wanted)
    paid = [row for row in rows if row.state == "redeemed"]
    give_back(connection, paid, "rolled_back")
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
    return redemption_of(connection, redemption_id)


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
