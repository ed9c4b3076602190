"""Under which names a shopper's uses of an offer stand in the coupon ledger: made with the data key
of the subject, another one for every offer. At an erasure the key is destroyed, and with it every
way from the person to their uses, and from one use to another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contract.keyed_hash import KeyedHash
from serving.state.control_store import ControlStore
from serving.state.coupon_ledger import CouponLedger


@dataclass(frozen=True)
class Holder:
    """A shopper: `keys` are the own one, then those of whom they were before, as a visitor; none
    where the subject is not there (any more)."""

    keys: tuple[KeyedHash, ...]

    def names(self, offer_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """By offer: the own name first."""
        return {one: self._named(b"tillwise:coupon\0" + one.encode()) for one in offer_ids}

    @property
    def names_as_viewer(self) -> tuple[str, ...]:
        """Under which it stands what they were shown, the own name first."""
        return self._named(b"tillwise:shown")

    def _named(self, what: bytes) -> tuple[str, ...]:
        return tuple([key.digest(what).hex() for key in self.keys])


class CouponHolders:
    """Makes the names from the keys in `control`."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._unknown = KeyedHash(control.service_key("coupons"))

    def names_of_nobody(
        self, offer_id: str, visitor_id: str, user_id: str | None
    ) -> tuple[str, ...]:
        """The names of whoever has no subject, because they never agreed to be remembered: of the
        user where one is named, then of the visitor. They lead to an id only who has that id."""
        ids = [("user", user_id)] if user_id is not None else []
        return tuple(
            self._unknown.digest(
                f"{kind}\0{offer_id}\0{raw_id}".encode("utf-8", "surrogatepass")
            ).hex()
            for kind, raw_id in (*ids, ("visitor", visitor_id))
        )

    def of(self, subject_id: str) -> Holder:
        """Who has the names of a subject. Raises StoreError."""
        keys = self._control.keys_with_histories(subject_id)
        return Holder(tuple([KeyedHash(one.data_key) for one in keys]))

    def seat(self, session_id: str) -> str:
        """What stands for a session."""
        said = b"seat\0" + session_id.encode("utf-8", "surrogatepass")
        return self._unknown.digest(said).hex()

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
        named = [self.of(one).names(offer_ids).values() for one in subject_ids]
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
