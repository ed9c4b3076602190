"""What is held of a person beside events and features: in the coupon ledger, and in the file of the
worker beside this gateway."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.clock import Clock, from_us
from contract.keyed_hash import KeyedHash
from serving.monitoring.held_facts import held_facts
from serving.state.control_records import SubjectKey
from serving.state.coupon_holders import CouponHolders, Holder
from serving.state.sql_coupon_ledger import SqlCouponLedger


class HeldBeside:
    """Reads it to be read by that person. `facts`: the worker's file, which may not be there."""

    def __init__(
        self, ledger: SqlCouponLedger, holders: CouponHolders, facts: Path, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._holders = holders
        self._facts = facts
        self._clock = clock

    async def of(self, keys: Sequence[SubjectKey], decision_ids: Sequence[str]) -> dict[str, Any]:
        """By the keys of the person's subjects, and the decisions that were theirs. Raises
        StoreError."""
        subject_ids = [one.subject_id for one in keys]
        person = Holder(tuple(KeyedHash(one.data_key) for one in keys))
        names = person.names_as_viewer  # none where they are erased at this moment
        shown = await self._ledger.pacing.shown(names) if names else {}
        return {
            "reservations": await self._holders.reservations(
                self._ledger, subject_ids, decision_ids, self._clock.now()
            ),
            "offers_shown": [from_us(at_us).isoformat() for at_us in sorted(shown.values())],
            "counted": await asyncio.to_thread(
                held_facts, self._facts, [one.log_key for one in keys]
            ),
        }
