"""How often and for how much each offer was used, and who waits for whom to count it.

Whoever changes the uses of an offer holds its row until the commit: in PostgreSQL by a row lock, in
SQLite because there is one writer. Rows are locked in the order of offers, then reservations, then
days.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from contract.offer_checks import Used
from serving.state.coupon_ledger import CouponRefused
from serving.state.ledger_database import rows_of
from serving.state.ledger_tables import DAY_SPEND, HOLDER_USES, OFFER_USES, RESERVATIONS
from serving.state.sql import Asked, places

_HELD = RESERVATIONS.c
_USES_OF = """
SELECT h.holder, h.uses - (
    SELECT count(*) FROM reservations AS r
    WHERE r.holder = h.holder AND r.state = 'reserved' AND r.expires_at <= ?
)
FROM holder_uses AS h WHERE h.holder IN ({})
"""


def lock_offer(connection: Connection, offer_id: str) -> tuple[int, int]:
    """Hold the offer until the commit; its uses and its spend."""
    _add(connection, OFFER_USES, {"offer_id": offer_id, "uses": 0, "spent": 0})
    found = connection.execute(
        select(OFFER_USES.c.uses, OFFER_USES.c.spent)
        .where(OFFER_USES.c.offer_id == offer_id)
        .with_for_update()
    ).one()
    return int(found.uses), int(found.spent)


def lock_day(connection: Connection, day: str) -> None:
    """Hold the day's budget until the commit."""
    _add(connection, DAY_SPEND, {"day": day, "spent": 0})
    connection.execute(
        select(DAY_SPEND.c.spent).where(DAY_SPEND.c.day == day).with_for_update()
    ).one()


def lock_reservations(connection: Connection, reservation_ids: Sequence[str]) -> list[Row[Any]]:
    """The rows, held until the commit with the offers that they are of. Raises CouponRefused."""
    wanted = select(RESERVATIONS).where(_HELD.reservation_id.in_(reservation_ids))
    for offer_id in sorted({row.offer_id for row in connection.execute(wanted)}):
        lock_offer(connection, offer_id)
    # Read again: what stood there may have changed while the offers were waited for.
    rows = list(connection.execute(wanted.order_by(_HELD.reservation_id).with_for_update()))
    if not rows or len(rows) != len(reservation_ids):
        raise CouponRefused("ReservationNotFound", "There is no such reservation.")
    return rows


def expire(connection: Connection, offer_id: str, now_us: int) -> Used:
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
    give_back(connection, over, "expired")
    return Used(total=len(over), spent=sum(row.amount for row in over))


def give_back(connection: Connection, rows: Iterable[Row[Any]], state: str) -> None:
    """Bring reservations, whose offers are held, to a `state` that counts no more."""
    for row in rows:
        count(connection, row.offer_id, row.holder, -1, -row.amount, row.budget_day)
        connection.execute(
            update(RESERVATIONS)
            .where(_HELD.reservation_id == row.reservation_id)
            .values(state=state)
        )


def count(
    connection: Connection,
    offer_id: str,
    holder: str | None,
    uses: int,
    spent: int,
    day: str | None,
) -> None:
    """Add to what was used and spent of an offer, which is held, of its day and by its holder."""
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


def used(connection: Connection, now_us: int) -> dict[str, Used]:
    """By offer, without what was reserved and is over."""
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


def asked_uses(holders: Sequence[str], now_us: int) -> Asked:
    """The question, and its values, how often was used under each of `holders`, at least one,
    without what was reserved and is over; those never used are left out."""
    return _uses_query(len(holders)), [now_us, *holders]


@cache  # the same text each time is found by its hash, which is known
def _uses_query(number: int) -> str:
    return _USES_OF.format(places(number))


def uses_of(connection: Connection, holders: Sequence[str], now_us: int) -> dict[str, int]:
    """The answer to it in a transaction under way."""
    if not holders:
        return {}
    return {one: int(uses) for one, uses in rows_of(connection, *asked_uses(holders, now_us))}
