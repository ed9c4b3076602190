"""What bounds the choice among the valid offers: the pace of a day's budget, and how often somebody
is shown something."""

from dataclasses import dataclass
from typing import Any, Final

from contract.offer_checks import Evaluation
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


async def terms_of(question: Question, found: Evaluation) -> Terms | None:
    """What bounds the choice among what is valid; None where nothing does."""
    checkout, shelf, now = question.checkout, question.shelf, question.now
    book = shelf.current.book
    chosen = [one for one in found.valid if not one.offer.unconditional]
    if not chosen or (book.daily_budget is None and book.frequency_cap is None):
        return None
    pace, capped, unknown = None, False, False
    if book.daily_budget is not None:
        pace = shelf.pacing.pace(book.daily_budget, now)
        if pace is None and checkout.dry:  # of a draft nothing was spent
            pace = Pace.untouched(book.daily_budget, now)
        unknown = pace is None
    # Only whom something may be chosen for is looked up.
    if book.frequency_cap is not None and may_be_judged(
        checkout, question.state, book.explore_share
    ):
        try:
            holder, session_id = question.holder, checkout.request.session_id
            capped = holder is not None and await shelf.seen_enough(holder, session_id, now)
        except StoreError:
            unknown = True
    if unknown:
        checkout.deadline.degrade("pacing")
    if (unknown or capped) and not checkout.dry:
        shelf.pacing.withheld("unknown" if unknown else "cap")
    return Terms(pace, capped, unknown)


def affordable(found: Evaluation, usable: int) -> Evaluation:
    """Without what takes more off than is left of the day's budget for now."""
    return found.without(
        {
            one.offer.offer_id: "CampaignLimitReached"
            for one in found.valid
            if not one.offer.unconditional and one.amount > usable
        }
    )
