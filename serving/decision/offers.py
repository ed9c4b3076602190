"""The stage of a decision that offers something: what the checkout may have, what of it is shown,
and the tokens that hold the shop to it. It reserves nothing.

What the shop gives to whoever qualifies is shown to them. Of the others, an uplift network trained
on randomised decisions picks the one that is worth its price, or none; without one nobody knows
whom an offer would move, and none is shown but by chance, where the shop wants to learn. A day's
budget and how often somebody is shown something bound that choice. How likely somebody is to use a
coupon says nothing about that, and is never asked.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from contract.events import unchecked
from contract.features import SubjectState
from contract.offer_checks import Evaluation, Rejected, ValidOffer, after_uses, first_set
from contract.offers import Discount, FreeShipping, PercentOff
from serving.decision import messages
from serving.decision.checkout import Checkout
from serving.decision.messages import RejectedOffer
from serving.decision.offer_policy import UNKNOWN_GAIN, Judged, judged, may_be_judged
from serving.decision.offer_question import Question, evaluated
from serving.decision.offer_shelf import OfferShelf
from serving.decision.offer_terms import FREE, Terms, affordable, seen_of, terms_of
from serving.decision.offer_tokens import Grant
from serving.decision.outcome import stable_id
from serving.decision.reason_texts import Texts, of_offer

# Who chose among the valid offers: nobody, as everybody gets them; the network; chance alone.
Policy = Literal["unconditional", "uplift", "chance"]


class Offered(NamedTuple):
    """What came of it. `propensities`: how likely each valid offer was to be shown, by its id,
    those left out that could not be; `none`: how likely it was that nothing is."""

    valid: tuple[ValidOffer, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    shown: tuple[ValidOffer, ...] = ()
    propensities: Mapping[str, float] = MappingProxyType({})
    none: float = 1.0
    holdout: bool = False
    holdout_share: float = 0.0
    version: int = 0
    policy: Policy = "unconditional"
    explored: bool = False  # this one was drawn by chance, whatever a network says
    by: Mapping[str, str] = MappingProxyType({})  # the rule that gave an offer, by its id
    # What the network expects each to bring over none, minor units; by offer id.
    expected: Mapping[str, float] = MappingProxyType({})
    cost: Mapping[str, float] = MappingProxyType({})  # and to take off, likewise
    terms: Terms | None = None  # None: neither a budget nor a cap was asked about
    # Of the cart's goods, and what of it they leave without an offer; None: not known.
    value: int | None = None
    margin: int | None = None

    @property
    def shown_ids(self) -> tuple[str, ...]:
        """Of those that are shown."""
        return tuple([one.offer.offer_id for one in self.shown])

    @property
    def drawn(self) -> dict[tuple[str, ...], float]:
        """Every set that chance might have shown before the rules, and how likely each was."""
        likely = {one: p for one, p in self.propensities.items() if p > 0}
        sets: dict[tuple[str, ...], float] = {(): self.none}
        if self.policy != "unconditional":  # one of them, or none
            sets.update({(one,): p for one, p in likely.items()})
        elif likely:  # all of them together, or none
            sets[tuple(likely)] = 1.0 - self.none
        return sets

    def ruled(
        self,
        given: Iterable[str],
        by: Mapping[str, str],
        under: Mapping[tuple[str, ...], tuple[str, ...]],
    ) -> "Offered":
        """The same after rules, which `given` names what is shown by, `by` the rules that gave it,
        and `under` what would be given for all that might have been drawn (none: as it was)."""
        shown = tuple(given)
        found = {one.offer.offer_id: one for one in self.valid}
        ruled = self._replace(shown=tuple(found[one] for one in shown), by=dict(by))
        if not under:
            return ruled
        drawn = self.drawn
        likely = {
            one: sum(p for before, p in drawn.items() if one in under[before]) for one in found
        }
        none = sum(p for before, p in drawn.items() if not under[before])
        return ruled._replace(propensities=likely, none=none)

    def record(self) -> dict[str, Any]:
        """For the decision's event: what was possible, how likely, and what was shown."""
        shown = {one.offer.offer_id for one in self.shown}
        paced = {} if self.terms is None else {"pacing": self.terms.record()}
        return paced | {
            "policy": self.policy,
            "explored": self.explored,
            "version": self.version,
            "holdout": self.holdout,
            "holdout_share": self.holdout_share,
            "no_offer_propensity": self.none,
            "value": self.value,
            "margin": self.margin,
            "arms": [
                {
                    "offer_id": one.offer.offer_id,
                    "amount": one.amount,
                    "discount": _as_logged(one.discount),
                    "shown": one.offer.offer_id in shown,
                    "propensity": self.propensities.get(one.offer.offer_id, 0.0),
                    "expected_gain": self.expected.get(one.offer.offer_id),
                    "expected_cost": self.cost.get(one.offer.offer_id),
                }
                for one in self.valid
            ],
            "rules": dict(self.by),
            "rejected": [[one.offer_id, one.reason] for one in self.rejected],
        }


NOTHING: Final = Offered()


@lru_cache(maxsize=256)  # of the offers in force; nobody changes it
def _as_logged(discount: Discount) -> dict[str, Any]:
    return discount.model_dump(exclude_none=True)


async def consider(
    checkout: Checkout, state: SubjectState | None, shelf: OfferShelf, now: datetime
) -> Offered:
    """Which offers the checkout may have at `now`, and which of them it is shown. `state` None: no
    history could be read. Raises StoreError where the ledger does not say what was used."""
    question = Question(checkout, state, shelf, now)
    if not question.held.book.offers:
        return NOTHING
    # The cheap checks first, so that the ledger is asked only about what may come of it.
    found = evaluated(question)
    seen = await seen_of(question, found)
    if seen.uses is not None and seen.uses is not shelf.uses:
        found = after_uses(found, seen.uses)
    terms = terms_of(question, found, seen)
    if terms is not None and terms.pace is not None:
        found = affordable(found, terms.pace.usable)
    return _chosen(question, found, terms)


def _chosen(question: Question, found: Evaluation, terms: Terms | None) -> Offered:
    checkout, shelf = question.checkout, question.shelf
    book, value = question.held.book, question.value
    share, margin = book.holdout_share, question.margin if found.valid else None
    draw = shelf.draw(stable_id(checkout.request, checkout.subject), question.now)
    offered = Offered(
        valid=found.valid,
        rejected=found.rejected,
        holdout=draw < share,
        holdout_share=share,
        version=shelf.version,
        value=value,
        margin=margin,
        terms=terms,
    )
    would = first_set((one for one in found.valid if one.offer.unconditional), value or 0)
    if would:
        given = {one.offer.offer_id: 1.0 - share for one in would}
        return offered._replace(
            shown=() if offered.holdout else would,
            propensities=given,
            none=share,
        )
    state = question.state
    if state is None or not may_be_judged(checkout, state, book.explore_share):
        return offered
    paced, bounds = book.daily_budget is not None, terms or FREE
    best = None
    if not bounds.closed:
        best = judged(
            *(checkout, state, found.valid, margin, draw),
            *(share, book.explore_share, bounds.price),
            bonus=book.region_bonus.get(checkout.request.context.region or "", 0),
        )
    # The price is solved for decisions like this one.
    if paced and not (bounds.unknown or checkout.dry):
        gain, cost = ((), ()) if best is None else (best.gain[1:], best.cost[1:])
        shelf.pacing.note(gain, cost, question.now)
    return offered if best is None else _by_policy(offered, best)


def _by_policy(offered: Offered, best: Judged) -> Offered:
    chances, ids = best.choice.propensities, [one.offer.offer_id for one in best.offers]
    gains = zip(ids, best.gain[1:], strict=True)
    return offered._replace(
        shown=best.shown,
        propensities=dict(zip(ids, chances[1:], strict=True)),
        none=chances[0],
        policy="uplift" if best.known else "chance",
        explored=best.choice.by == "explore",
        expected={one: gain for one, gain in gains if gain != UNKNOWN_GAIN},
        cost=dict(zip(ids, best.cost[1:], strict=True)),
    )


def issued(
    checkout: Checkout,
    offered: Offered,
    shelf: OfferShelf,
    decision_id: UUID,
    now: datetime,
    texts: Texts,
) -> tuple[messages.Offer, ...]:
    """The offers that are shown, each with its token."""
    digest = checkout.request.cart.digest
    told = []
    for one in offered.shown:
        grant = _grant(checkout, one, digest, shelf, decision_id, now)
        told.append(_told_of(one, grant, texts.by_code[_why(offered, one.offer.offer_id)], shelf))
    return tuple(told)


def _why(offered: Offered, offer_id: str) -> messages.ReasonCode:
    return of_offer(offered.policy, explored=offered.explored, forced=offer_id in offered.by)


def _grant(
    checkout: Checkout,
    one: ValidOffer,
    digest: str,
    shelf: OfferShelf,
    decision_id: UUID,
    now: datetime,
) -> Grant:
    request, offer = checkout.request, one.offer
    end = offer.schedule.end_before(now + shelf.token_life, now, checkout.context)
    recipient = None
    if one.targeted:
        recipient = shelf.signer.recipient(decision_id, request.visitor_id, request.user_id)
    return Grant(
        *(decision_id, offer.offer_id, digest, one.discount, one.amount, request.cart.currency),
        expires_at=end.replace(microsecond=0),
        group=offer.group,
        recipient=recipient,
        # Said only where it matters: whoever holds the token can read it.
        most_in_all=None if offer.group is None else one.most_in_all,
    )


def _told_of(
    one: ValidOffer, grant: Grant, why: messages.Reason, shelf: OfferShelf
) -> messages.Offer:
    offer, discount = one.offer, one.discount
    off = {
        "kind": discount.kind,
        "amount": one.amount,
        "currency": grant.currency,
        "percent": discount.percent if isinstance(discount, PercentOff) else None,
        "shipping_ids": discount.shipping_ids if isinstance(discount, FreeShipping) else (),
    }
    told = {
        "offer_id": offer.offer_id,
        "title": offer.title,
        "discount": unchecked(messages.Discount, off),
        "offer_token": shelf.signer.sign(grant),
        "expires_at": grant.expires_at,
        "reasons": (why,),
    }
    return unchecked(messages.Offer, told)


def rejections(offered: Offered) -> tuple[RejectedOffer, ...]:
    """As the answer has them."""
    return _rejected(offered.rejected)


@lru_cache(maxsize=256)  # for most checkouts the same as for another
def _rejected(some: tuple[Rejected, ...]) -> tuple[RejectedOffer, ...]:
    return tuple(RejectedOffer(offer_id=one.offer_id, rejection_reason=one.reason) for one in some)
