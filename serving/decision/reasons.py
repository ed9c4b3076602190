"""Why an item is shown. A reason is given only where the evidence that the item was ranked with
says so, and what is personal is said only to who agreed to personalization. Which of them come
first follows from exact attributions of the ranker's score."""

from collections.abc import Collection

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
from serving.decision.delicate import DELICATE, is_delicate
from serving.decision.messages import Reason
from serving.decision.reason_texts import ENGLISH, Texts
from serving.inference.release import Release


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
    texts: Texts = ENGLISH,
) -> list[tuple[Reason, ...]]:
    """One or two reasons for each of the items `index` [S], by its pair features `pairs` [S, F] and
    what each of `GROUPS` `added` to its score [S, G] (None: nothing was weighed). What is in
    `chosen`, by its index, the shop itself put there, which is said first. Nothing is named that
    stands in a category with one of the `delicate` words."""
    kinds = kinds_told(
        *(pairs, added, index, release.is_popular, release.neighbours, evidence.intent),
        personal=personal,
    )
    plain = texts.by_code
    of_kind = {
        BOUGHT: plain["bought_before"],
        SHOPPERS: texts.of_looked if len(evidence.looked) else texts.of_cart,
        TASTE: plain["your_taste"],
        POPULAR: plain["popular_now"],
    }
    told: list[tuple[Reason, ...]] = []
    for item, (first, second, nearest) in zip(index.tolist(), kinds, strict=True):
        said = [plain["shop_choice"]] if item in chosen else []
        for kind in (first, second)[: MOST_TOLD - len(said)]:
            if kind == CART:
                named = _named(release, evidence, nearest, delicate)
                said.append(texts.goes_with(named, nearest < len(evidence.looked)))
            elif kind != NOTHING:
                said.append(of_kind[kind])
        # Where only a model brought it: what the model knows it learned from other shoppers.
        told.append(tuple(said) or (plain["similar_shoppers"],))
    return told


def _named(release: Release, evidence: Evidence, place: int, delicate: tuple[str, ...]) -> str:
    """What the item at `place` of the intent, of the cart or looked at, is called; empty where it
    may not be named."""
    item = int(evidence.intent[place])
    path = release.catalogue.category_path[item]
    return "" if is_delicate(path, delicate) else release.catalogue.title[item]
