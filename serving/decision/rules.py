"""The last stage of a decision: the merchant's rules, which win over every model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import numpy as np

from contract import pair_features
from contract.candidates import Candidates
from contract.encoding import OOV
from contract.features import SubjectState
from contract.items import Indices
from contract.offer_checks import ValidOffer, first_set
from contract.rule_apply import apply, offers_under
from contract.rule_draft import Draft, Note
from contract.rule_set import RuleSet
from contract.rules import Rule
from serving.decision.candidate_set import CandidateSet, Ranked
from serving.decision.checkout import Answer, Checkout
from serving.decision.facts import rule_facts
from serving.decision.messages import DecideRequest
from serving.decision.payment_shipping import Orders


@dataclass(frozen=True, eq=False)
class OnOffer:
    """What the checkout may be offered: the ids that were chosen, all offers that are valid, the
    `value` of the goods in minor units, and every set that chance might have `drawn`."""

    chosen: tuple[str, ...] = ()
    valid: Mapping[str, ValidOffer] = field(default_factory=dict)
    value: int = 0
    drawn: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(
        cls,
        valid: Sequence[ValidOffer],
        shown: Sequence[ValidOffer],
        drawn: Iterable[tuple[str, ...]],
        request: DecideRequest,
    ) -> Self:
        """Of what the offers' stage found."""
        return cls(
            tuple(one.offer.offer_id for one in shown),
            {one.offer.offer_id: one for one in valid},
            request.cart.value or 0,
            tuple(drawn),
        )


NO_OFFERS = OnOffer()


@dataclass(frozen=True, eq=False)
class Overridden:
    """The decision after the rules. `by`: the rule that put an item there, by its index; `under`:
    what of offers is given for whatever chance might have drawn, where rules change that; `failed`:
    rules whose condition could not be evaluated."""

    answer: Answer
    offers: tuple[str, ...] = ()
    payments: tuple[str, ...] = ()
    shipping: tuple[str, ...] = ()
    by: Mapping[int, str] = field(default_factory=dict)
    offers_by: Mapping[str, str] = field(default_factory=dict)
    under: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    applied: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    def record(self, version: int) -> dict[str, Any]:
        """For the decision's event."""
        return {
            "version": version,
            "applied": list(self.applied),
            "failed": list(self.failed),
            "notes": [[note.rule_id, note.text] for note in self.notes],
        }


def untouched(answer: Answer, orders: Orders, offers: tuple[str, ...] = ()) -> Overridden:
    """The decision without any rule; `offers` are those that were chosen."""
    return Overridden(answer, offers, orders.payment.ids, orders.shipping.ids)


def override(
    checkout: Checkout,
    answer: Answer,
    state: SubjectState | None,
    rules: RuleSet,
    now: datetime,
    before: Overridden,
    offers: OnOffer = NO_OFFERS,
) -> Overridden:
    """What `rules` make of the models' `answer`, `before` them, at the gateway's time `now`."""
    facts = rule_facts(checkout, state, answer, offers.chosen, rules.variables, now)
    matched = rules.matching(facts, now, checkout.context)
    if not matched.rules:
        return Overridden(
            answer, offers.chosen, before.payments, before.shipping, failed=matched.failed
        )
    release, request = checkout.release, checkout.request
    wanted = "recommendations" in request.placements and answer.candidates is not None
    drafted = release.vocabulary.ids(answer.index)
    draft = Draft(
        drafted,
        request.num_results + checkout.beyond if wanted else 0,
        *(offers.chosen, before.payments, before.shipping),
    )
    shop = _Shop(checkout, answer, offers, drafted)
    ruled = apply(matched.rules, draft, shop)
    index = release.vocabulary.indices(ruled.items)
    return Overridden(
        _with_items(checkout, answer, index),
        *(ruled.offers, ruled.payments, ruled.shipping),
        by={release.vocabulary.index(item): rule for item, rule in ruled.by.items()},
        offers_by=ruled.offers_by,
        under=_under(matched.rules, offers, shop),
        applied=ruled.applied,
        failed=matched.failed,
        notes=ruled.notes,
    )


def _under(
    rules: Sequence[Rule], offers: OnOffer, shop: "_Shop"
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """What is given for whatever might have been drawn, so that the chances that are logged are
    those of what is shown. Rules whose condition reads what was chosen are taken to hold alike."""
    if not offers.drawn:
        return {}
    found = offers_under(rules, offers.drawn, shop)
    return found if any(one != given for one, given in found.items()) else {}


@dataclass(frozen=True, eq=False)
class _Shop:
    """See contract.rule_draft.Shop."""

    checkout: Checkout
    answer: Answer
    offers: OnOffer
    drafted: Sequence[str]  # the ids of the answer's items

    def sellable(self, item_id: str) -> bool:
        index, may = self.checkout.release.vocabulary.index(item_id), self.answer.may
        return index != OOV and may is not None and bool(may.mask[index])

    def categories(self, item_ids: Iterable[str]) -> Iterable[Sequence[str]]:
        release = self.checkout.release
        path = release.catalogue.category_path
        # To look up the hundreds of ids of the draft would take longer than the rest of this.
        known = item_ids is self.drafted
        index = self.answer.index if known else release.vocabulary.indices(item_ids)
        return [path[place] for place in index.tolist()]

    def members(self, category: str, limit: int) -> Sequence[str]:
        release, may = self.checkout.release, self.answer.may
        if may is None:
            return ()
        best = may.of(release.best_in_category(category))[:limit]
        return release.vocabulary.ids(best)

    def may_give(self, offer_id: str) -> bool:
        return offer_id in self.offers.valid

    def go_together(self, offer_ids: Sequence[str]) -> bool:
        found = [self.offers.valid[one] for one in offer_ids if one in self.offers.valid]
        return len(first_set(found, self.offers.value)) == len(offer_ids)


def _with_items(checkout: Checkout, answer: Answer, index: Indices) -> Answer:
    """`answer` with exactly the items of `index`, in that order. One that no source brought gets
    its pair features now, so that what is logged is what is true of it."""
    found, ranked = answer.candidates, answer.ranked
    if found is None or ranked is None:
        return answer
    rank_of = {item: rank for rank, item in enumerate(answer.index.tolist())}
    ranks = np.array([rank_of.get(item, -1) for item in index.tolist()], np.int64)
    places, scores, away = ranked.places[ranks], ranked.scores[ranks], ranks < 0
    if away.any():
        new = index[away]
        places[away], scores[away] = len(found) + np.arange(len(new)), 0.0
        found = _joined(checkout, found, new)
    return Answer(answer.rung, found, Ranked(places, scores), answer.may)


def _joined(checkout: Checkout, found: CandidateSet, new: Indices) -> CandidateSet:
    release, listed = checkout.release, found.listed
    pairs = pair_features.pair_features(found.evidence, new, release.table, release.item_vectors)
    brought = np.zeros((len(new), listed.brought.shape[1]), bool)
    return CandidateSet(
        found.evidence,
        Candidates(np.concatenate((listed.index, new)), np.concatenate((listed.brought, brought))),
        np.concatenate((found.pairs, pairs)),
    )
