"""Why an item is shown. A reason is given only where the evidence that the item was ranked with
says so, and what is personal is said only to who agreed to personalization. Which of them come
first follows from exact attributions of the ranker's score."""

from collections.abc import Collection, Sequence
from functools import lru_cache

from contract.attribution import GROUPS
from contract.candidates import Evidence
from contract.cart_fit import strongest
from contract.items import Floats
from serving.decision import reason_texts as texts
from serving.decision.candidate_set import COLUMN
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
_BASKETS, _SIMILARITY, _KNN, _WEIGHT = (
    COLUMN[name] for name in ("baskets", "cart_similarity", "session_knn", "category_weight")
)
# Places of the kinds of evidence, in the order in which they are told where nothing was weighed.
_BOUGHT, _CART, _SHOPPERS, _TASTE, _POPULAR = range(len(GROUPS))
_OF_KIND = {
    _BOUGHT: _BOUGHT_BEFORE,
    _SHOPPERS: _SIMILAR_SHOPPERS,
    _TASTE: _YOUR_TASTE,
    _POPULAR: _POPULAR_NOW,
}


def owed(release: Release, shown: Floats) -> Floats | None:
    """What each kind of evidence adds to the ranker's score of the shown items, [S, G], for their
    pair features [S, F]; None where the release can not say. Raises InferenceFailed."""
    return None if release.explainer is None else release.explainer.attribute(shown)


def explain(
    release: Release,
    evidence: Evidence,
    index: Sequence[int],
    pairs: Sequence[Sequence[float]],
    moved: Sequence[Sequence[float] | None],
    *,
    personal: bool,
    chosen: Collection[int] = (),
) -> list[tuple[Reason, ...]]:
    """One or two reasons for each of the items `index` [S], by its pair features `pairs` [S, F]:
    what the evidence bears out and personalization allows to say, that which moved the score most
    before others. What is in `chosen`, by its index, the shop itself put there, which is said
    first.

    `moved` [S, G]: what each of `GROUPS` added to the scores; what lowered one is no reason for it.
    None: nothing was weighed.
    """
    popular = release.is_popular
    told: list[tuple[Reason, ...]] = []
    for item, pair, added in zip(index, pairs, moved, strict=True):
        kinds = _borne_out(pair, personal=personal, popular=bool(popular[item]))
        if added is not None and len(kinds) > 1:
            kinds.sort(key=added.__getitem__, reverse=True)
            kinds = [kind for kind in kinds if added[kind] >= 0] or kinds[:1]
        said = [_SHOP_CHOICE] if item in chosen else []
        for kind in kinds[: MAX_REASONS - len(said)]:
            said.append(_reason(release, evidence, kind, item))
        # Where only a model brought it: what the model knows it learned from other shoppers.
        told.append(tuple(said) or (_SIMILAR_SHOPPERS_MODEL,))
    return told


def _borne_out(pair: Sequence[float], *, personal: bool, popular: bool) -> list[int]:
    """The kinds of evidence that there is for an item, in the order of `GROUPS`."""
    kinds = []
    if personal and pair[_BASKETS] > 0:
        kinds.append(_BOUGHT)
    if pair[_SIMILARITY] > 0:
        kinds.append(_CART)
    if pair[_KNN] > 0:
        kinds.append(_SHOPPERS)
    if personal and pair[_WEIGHT] > 0:
        kinds.append(_TASTE)
    if popular:
        kinds.append(_POPULAR)
    return kinds


def _reason(release: Release, evidence: Evidence, kind: int, item: int) -> Reason:
    if kind == _CART:
        return _goes_with(release, evidence, item)
    if kind == _SHOPPERS and len(evidence.looked) > 0:
        return _SIMILAR_SHOPPERS_LOOKED
    return _OF_KIND[kind]


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
