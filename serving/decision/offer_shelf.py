"""The offers as decisions find them: the shop's book with its conditions compiled, and how often
each offer was used, both at most a moment old and in memory."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from contract.assignment import place
from contract.expressions import Expression, parse
from contract.offer_checks import Used
from contract.offers import EMPTY_BOOK, Offer, OfferBook
from serving.decision.offer_tokens import OfferSigner
from serving.state.coupon_holders import CouponHolders
from serving.state.coupon_ledger import CouponLedger
from serving.state.followed_document import FollowedDocument

log = logging.getLogger(__name__)

DOCUMENT: Final = "offers"
# What an expression reads here is about the shopper, not about the cart or the place.
_PERSONAL = ("shopper.", "segments")


@dataclass(frozen=True, eq=False)
class CompiledBook:
    """An OfferBook with the conditions of its offers, by offer id."""

    book: OfferBook = EMPTY_BOOK
    conditions: Mapping[str, Expression] = field(default_factory=dict)

    def is_personal(self, offer: Offer) -> bool:
        """Whether the condition of `offer` looks at the shopper."""
        condition = self.conditions.get(offer.offer_id)
        return condition is not None and any(
            name.startswith(_PERSONAL) for name in condition.variables
        )

    @property
    def counts(self) -> bool:
        """Whether how often something was used matters at all."""
        return any(
            one.limits.total is not None or one.limits.budget is not None
            for one in self.book.offers
        )


def compiled(body: str) -> CompiledBook:
    """The document `body` as decisions use it. Raises ValueError."""
    book = OfferBook.model_validate_json(body)
    return CompiledBook(
        book,
        {
            one.offer_id: parse(one.condition, "offer")
            for one in book.offers
            if one.condition is not None
        },
    )


class OfferShelf:
    """What is on offer now. `token_life`: how long a shown offer may be taken up."""

    def __init__(
        self,
        document: FollowedDocument[CompiledBook],
        ledger: CouponLedger,
        holders: CouponHolders,
        signer: OfferSigner,
        salt: str,
        token_life: timedelta,
    ) -> None:
        """`salt` is a secret of the shop: nobody else can tell who is held out."""
        self._document = document
        self._ledger = ledger
        self._holders = holders
        self._salt = salt
        self.signer = signer
        self.token_life = token_life
        self.uses: Mapping[str, Used] = {}

    @property
    def current(self) -> CompiledBook:
        """The offers."""
        return self._document.current

    @property
    def version(self) -> int:
        """Of the document that they are from; 0: there is none."""
        return self._document.version

    def follow_book(self) -> None:
        """Take over what was written by any gateway. Raises StoreError."""
        self._document.follow()

    async def follow_uses(self, now: datetime) -> None:
        """Learn what was used. Raises StoreError; what was known goes on counting then, and the
        ledger itself refuses whatever is too much."""
        if self.current.counts:
            self.uses = await self._ledger.used(now)

    async def uses_by(
        self, subject_id: str | None, offers: Iterable[Offer], now: datetime
    ) -> Mapping[str, Used]:
        """`uses`, with those of the shopper for `offers` that each may use so often only. Raises
        StoreError."""
        limited = [one for one in offers if one.limits.per_subject is not None]
        if subject_id is None or not limited:
            return self.uses
        names = self._holders.names(subject_id, [one.offer_id for one in limited])
        counted = await self._ledger.used_by(names, now)
        found = dict(self.uses)
        for offer_id, count in counted.items():
            before = found.get(offer_id, Used())
            found[offer_id] = Used(before.total, count, before.spent)
        return found

    def draw(self, stable_id: str, now: datetime) -> float:
        """Where the shopper stands in 0 .. 1: below the book's `holdout_share` no offers are shown.
        The same all month, so that an offer does not come and go with every look at the cart."""
        return place(f"{self._salt}/offers/{now:%Y-%m}", stable_id)
