"""Why an item is shown. A reason is given only where the evidence that the item was ranked with
says so, and what is personal is said only to who agreed to personalization."""

from collections.abc import Iterator

import numpy as np

from contract.items import Indices
from serving.decision import reason_texts as texts
from serving.decision.candidate_set import COLUMN, CandidateSet
from serving.decision.messages import Reason
from serving.inference.release import Release

MAX_REASONS = 2


def explain(
    release: Release, candidates: CandidateSet, place: int, *, personal: bool
) -> tuple[Reason, ...]:
    """One or two reasons for the candidate at `place`, the strongest kind first."""
    found = list(_true_reasons(release, candidates, place, personal=personal))[:MAX_REASONS]
    if not found:
        # Only a model brought it, and what the model knows it learned from other shoppers.
        found = [Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS_MODEL)]
    return tuple(found)


def _true_reasons(
    release: Release, candidates: CandidateSet, place: int, *, personal: bool
) -> Iterator[Reason]:
    index, pair = int(candidates.listed.index[place]), candidates.pairs[place]
    if personal and pair[COLUMN["baskets"]] > 0:
        yield Reason(code="bought_before", text=texts.BOUGHT_BEFORE)
    if pair[COLUMN["cart_similarity"]] > 0:
        yield _goes_with_cart(release, candidates.evidence.cart, index)
    if pair[COLUMN["session_knn"]] > 0:
        yield Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS)
    if personal and pair[COLUMN["category_weight"]] > 0:
        yield Reason(code="your_taste", text=texts.YOUR_TASTE)
    if release.is_popular[index]:
        yield Reason(code="popular_now", text=texts.POPULAR_NOW)


def _goes_with_cart(release: Release, cart: Indices, index: int) -> Reason:
    """Names the cart item that adds most to the item's similarity."""
    near = release.neighbours.neighbours[cart] == index
    share = np.where(near, release.neighbours.similarity[cart], 0.0).sum(axis=1)
    title = release.catalogue.title[int(cart[int(np.argmax(share))])]
    text = texts.GOES_WITH_CART.format(title=title) if title else texts.GOES_WITH_CART_UNTITLED
    return Reason(code="goes_with_cart", text=text)
