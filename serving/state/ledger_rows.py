"""Rows of the ledger as reservations and redemptions."""

from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, select

from contract.clock import from_us
from contract.offers import Discount
from serving.state.coupon_ledger import Redemption, Reservation
from serving.state.ledger_tables import REDEMPTIONS, RESERVATIONS

_DISCOUNT: TypeAdapter[Discount] = TypeAdapter(Discount)
IN_FORCE = ("reserved", "redeemed")  # the states that count as use
_HELD = RESERVATIONS.c


def discount_text(discount: Discount) -> str:
    """As it is kept in a row."""
    return _DISCOUNT.dump_json(discount).decode()


def row_of(connection: Connection, reservation_id: object) -> Row[Any]:
    """The row of a reservation that is there."""
    return connection.execute(
        select(RESERVATIONS).where(_HELD.reservation_id == reservation_id)
    ).one()


def reservation_of(row: Row[Any]) -> Reservation:
    """The reservation that a row holds."""
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
        None if row.most_in_all is None else int(row.most_in_all),
    )


def redemption_of(connection: Connection, redemption_id: str) -> Redemption:
    """A redemption that is there, with what each of its reservations came to."""
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
