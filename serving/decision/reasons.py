"""Why an item is shown. A reason is given only where the evidence that the item was ranked with
says so, and what is personal is said only to who agreed to personalization."""

from contract.cart_fit import strongest
from contract.items import Indices
from serving.decision import reason_texts as texts
from serving.decision.candidate_set import COLUMN, CandidateSet
from serving.decision.messages import Reason
from serving.inference.release import Release

MAX_REASONS = 2


_BOUGHT_BEFORE = Reason(code="bought_before", text=texts.BOUGHT_BEFORE)
_SIMILAR_SHOPPERS = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS)
_SIMILAR_SHOPPERS_MODEL = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS_MODEL)
_YOUR_TASTE = Reason(code="your_taste", text=texts.YOUR_TASTE)
_POPULAR_NOW = Reason(code="popular_now", text=texts.POPULAR_NOW)
_EVIDENCE = [
    COLUMN[name] for name in ("baskets", "cart_similarity", "session_knn", "category_weight")
]


def explain(
    release: Release, candidates: CandidateSet, places: Indices, *, personal: bool
) -> list[tuple[Reason, ...]]:
    """One or two reasons for each of the candidates at `places`, the strongest kind first."""
    index, said = candidates.listed.index[places], candidates.pairs[places][:, _EVIDENCE] > 0
    popular = release.is_popular[index].tolist()
    told: list[tuple[Reason, ...]] = []
    for place, (bought, goes, shoppers, taste) in enumerate(said.tolist()):
        found: list[Reason] = []
        if personal and bought:
            found.append(_BOUGHT_BEFORE)
        if goes:
            found.append(_goes_with_cart(release, candidates.evidence.cart, int(index[place])))
        if shoppers:
            found.append(_SIMILAR_SHOPPERS)
        if personal and taste:
            found.append(_YOUR_TASTE)
        if popular[place]:
            found.append(_POPULAR_NOW)
        # Where only a model brought it: what the model knows it learned from other shoppers.
        told.append(tuple(found[:MAX_REASONS]) or (_SIMILAR_SHOPPERS_MODEL,))
    return told


def _goes_with_cart(release: Release, cart: Indices, index: int) -> Reason:
    """Names the cart item that adds most to the item's similarity."""
    title = release.catalogue.title[int(cart[strongest(release.neighbours, cart, index)])]
    text = texts.GOES_WITH_CART.format(title=title) if title else texts.GOES_WITH_CART_UNTITLED
    return Reason(code="goes_with_cart", text=text)
