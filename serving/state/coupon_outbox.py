"""What an outside coupon system is still to be told: written in the transaction of the step itself,
so that neither can be there without the other, and delivered after it. The ledger decides; whatever
the outside is slow, away or contrary about, no checkout waits for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import uuid4

from sqlalchemy import Connection, Row, and_, exists, func, insert, select, update

from contract.clock import to_us
from serving.state.ledger_database import LedgerDatabase
from serving.state.ledger_tables import OUTBOX

Kind = Literal["lock", "redeem", "unlock", "roll_back"]

_HELD = OUTBOX.c
# A message that is being delivered belongs to whoever took it for so long; then others may try.
LEASE: Final = timedelta(seconds=30)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 300.0


@dataclass(frozen=True)
class Message:
    """One thing to be told of a reservation. `attempts` were made before: whether they arrived,
    nobody knows. `redeemed_as` is the outside's name of the redemption, once it has told one."""

    message_id: str
    reservation_id: str
    kind: Kind
    body: Mapping[str, Any]
    attempts: int
    redeemed_as: str | None


def note(
    connection: Connection, reservation_id: str, kind: Kind, body: Mapping[str, Any], now_us: int
) -> None:
    """Add a message behind those of the same reservation, which is locked."""
    before = connection.execute(
        select(func.count()).where(_HELD.reservation_id == reservation_id)
    ).scalar_one()
    connection.execute(
        insert(OUTBOX).values(
            message_id=str(uuid4()),
            reservation_id=reservation_id,
            place=before,
            kind=kind,
            body=json.dumps(dict(body)),
            made_at=now_us,
            next_at=now_us,
            attempts=0,
        )
    )


class CouponOutbox:
    """The messages of one ledger. Several gateways may deliver from it."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    async def take(self, now: datetime) -> Message | None:
        """The next message that is due, which is ours for the time of LEASE; None where there is
        none. What was said of a reservation earlier is always told first. Raises StoreError."""
        return await self._database.write(lambda connection: _take(connection, to_us(now)))

    async def done(
        self,
        message: Message,
        now: datetime,
        *,
        remote_id: str | None = None,
        problem: str | None = None,
    ) -> None:
        """It was told, and answered with `remote_id` or refused for good for a `problem`."""
        values = {"done_at": to_us(now), "remote_id": remote_id, "problem": problem}
        await self._set(message, values)

    async def again(self, message: Message, now: datetime, problem: str) -> None:
        """It is to be tried again after a while that doubles every time."""
        wait = min(_FIRST_WAIT_S * 2.0**message.attempts, _LONGEST_WAIT_S)
        next_us = to_us(now + timedelta(seconds=wait))
        await self._set(message, {"next_at": next_us, "problem": problem})

    async def waiting(self) -> int:
        """How many messages are still to be told. Raises StoreError."""
        return await self._database.read(
            lambda connection: int(
                connection.execute(
                    select(func.count()).select_from(OUTBOX).where(_HELD.done_at.is_(None))
                ).scalar_one()
            )
        )

    async def _set(self, message: Message, values: Mapping[str, Any]) -> None:
        def write(connection: Connection) -> None:
            connection.execute(
                update(OUTBOX).where(_HELD.message_id == message.message_id).values(**values)
            )

        await self._database.write(write)


def _take(connection: Connection, now_us: int) -> Message | None:
    before = OUTBOX.alias()
    earlier = exists().where(
        and_(
            before.c.reservation_id == _HELD.reservation_id,
            before.c.place < _HELD.place,
            before.c.done_at.is_(None),
        )
    )
    row = connection.execute(
        select(OUTBOX)
        .where(_HELD.done_at.is_(None), _HELD.next_at <= now_us, ~earlier)
        .order_by(_HELD.next_at, _HELD.made_at, _HELD.place)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    connection.execute(
        update(OUTBOX)
        .where(_HELD.message_id == row.message_id)
        .values(next_at=now_us + LEASE // timedelta(microseconds=1), attempts=row.attempts + 1)
    )
    return _message(connection, row)


def _message(connection: Connection, row: Row[Any]) -> Message:
    redeemed_as = connection.execute(
        select(_HELD.remote_id).where(
            _HELD.reservation_id == row.reservation_id, _HELD.kind == "redeem"
        )
    ).scalar_one_or_none()
    return Message(
        row.message_id,
        row.reservation_id,
        row.kind,
        json.loads(row.body),
        int(row.attempts),
        redeemed_as,
    )
