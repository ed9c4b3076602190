"""The stage that now and then shows something else at the last places of a list, after the rules
and with its exact chances on record (contract.exploration). Only for who agreed to personalization
and to analytics: without the one nothing may be learned from it, without the other nothing is kept.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.assignment import place
from contract.exploration import POOL, ExploreSettings, draw_slots
from contract.lists import relevance
from serving.decision.candidate_set import Ranked
from serving.decision.checkout import Answer, Checkout
from serving.decision.outcome import SubjectContext, stable_id


@dataclass(frozen=True, eq=False)
class Explored:
    """The answer as it is shown, the chance of each item by its index where it was drawn, and what
    is logged of the draw."""

    answer: Answer
    chances: Mapping[int, float]
    record: dict[str, Any]


def beyond(settings: ExploreSettings, subject: SubjectContext) -> int:
    """How many items behind the last place are wanted for `subject`."""
    may = subject.personal and "analytics" in subject.purposes
    return POOL + settings.slots if settings.on and may else 0


def explored(
    checkout: Checkout, answer: Answer, ruled: Collection[int], settings: ExploreSettings
) -> Explored | None:
    """`answer`, which goes on behind its last place, with its last places drawn; None where nothing
    may be drawn. `ruled`: indices of the items that a rule put there.

    The draw is of the shopper and the cart, so a list does not change with every look at it; it is
    uniform over them, so the chances are exact.
    """
    ranked = answer.ranked
    if not checkout.beyond or answer.rung != "full" or ranked is None:
        return None
    index = answer.index.tolist()
    fixed = [one in ruled for one in index]
    # What a rule put there has no score of the ranker: it is no measure of the others.
    own = np.where(fixed, -np.inf, ranked.scores).astype(np.float32)
    likely = relevance(own).tolist() if not all(fixed) else [0.0] * len(index)
    request = checkout.request
    who = f"{stable_id(request, checkout.subject)}\0{request.cart.cart_id}"
    draws = [
        (place(f"explore/{slot}", who), place(f"explored/{slot}", who))
        for slot in range(settings.slots)
    ]
    shown, slots = draw_slots(likely, fixed, request.num_results, settings, draws)
    if not slots:
        return None
    item_id = checkout.release.vocabulary.item_id
    record = {
        "share": settings.share,
        "slots": [
            {
                "index": one.place,
                "usual": item_id(index[one.usual]),
                "pool": [item_id(index[at]) for at in one.pool],
            }
            for one in slots
        ],
    }
    drawn = answer.with_ranked(Ranked(ranked.places[shown], ranked.scores[shown]))
    return Explored(drawn, {index[one.shown]: one.propensity for one in slots}, record)
