"""Why an item is shown. A reason is given only where the evidence that the item was ranked with
says so, and what is personal is said only to who agreed to personalization. Which of them come
first follows from exact attributions of the ranker's score."""

from collections.abc import Collection
from functools import lru_cache

from contract.candidates import Evidence
from contract.evidence_told import (
    BOUGHT,
    CART,
    MOST_TOLD,
    NOTHING,
    POPULAR,
    SHOPPERS,
    TASTE,
    kinds_told,
)
from contract.items import Floats, Indices
from serving.decision import reason_texts as texts
from serving.decision.delicate import DELICATE, is_delicate
from serving.decision.messages import Reason
from serving.inference.release import Release

_SHOP_CHOICE = Reason(code="shop_choice", text=texts.SHOP_CHOICE)
_BOUGHT_BEFORE = Reason(code="bought_before", text=texts.BOUGHT_BEFORE)
_SIMILAR_SHOPPERS = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS)
_SIMILAR_SHOPPERS_LOOKED = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS_LOOKED)
_SIMILAR_SHOPPERS_MODEL = Reason(code="similar_shoppers", text=texts.SIMILAR_SHOPPERS_MODEL)
_YOUR_TASTE = Reason(code="your_taste", text=texts.YOUR_TASTE)
_POPULAR_NOW = Reason(code="popular_now", text=texts.POPULAR_NOW)
_OF_KIND = {
    BOUGHT: _BOUGHT_BEFORE,
    SHOPPERS: _SIMILAR_SHOPPERS,
    TASTE: _YOUR_TASTE,
    POPULAR: _POPULAR_NOW,
}
_OF_KIND_LOOKED = _OF_KIND | {SHOPPERS: _SIMILAR_SHOPPERS_LOOKED}


def owed(release: Release, shown: Floats) -> Floats | None:
    """What each kind of evidence adds to the ranker's score of the shown items, [S, G], for their
    pair features [S, F]; None where the release can not say. Raises InferenceFailed."""
    return None if release.explainer is None else release.explainer.attribute(shown)


def explain(
    release: Release,
    evidence: Evidence,
    index: Indices,
    pairs: Floats,
    added: Floats | None,
    *,
    personal: bool,
    chosen: Collection[int] = (),
    delicate: tuple[str, ...] = DELICATE,
) -> list[tuple[Reason, ...]]:
    """One or two reasons for each of the items `index` [S], by its pair features `pairs` [S, F] and
    what each of `GROUPS` `added` to its score [S, G] (None: nothing was weighed). What is in
    `chosen`, by its index, the shop itself put there, which is said first. Nothing is named that
    stands in a category with one of the `delicate` words."""
    kinds = kinds_told(
        *(pairs, added, index, release.is_popular, release.neighbours, evidence.intent),
        personal=personal,
    )
    of_kind = _OF_KIND_LOOKED if len(evidence.looked) else _OF_KIND
    told: list[tuple[Reason, ...]] = []
    for item, (first, second, nearest) in zip(index.tolist(), kinds, strict=True):
        said = [_SHOP_CHOICE] if item in chosen else []
        for kind in (first, second)[: MOST_TOLD - len(said)]:
            if kind == CART:
                said.append(_goes_with(release, evidence, nearest, delicate))
            elif kind != NOTHING:
                said.append(of_kind[kind])
        # Where only a model brought it: what the model knows it learned from other shoppers.
        told.append(tuple(said) or (_SIMILAR_SHOPPERS_MODEL,))
    return told


def _goes_with(
    release: Release, evidence: Evidence, place: int, delicate: tuple[str, ...]
) -> Reason:
    """Names the item at `place` of the intent, of the cart or looked at, where it may be named."""
    item = int(evidence.intent[place])
    path = release.catalogue.category_path[item]
    title = "" if is_delicate(path, delicate) else release.catalogue.title[item]
    return _goes_with_title(title, looked_at=place < len(evidence.looked))


@lru_cache(maxsize=4_096)  # shoppers put the same things into their carts
def _goes_with_title(title: str, *, looked_at: bool) -> Reason:
    if looked_at:
        text = texts.GOES_WITH_LOOKED_AT if title else texts.GOES_WITH_LOOKED_AT_UNTITLED
        return Reason(code="goes_with_looked_at", text=text.format(title=title))
    text = texts.GOES_WITH_CART if title else texts.GOES_WITH_CART_UNTITLED
    return Reason(code="goes_with_cart", text=text.format(title=title))
