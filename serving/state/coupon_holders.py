"""Under which names a shopper's uses of an offer stand in the coupon ledger: made with the data key
of the subject, another one for every offer. At an erasure the key is destroyed, and with it every
way from the person to their uses, and from one use to another."""

import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from serving.state.control_store import ControlStore
from serving.state.coupon_ledger import CouponLedger


class CouponHolders:
    """Makes the names from the keys in `control`."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._unknown = control.service_key("coupons")

    def names_of_nobody(
        self, offer_id: str, visitor_id: str, user_id: str | None
    ) -> tuple[str, ...]:
        """The names of whoever has no subject, because they never agreed to be remembered: of the
        user where one is named, then of the visitor. They lead to an id only who has that id."""
        ids = [("user", user_id)] if user_id is not None else []
        return tuple(
            hmac.digest(
                self._unknown,
                f"{kind}\0{offer_id}\0{raw_id}".encode("utf-8", "surrogatepass"),
                "sha256",
            ).hex()
            for kind, raw_id in (*ids, ("visitor", visitor_id))
        )

    def names(self, subject_id: str, offer_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """By offer: the subject's own name, then those of whom it was before, as a visitor; empty
        where the subject is not there (any more). Raises StoreError."""
        keys = self._keys(subject_id)
        return {
            offer_id: tuple(
                hmac.digest(key, b"tillwise:coupon\0" + offer_id.encode(), "sha256").hex()
                for key in keys
            )
            for offer_id in offer_ids
        }

    def names_of_viewer(self, subject_id: str) -> tuple[str, ...]:
        """Under which it stands what the subject was shown, the own name first. Raises
        StoreError."""
        return tuple(
            hmac.digest(key, b"tillwise:shown", "sha256").hex() for key in self._keys(subject_id)
        )

    def seat(self, session_id: str) -> str:
        """What stands for a session."""
        said = b"seat\0" + session_id.encode("utf-8", "surrogatepass")
        return hmac.digest(self._unknown, said, "sha256").hex()

    def _keys(self, subject_id: str) -> list[bytes]:
        subjects = self._control.histories(subject_id)
        found = [self._control.subject_key(one) for one in subjects]
        return [key.data_key for key in found if key is not None]

    async def reservations(
        self,
        ledger: CouponLedger,
        subject_ids: Sequence[str],
        decision_ids: Sequence[str],
        now: datetime,
    ) -> list[dict[str, Any]]:
        """What these subjects reserved, to be read by a person: of the decisions that are on record
        as theirs, and what stands under their names. Raises StoreError."""
        offer_ids = list(await ledger.used(now))
        named = [self.names(one, offer_ids).values() for one in subject_ids]
        holders = {name for by_offer in named for names in by_offer for name in names}
        return [
            {
                "reservation_id": one.reservation_id,
                "offer_id": one.offer_id,
                "decision_id": str(one.decision_id),
                "state": one.state,
                "amount": one.amount,
                "currency": one.currency,
                "reserved_at": one.reserved_at.isoformat(),
                "expires_at": one.expires_at.isoformat(),
            }
            for one in await ledger.made_by(decision_ids, sorted(holders))
        ]
