"""The life of a coupon: reserved for some minutes, then redeemed with the final cart, or released;
a redemption can be rolled back.

A reservation counts as a use and as spend from the first moment on, so no limit can be broken by
those who pay at the same time. Every step may be repeated: the answer is the same, and nothing
happens twice. All steps are atomic, and durable when they return.

Nothing here names a person. Where an offer has a limit for each shopper, a use stands under a
`holder`: a name that only the shopper's own data key can make, another one for every offer. With
the key, at an erasure, the way back from a person to their uses is gone; the use itself is part of
a contract, and stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from contract.offer_checks import RejectionReason, Used, floors_kept
from contract.offers import Discount, FreeShipping, Limits, reduction

State = Literal["reserved", "redeemed", "released", "expired", "rolled_back"]

RefusalReason = (
    RejectionReason
    | Literal[
        "ReservationNotFound",
        "ReservationExpired",
        "ReservationReleased",
        "ReservationRedeemed",  # already, with another cart, total or transaction
        "RedemptionNotFound",
        "TransactionUsed",  # another redemption has this transaction_id
        "CartMismatch",  # not the cart that it was reserved for
        "TotalMismatch",  # not what is due
        "ExclusivityViolation",  # offers that do not go together
    ]
)


class CouponRefused(Exception):  # noqa: N818 - it names what happened, not a fault
    """The step was not taken, and nothing was changed. `due`: the total that would be right."""

    def __init__(self, reason: RefusalReason, detail: str, due: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.due = due


@dataclass(frozen=True)
class DayLimit:
    """What may be spent on the day `name` in all, reservations included, in minor units."""

    name: str
    amount: int


@dataclass(frozen=True)
class Claim:
    """What an offer token entitles to: so much off this cart by this offer.

    `token_id` is the token's own name: it makes at most one reservation at a time. `holders`: the
    shopper's names for this offer, the one that it is reserved under first; empty where nobody
    counts. `discount` is settled, `amount` at most what it takes off, in minor units.
    `most_in_all`: what it may take off with others together, None: whatever there is.
    `external_code`: of the coupon in an outside system, which is told of every step.
    """

    token_id: str
    decision_id: UUID
    offer_id: str
    discount: Discount
    amount: int
    currency: str
    cart_digest: str
    group: str | None = None
    holders: tuple[str, ...] = ()
    external_code: str | None = None
    day: DayLimit | None = None  # None: it is of no day's budget
    most_in_all: int | None = None


@dataclass(frozen=True)
class Settlement:
    """The final checkout as the shop's own till has it: `value` of the goods before reductions,
    what delivery costs before reductions, and the `total` to be paid, all in minor units."""

    transaction_id: str
    cart_digest: str
    currency: str
    value: int
    total: int
    shipping_id: str | None = None
    shipping_price: int = 0


@dataclass(frozen=True)
class Reservation:
    """A reservation. `amount` once it is redeemed is what was taken off, before at most that."""

    reservation_id: str
    offer_id: str
    decision_id: UUID
    state: State
    discount: Discount
    amount: int
    currency: str
    cart_digest: str
    group: str | None
    reserved_at: datetime
    expires_at: datetime
    most_in_all: int | None = None


@dataclass(frozen=True)
class Redemption:
    """What was redeemed in one transaction: `amounts` taken off, by reservation."""

    redemption_id: str
    transaction_id: str
    amounts: Mapping[str, int]
    currency: str
    total: int
    redeemed_at: datetime
    rolled_back_at: datetime | None


@dataclass(frozen=True)
class Settled:
    """What redeemed offers take off a transaction: nothing, once it was rolled back."""

    transaction_id: str
    amount: int
    at_us: int  # when it was redeemed, or rolled back


class Seen(NamedTuple):
    """How often somebody used each offer, and when each of their sessions, by its seat, was shown
    one last."""

    uses: Mapping[str, int]
    shown: Mapping[str, int]


class CouponLedger(Protocol):
    """The ledger. Every method raises StoreError when it can not be reached: then nobody knows
    whether the step was taken, and asking again is right."""

    @property
    def looks_beside(self) -> bool:
        """Whether `seen` answers without waiting."""
        ...

    async def reserve(
        self, claim: Claim, limits: Limits, now: datetime, until: datetime
    ) -> Reservation:
        """Reserve `claim` within `limits` until then; the reservation that it has already, where
        it has one in force. Raises CouponRefused."""
        ...

    async def redeem(
        self, reservation_ids: Sequence[str], settlement: Settlement, now: datetime
    ) -> Redemption:
        """Redeem all of the reservations in one transaction, or none. Raises CouponRefused."""
        ...

    async def release(self, reservation_id: str, now: datetime) -> Reservation:
        """Give a reservation back. Raises CouponRefused where it was redeemed."""
        ...

    async def roll_back(self, redemption_id: str, now: datetime) -> Redemption:
        """Undo a redemption: its uses and its spend are free again. Raises CouponRefused."""
        ...

    async def of_token(self, token_id: str, now: datetime) -> Reservation | None:
        """The reservation of a token that is in force, or was redeemed."""
        ...

    async def find(self, reservation_id: str) -> Reservation | None:
        """The reservation as it stands."""
        ...

    async def made_by(
        self, decision_ids: Sequence[str], holders: Sequence[str]
    ) -> list[Reservation]:
        """The reservations of these decisions' offers, and those under the names `holders`, oldest
        first."""
        ...

    async def used(self, now: datetime) -> dict[str, Used]:
        """How often each offer was used, by its id, as of `now`."""
        ...

    async def seen(
        self, holders: Mapping[str, Sequence[str]], viewer: Sequence[str], now: datetime
    ) -> Seen:
        """What stands under the names of a shopper: of each offer of `holders`, and as a
        `viewer`."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


def amount_taken(reservation: Reservation, settlement: Settlement) -> int:
    """What `reservation` takes off the final checkout. Raises CouponRefused."""
    if settlement.currency != reservation.currency:
        raise CouponRefused("CartMismatch", f"currency: it was reserved in {reservation.currency}.")
    if settlement.cart_digest != reservation.cart_digest:
        raise CouponRefused(
            "CartMismatch", "cart: it was reserved for another cart; decide and reserve anew."
        )
    discount, price = reservation.discount, 0
    if isinstance(discount, FreeShipping):
        named = discount.shipping_ids
        price = settlement.shipping_price
        if settlement.shipping_id is None or (named and settlement.shipping_id not in named):
            raise CouponRefused("CouponRejectedByCondition", "shipping: not free with this offer.")
    taken = reduction(discount, settlement.value, price)
    if taken > reservation.amount:
        raise CouponRefused(
            "CartMismatch", f"shipping: more than the {reservation.amount} reserved for it."
        )
    return taken


def taken_in_all(reservations: Sequence[Reservation], settlement: Settlement) -> dict[str, int]:
    """What each of `reservations` takes off, where together they leave exactly the total. Raises
    CouponRefused."""
    groups = {one.group for one in reservations}
    if len(reservations) > 1 and (len(groups) > 1 or None in groups):
        raise CouponRefused("ExclusivityViolation", "These offers do not go together.")
    if sum(isinstance(one.discount, FreeShipping) for one in reservations) > 1:
        raise CouponRefused("ExclusivityViolation", "Delivery can be free only once.")
    if len({one.offer_id for one in reservations}) < len(reservations):
        raise CouponRefused("ExclusivityViolation", "An offer counts once in a transaction.")
    taken = {one.reservation_id: amount_taken(one, settlement) for one in reservations}
    due = settlement.value + settlement.shipping_price - sum(taken.values())
    kept = floors_kept((taken[one.reservation_id], one.most_in_all) for one in reservations)
    if due < 0 or not kept:
        raise CouponRefused("ExclusivityViolation", "Together these offers take off too much.")
    if settlement.total != due:
        raise CouponRefused("TotalMismatch", f"total: {due} is due, not {settlement.total}.", due)
    return taken
