"""Why an item is shown. A reason is given only where the evidence that the item was ranked with
says so, and what is personal is said only to who agreed to personalization. Which of them come
first follows from exact attributions of the ranker's score."""

from collections.abc import Collection
from functools import lru_cache

from contract.attribution import GROUPS
from contract.candidates import Evidence
from contract.cart_fit import strongest
from contract.items import Floats, Indices
from serving.decision import reason_texts as texts
from serving.decision.candidate_set import COLUMN, CandidateSet
from serving.decision.messages import Reason
from serving.inference.release import Release

MAX_REASONS = 2


_SHOP_CHOICE = Reason(code="shop_choice", text=texts.SHOP_CHOICE)
_BOUGHT_BEFORE = Reason(code="bought_before", text=texts.BOUGHT_BEFORE)
_SIMILAR_SHOPPERS = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS)
_SIMILAR_SHOPPERS_LOOKED = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS_LOOKED)
_SIMILAR_SHOPPERS_MODEL = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS_MODEL)
_YOUR_TASTE = Reason(code="your_taste", text=texts.YOUR_TASTE)
_POPULAR_NOW = Reason(code="popular_now", text=texts.POPULAR_NOW)
_EVIDENCE = [
    COLUMN[name] for name in ("baskets", "cart_similarity", "session_knn", "category_weight")
]
# Places of the kinds of evidence, in the order in which they are told where nothing was weighed.
_BOUGHT, _CART, _SHOPPERS, _TASTE, _POPULAR = range(len(GROUPS))
_NOTHING_SAID = [0.0] * len(GROUPS)


def owed(release: Release, shown: Floats) -> Floats | None:
    """What each kind of evidence adds to the ranker's score of the shown items, [S, G], for their
    pair features [S, F]; None where the release can not say. Raises InferenceFailed."""
    return None if release.explainer is None else release.explainer.attribute(shown)


def explain(
    release: Release,
    candidates: CandidateSet,
    places: Indices,
    *,
    personal: bool,
    owed: Floats | None = None,
    chosen: Collection[int] = (),
) -> list[tuple[Reason, ...]]:
    """One or two reasons for each of the candidates at `places`: what the evidence bears out and
    personalization allows to say, that which moved the score most before others. What is in
    `chosen`, by its index, the shop itself put there, which is said first.

    `owed` [S, G]: what each of `GROUPS` added to the scores; what lowered one is no reason for it.
    """
    index, said = candidates.listed.index[places], candidates.pairs[places][:, _EVIDENCE] > 0
    popular = release.is_popular[index].tolist()
    moved = [_NOTHING_SAID] * len(index) if owed is None else owed.tolist()
    told: list[tuple[Reason, ...]] = []
    for place, (bought, goes, shoppers, taste) in enumerate(said.tolist()):
        found: dict[int, Reason] = {}
        if personal and bought:
            found[_BOUGHT] = _BOUGHT_BEFORE
        if goes:
            found[_CART] = _goes_with(release, candidates.evidence, int(index[place]))
        if shoppers:
            looked = len(candidates.evidence.looked) > 0
            found[_SHOPPERS] = _SIMILAR_SHOPPERS_LOOKED if looked else _SIMILAR_SHOPPERS
        if personal and taste:
            found[_TASTE] = _YOUR_TASTE
        if popular[place]:
            found[_POPULAR] = _POPULAR_NOW
        by_worth = sorted(found, key=moved[place].__getitem__, reverse=True)
        worth = [kind for kind in by_worth if moved[place][kind] >= 0] or by_worth[:1]
        said_of = [found[kind] for kind in worth]
        if int(index[place]) in chosen:
            said_of.insert(0, _SHOP_CHOICE)
        # Where only a model brought it: what the model knows it learned from other shoppers.
        told.append(tuple(said_of[:MAX_REASONS]) or (_SIMILAR_SHOPPERS_MODEL,))
    return told


def _goes_with(release: Release, evidence: Evidence, index: int) -> Reason:
    """Names the item, of the cart or looked at, that adds most to the item's similarity."""
    most = strongest(release.neighbours, evidence.intent, index)
    title = release.catalogue.title[int(evidence.intent[most])]
    return _goes_with_title(title, looked_at=most < len(evidence.looked))


@lru_cache(maxsize=4_096)  # shoppers put the same things into their carts
def _goes_with_title(title: str, *, looked_at: bool) -> Reason:
    if looked_at:
        text = texts.GOES_WITH_LOOKED_AT if title else texts.GOES_WITH_LOOKED_AT_UNTITLED
        return Reason(code="goes_with_looked_at", text=text.format(title=title))
    text = texts.GOES_WITH_CART if title else texts.GOES_WITH_CART_UNTITLED
    return Reason(code="goes_with_cart", text=text.format(title=title))
