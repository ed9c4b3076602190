"""The offers as decisions find them: the shop's book with its conditions compiled, and how often
each offer was used, both at most a moment old and in memory."""

import asyncio
import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Self

from contract.assignment import as_bytes, placer
from contract.clock import DAY_US, to_us
from contract.expressions import parse
from contract.offer_checks import NOT_USED, Used
from contract.offer_index import OfferIndex
from contract.offers import EMPTY_BOOK, OfferBook
from serving.decision.offer_pacing import OfferPacing
from serving.decision.offer_tokens import OfferSigner
from serving.state.coupon_holders import CouponHolders, Holder
from serving.state.coupon_ledger import CouponLedger
from serving.state.followed_document import FollowedDocument
from serving.state.group_writer import StoreError
from serving.state.pacing_records import PacingRecords

log = logging.getLogger(__name__)

DOCUMENT: Final = "offers"


@dataclass(frozen=True, eq=False)
class CompiledBook:
    """An OfferBook as checkouts find it. `counts`: whether how often something was used matters at
    all; `by_subject`: whether for an offer it does how often the shopper used it; `chooses`:
    whether there are offers, and none of them is `unconditional`."""

    book: OfferBook = EMPTY_BOOK
    index: OfferIndex = field(default_factory=OfferIndex)
    counts: bool = False
    by_subject: bool = False
    chooses: bool = False

    @classmethod
    def of(cls, book: OfferBook) -> Self:
        """With its conditions compiled, each once. Raises ExpressionRefused."""
        texts = {one.condition for one in book.offers if one.condition is not None}
        limits = [one.limits for one in book.offers]
        return cls(
            book,
            OfferIndex(book, {text: parse(text, "offer") for text in texts}),
            any(one.total is not None or one.budget is not None for one in limits),
            any(one.per_subject is not None for one in limits),
            bool(book.offers) and not any(one.unconditional for one in book.offers),
        )


def compiled(body: str) -> CompiledBook:
    """The document `body` as decisions use it. Raises ValueError."""
    return CompiledBook.of(OfferBook.model_validate_json(body))


@dataclass(frozen=True)
class _Draft:
    """A book that nobody has written yet."""

    current: CompiledBook
    version: int = 0


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
        records: PacingRecords,
        pacing: OfferPacing,
    ) -> None:
        """`salt` is a secret of the shop: nobody else can tell who is held out. `records` are those
        of `ledger`."""
        self._document: FollowedDocument[CompiledBook] | _Draft = document
        self._written = document
        self._ledger = ledger
        self._holders = holders
        self._salt = salt
        self.signer = signer
        self.token_life = token_life
        self.pacing = pacing
        self._records = records
        self.uses: Mapping[str, Used] = {}
        self._learning = asyncio.Lock()
        self._heard = self._learned = 0  # steps of coupons here, and those that are known by now

    @property
    def current(self) -> CompiledBook:
        """The offers."""
        return self._document.current

    @property
    def version(self) -> int:
        """Of the document that they are from; 0: there is none."""
        return self._document.version

    @property
    def waits(self) -> bool:
        """Whether something may have to be looked up for a checkout that takes a while."""
        asks = self.current.by_subject or self.current.book.frequency_cap is not None
        return asks and not self._ledger.looks_beside

    def follow_book(self) -> None:
        """Take over what was written by any gateway. Raises StoreError."""
        self._written.follow()

    def with_draft(self, draft: CompiledBook) -> "OfferShelf":
        """The same shelf as it would be with another book, to see what that would come to."""
        other = copy.copy(self)
        other._document = _Draft(draft)
        return other

    async def follow_uses(self, now: datetime) -> None:
        """Learn what was used. Raises StoreError; what was known goes on counting then, and the
        ledger itself refuses whatever is too much."""
        await self.pacing.follow(self.current.book, now)
        if self.current.counts:
            found = await self._ledger.used(now)
            if found != self.uses:  # what is worked out from them stands as long as they do
                self.uses = found

    async def hear_of_use(self, now: datetime) -> None:
        """A step of a coupon was taken here: let it count for the next decision, and not only when
        the ledger is looked at again. Of those that wait one looks for all. What can not be read
        now is learned later; the ledger itself refuses whatever is too much."""
        self._heard += 1
        wanted = self._heard
        async with self._learning:
            if self._learned >= wanted:
                return
            upto = self._heard
            try:
                await self.follow_uses(now)
            except StoreError:
                return
            self._learned = upto

    async def keep_pace(self, now: datetime) -> None:
        """Solve the price of spending if it is time. Raises StoreError."""
        book = self.current.book
        await self.pacing.work(book, now)
        if book.frequency_cap is not None:
            await self._records.forget_shown(to_us(now) - int(book.frequency_cap.days * DAY_US))

    def holder(self, subject_id: str) -> Holder:
        """Under which names stands what a subject used and was shown. Raises StoreError."""
        return self._holders.of(subject_id)

    def counts_showing(self, offer_ids: Iterable[str]) -> bool:
        """Whether showing these is one of the times that a shopper may be shown something."""
        book = self.current.book
        if book.frequency_cap is None:
            return False
        found = [book.find(one) for one in offer_ids]
        return any(one is not None and not one.unconditional for one in found)

    async def note_shown(self, subject_id: str, session_id: str, now: datetime) -> bool:
        """Put down that the shopper is shown an offer, durably; False where that is once too often:
        then it must not be. Raises StoreError."""
        cap = self.current.book.frequency_cap
        names = self._holders.of(subject_id).names_as_viewer
        if cap is None:
            return True
        if not names:
            return False
        now_us, seat = to_us(now), self._holders.seat(session_id)
        since_us = now_us - int(cap.days * DAY_US)
        return await self._records.show(names, seat, now_us, since_us, cap.times)

    async def seen(
        self, holder: Holder, limited: Iterable[str], session_id: str | None, now: datetime
    ) -> tuple[Mapping[str, Used], bool]:
        """What the ledger knows of the shopper, at one look: `uses`, with theirs of the offers
        `limited`; and whether they were shown as many offers as anybody may be, in other sessions
        than this one (None: that is not asked). Raises StoreError."""
        names = holder.names(limited)
        viewer = () if session_id is None else holder.names_as_viewer
        if not (viewer or any(names.values())):
            return self.uses, False
        found = await self._ledger.seen(names, viewer, now)
        uses = self.uses
        if found.uses:
            own = dict(uses)
            for offer_id, count in found.uses.items():
                before = own.get(offer_id, NOT_USED)
                own[offer_id] = Used(before.total, count, before.spent)
            uses = own
        cap = self.current.book.frequency_cap
        if cap is None or session_id is None or self._holders.seat(session_id) in found.shown:
            return uses, False
        return uses, not cap.holds(list(found.shown.values()), to_us(now))

    def draw(self, stable_id: str, now: datetime) -> float:
        """Where the shopper stands in 0 .. 1: below the book's `holdout_share` no offers are shown.
        The same all month, so that an offer does not come and go with every look at the cart."""
        return _placer(self._salt, now.year, now.month)(as_bytes(stable_id))


@lru_cache(maxsize=16)
def _placer(salt: str, year: int, month: int) -> Callable[[bytes], float]:
    return placer(f"{salt}/offers/{year}-{month:02}")
