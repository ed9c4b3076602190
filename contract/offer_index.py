"""The offers of a book as checkouts find them. What is the same at every checkout is worked out
once: offers that are closed for the same reason stand behind one gate, what the clock alone closes
is looked up once a minute, and what is taken off is reckoned once for all that promise the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple, Self

from contract.expressions import Expression, Facts
from contract.offer_checks import (
    NO_USES,
    NOT_USED,
    Asked,
    Evaluation,
    Rejected,
    RejectionReason,
    Used,
    ValidOffer,
    room,
    used_up,
)
from contract.offers import (
    EMPTY_BOOK,
    AnyDiscount,
    Discount,
    FreeShipping,
    LoyaltyTiers,
    Offer,
    OfferBook,
    reduction,
    settled,
)
from contract.schedule import Schedule

_MINUTE: Final = timedelta(minutes=1)  # at the turn of one the hours of all zones turn
_MOST_SORTINGS: Final = 256  # that are kept: most checkouts find the same gates open as another
# What an expression reads here is about the shopper, not about the cart or the place.
_PERSONAL: Final = ("shopper.", "segments")

_Reasons = tuple[RejectionReason | None, ...]  # why each gate is closed; None: it is open


class OfferIndex:
    """Made when a book is written, then asked at every checkout."""

    def __init__(
        self, book: OfferBook = EMPTY_BOOK, conditions: Mapping[str, Expression] | None = None
    ) -> None:
        """`conditions`: those of the book, compiled, by their text."""
        compiled = conditions or {}
        self.variables: frozenset[str] = frozenset().union(
            *(one.variables for one in compiled.values())
        )
        self._conditions = compiled
        gates: dict[_Gate, int] = {}
        promises: dict[_Promise, int] = {}
        items = []
        for place, offer in enumerate(book.offers):
            gate = _Gate.of(offer, book, compiled)
            promise = _Promise(offer.discount, book.floor_of(offer))
            numbers = (
                gates.setdefault(gate, len(gates)),
                promises.setdefault(promise, len(promises)),
            )
            items.append(_Item(place, offer, gate.targeted, *numbers))
        self._gates, self._promises, self._items = tuple(gates), tuple(promises), tuple(items)
        self._turns = [one for gate in gates for one in gate.turns]
        self._standing: _Standing | None = None
        # The same uses count for all checkouts of a second.
        self._left: tuple[Mapping[str, Used], list[float]] | None = None
        self._sorted = lru_cache(_MOST_SORTINGS)(self._sort)

    def evaluate(
        self, asked: Asked, facts: Callable[[], Facts], used: Mapping[str, Used] = NO_USES
    ) -> Evaluation:
        """The offers held against a checkout, in their order, and within their limits after what
        was `used`, by offer id, which is never changed. `facts`, for conditions, are asked for only
        where everything cheaper has been right."""
        sorted_, left = self._sorted(self._reasons(asked, facts)), self._left_after(used)
        taken: dict[int, _Taken | None] = {}
        valid: list[ValidOffer] = []
        worthless: list[tuple[int, Rejected]] = []
        gone: list[Rejected] = []
        for place, offer, targeted, _, promise in sorted_.open:
            if promise not in taken:
                taken[promise] = self._promises[promise].taken(asked)
            off = taken[promise]
            if off is None:
                worthless.append((place, Rejected(offer.offer_id, "CouponRejectedByCondition")))
            elif off.amount <= left[place]:
                valid.append(ValidOffer(offer, off.discount, off.amount, targeted, off.most))
            else:
                before = used.get(offer.offer_id, NOT_USED)
                reason = used_up(offer.limits, before, off.amount)
                assert reason is not None
                gone.append(Rejected(offer.offer_id, reason))
        rejected = sorted_.rejected
        if worthless:
            by_place = sorted([*zip(sorted_.closed, rejected, strict=True), *worthless])
            rejected = tuple([one for _, one in by_place])
        return Evaluation(tuple(valid), (*rejected, *gone) if gone else rejected)

    def _left_after(self, used: Mapping[str, Used]) -> list[float]:
        """At each offer's place, what one more use of it may take off."""
        if self._left is None or self._left[0] is not used:
            every = [one.offer for one in self._items]
            self._left = used, [room(one.limits, used.get(one.offer_id, NOT_USED)) for one in every]
        return self._left[1]

    def _reasons(self, asked: Asked, facts: Callable[[], Facts]) -> _Reasons:
        standing = self._standing
        if standing is None or not standing.since <= asked.now < standing.until:
            standing = self._standing = self._standing_at(asked.now)
        reasons = list(standing.reasons)
        said: dict[str, bool] = {}
        for number in standing.open:
            gate = self._gates[number]
            reason, text = gate.closed(asked), gate.condition
            if reason is None and text is not None:
                if text not in said:
                    said[text] = self._conditions[text].holds(facts()) is True
                if not said[text]:
                    reason = "CouponRejectedByCondition"
            reasons[number] = reason
        return tuple(reasons)

    def _standing_at(self, now: datetime) -> "_Standing":
        since = now.replace(second=0, microsecond=0)
        until = since + _MINUTE
        for turn in self._turns:
            if turn <= now:
                since = max(since, turn)
            else:
                until = min(until, turn)
        reasons = tuple(gate.closed_at(now) for gate in self._gates)
        still = tuple(number for number, reason in enumerate(reasons) if reason is None)
        return _Standing(since, until, reasons, still)

    def _sort(self, reasons: _Reasons) -> "_Sorted":
        closed, rejected, still = [], [], []
        for one in self._items:
            reason = reasons[one.gate]
            if reason is None:
                still.append(one)
            else:
                closed.append(one.place)
                rejected.append(Rejected(one.offer.offer_id, reason))
        return _Sorted(tuple(still), tuple(closed), tuple(rejected))


class _Item(NamedTuple):
    """An offer at its place in the book, with the numbers of its gate and of its promise."""

    place: int
    offer: Offer
    targeted: bool
    gate: int
    promise: int


class _Sorted(NamedTuple):
    """Offers by whether their gate is open; `closed` are the places of those that are rejected."""

    open: tuple[_Item, ...]
    closed: tuple[int, ...]
    rejected: tuple[Rejected, ...]


class _Standing(NamedTuple):
    """What the clock closes from `since` to before `until`, and the numbers of the other gates."""

    since: datetime
    until: datetime
    reasons: _Reasons
    open: tuple[int, ...]


@dataclass(frozen=True)
class _Gate:
    """What closes offers to a checkout, whatever they take off.

    `targeted`: having one says something of who the shopper is, or it is chosen by that: then it is
    shown only where offers may be targeted. `in_money`: an amount is part of it, which means
    nothing in another currency. `placed`: where the shopper is counts, for their clock as well.
    """

    active: bool
    schedule: Schedule
    placed: bool
    targeted: bool
    first_order: bool
    tiers: LoyaltyTiers | None
    in_money: bool
    min_value: int | None
    condition: str | None

    @classmethod
    def of(cls, offer: Offer, book: OfferBook, conditions: Mapping[str, Expression]) -> Self:
        """Of `offer`, which is of `book`."""
        tiers = offer.discount if isinstance(offer.discount, LoyaltyTiers) else None
        reads = conditions[offer.condition].variables if offer.condition is not None else ()
        personal = any(name.startswith(_PERSONAL) for name in reads)
        # The caller's word about a first order, given for a user who is named, is about the order.
        targeted = bool(tiers) or personal or offer.first_order or not offer.unconditional
        return cls(
            *(offer.active, offer.schedule, offer.schedule.placed, targeted, offer.first_order),
            *(tiers, book.in_money(offer), offer.min_value, offer.condition),
        )

    @property
    def turns(self) -> tuple[datetime, ...]:
        """When it begins and when it is over, as far as that is said."""
        both = self.schedule.valid_from, self.schedule.valid_until
        return tuple(one for one in both if one is not None)

    def closed_at(self, now: datetime) -> RejectionReason | None:
        """Why it is closed to everybody at `now`."""
        if not self.active:
            return "CouponNotFound"
        if not self.schedule.begun(now):
            return "CouponStartDateInFuture"
        if self.schedule.over(now):
            return "CouponExpired"
        if not self.placed and not self.schedule.here_and_now(now, None):
            return "CouponPartOfNotRunningCampaign"
        return None

    def closed(self, asked: Asked) -> RejectionReason | None:
        """Why it is closed to this checkout, where it is not closed to everybody and its condition
        holds."""
        if self.placed and not self.schedule.here_and_now(asked.now, asked.context):
            return "CouponPartOfNotRunningCampaign"
        if self.targeted and not self._theirs(asked):
            return "CouponRecipientDoesNotMatch"
        value = asked.value
        right = (
            value is not None
            and (self.min_value is None or value >= self.min_value)
            and (not self.in_money or asked.currency == asked.catalogue_currency)
        )
        return None if right else "CouponRejectedByCondition"

    def _theirs(self, asked: Asked) -> bool:
        if not asked.may_target:
            return False
        if self.tiers is not None and settled(self.tiers, asked.orders) is None:
            return False
        # A history that is not there never makes somebody a first-time buyer, one that is there
        # tells that the caller is wrong.
        first = asked.first_order is True and asked.identified and not asked.orders
        return first or not self.first_order


class _Taken(NamedTuple):
    """What is taken off a cart: `amount` by itself, at most `most` with all that goes with it
    (None: there is no floor)."""

    discount: Discount
    amount: int
    most: int | None


@dataclass(frozen=True)
class _Promise:
    """A discount; `floor`: the share of the goods' value that must be left with it."""

    discount: AnyDiscount
    floor: float | None

    def taken(self, asked: Asked) -> _Taken | None:
        """What it takes off, where its gate is open; None where that is nothing, or more than its
        margin floor leaves."""
        discount, value = self.discount, asked.value
        if isinstance(discount, LoyaltyTiers):
            reached = settled(discount, asked.orders)
            assert reached is not None
            discount = reached
        assert value is not None
        price = asked.shipping_price(discount) if isinstance(discount, FreeShipping) else 0
        amount, most = reduction(discount, value, price), None
        if self.floor is not None:
            # Costs that nobody said keep no floor, so there is no saying that it would be kept.
            margin = asked.margin
            # Rounded first: .07 of 10 000 is a little more than 700 in binary.
            most = 0 if margin is None else margin - ceil(round(self.floor * value, 6))
        if amount <= 0 or (most is not None and amount > most):
            return None
        return _Taken(discount, amount, most)
