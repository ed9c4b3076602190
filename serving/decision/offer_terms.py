"""What bounds the choice among the valid offers: the pace of a day's budget, and how often somebody
is shown something."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from contract.offer_checks import Evaluation, Used
from serving.decision.offer_pacing import Pace
from serving.decision.offer_policy import may_be_judged
from serving.decision.offer_question import Question
from serving.state.group_writer import StoreError


@dataclass(frozen=True)
class Terms:
    """What bounds the policy at a checkout: the `pace` of the day's budget (None: there is no
    budget), whether the shopper was shown enough, and whether one of the two could not be said."""

    pace: Pace | None = None
    capped: bool = False
    unknown: bool = False

    @property
    def price(self) -> float:
        """Of spending one minor unit."""
        return 0.0 if self.pace is None else self.pace.price

    @property
    def closed(self) -> bool:
        """Whether the policy may show nothing."""
        return self.capped or self.unknown

    def record(self) -> dict[str, Any]:
        """For the decision's event."""
        pace = {} if self.pace is None else self.pace.record()
        return pace | {"capped": self.capped, "unknown": self.unknown}


FREE: Final = Terms()


@dataclass(frozen=True)
class Seen:
    """What the ledger says of the shopper: how often everything was used, by them too (None: that
    does not matter); whether they were shown enough; and whether nobody knows that."""

    uses: Mapping[str, Used] | None = None
    enough: bool = False
    unknown: bool = False


_NOTHING_SEEN: Final = Seen()


async def seen_of(question: Question, found: Evaluation) -> Seen:
    """What the ledger says of the shopper that bounds what they may have of what is valid. It is
    asked only where something may come of it. Raises StoreError where it does not say what was
    used."""
    held, checkout = question.held, question.checkout
    limited: list[str] = []
    if held.by_subject:
        limited = [one.offer.offer_id for one in found.valid if one.offer.limits.per_subject]
    # Only whom something may be chosen for is looked up.
    capped = (
        held.book.frequency_cap is not None
        and _chosen_among(found)
        and may_be_judged(checkout, question.state, held.book.explore_share)
    )
    if not limited and not capped:
        return _NOTHING_SEEN
    try:
        holder = question.holder()
        if holder is None:
            return _NOTHING_SEEN
        session_id = checkout.request.session_id if capped else None
        return Seen(*await question.shelf.seen(holder, limited, session_id, question.now))
    except StoreError:
        if limited:
            raise
        return Seen(unknown=True)


def terms_of(question: Question, found: Evaluation, seen: Seen) -> Terms | None:
    """What bounds the choice among what is valid; None where nothing does."""
    checkout, shelf, book = question.checkout, question.shelf, question.held.book
    bounded = book.daily_budget is not None or book.frequency_cap is not None
    if not bounded or not _chosen_among(found):
        return None
    pace, unknown = None, seen.unknown
    if book.daily_budget is not None:
        pace = shelf.pacing.pace(book.daily_budget, question.now)
        if pace is None and checkout.dry:  # of a draft nothing was spent
            pace = Pace.untouched(book.daily_budget, question.now)
        unknown = unknown or pace is None
    if unknown:
        checkout.deadline.degrade("pacing")
    if (unknown or seen.enough) and not checkout.dry:
        shelf.pacing.withheld("unknown" if unknown else "cap")
    return Terms(pace, seen.enough, unknown)


def _chosen_among(found: Evaluation) -> bool:
    """Whether there is something that is chosen, not given to whoever qualifies."""
    return any(not one.offer.unconditional for one in found.valid)


def affordable(found: Evaluation, usable: int) -> Evaluation:
    """Without what takes more off than is left of the day's budget for now."""
    return found.without(
        {
            one.offer.offer_id: "CampaignLimitReached"
            for one in found.valid
            if not one.offer.unconditional and one.amount > usable
        }
    )
