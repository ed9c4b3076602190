"""Reasons are true to the evidence that an item was ranked with."""

from dataclasses import replace

import numpy as np
import pytest

from contract import candidates
from contract.attribution import GROUPS, SHARED
from contract.clock import to_us
from contract.encoding import FIRST_ITEM, Situation
from contract.features import UNKNOWN, view
from contract.items import Indices
from serving.decision import ranking
from serving.decision.candidate_set import COLUMN, CandidateSet, collect
from serving.decision.delicate import DELICATE, is_delicate
from serving.decision.eligibility import Eligible
from serving.decision.messages import Reason
from serving.decision.reasons import explain, owed
from serving.inference.embedded import EmbeddedBackend
from serving.inference.release import Release
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import CLOCK, KNOWN

# Enough other candidates that none has to be added.
PLENTY = (43, 44, 45, 46, 47)


def the(*numbers: int) -> Indices:
    return np.array(numbers, np.int64) + FIRST_ITEM


def explained(
    release: Release,
    found: CandidateSet,
    places: Indices,
    *,
    personal: bool,
    moved: list[float] | None = None,
) -> list[tuple[Reason, ...]]:
    index, pairs = found.listed.index[places], found.pairs[places]
    added = None if moved is None else np.array([moved] * len(index), np.float32)
    return explain(release, found.evidence, index, pairs, added, personal=personal)


def told(release: Release, found: CandidateSet, number: int, *, personal: bool) -> list[str]:
    place = int(np.searchsorted(found.listed.index, number + FIRST_ITEM))
    (reasons,) = explained(release, found, np.array([place]), personal=personal)
    return [why.code for why in reasons]


def candidate_set(release: Release, situation: Situation, *numbers: int) -> CandidateSet:
    evidence = candidates.gather(situation, release.vocabulary, release.neighbours, release.knn)
    everything = Eligible(np.ones(len(release.vocabulary), bool), len(release.vocabulary), False)
    return collect(release, evidence, everything, {"popular": the(*numbers, *PLENTY)})


async def test_what_was_bought_is_said_only_with_consent(
    release: Release, store: MemoryFeatureStore
) -> None:
    history = view(await store.read(KNOWN), to_us(CLOCK.now()))
    found = candidate_set(release, Situation(history, (), to_us(CLOCK.now())), 40, 52, 37)
    assert told(release, found, 40, personal=True) == ["bought_before", "your_taste"]
    assert told(release, found, 52, personal=True) == ["your_taste"]  # aisle 4, as item 40
    assert told(release, found, 37, personal=True) == ["similar_shoppers"]
    assert told(release, found, 40, personal=False) == ["similar_shoppers"]


def test_the_cart_item_that_says_most_is_named(release: Release) -> None:
    # Item 24 is the 4th neighbour of item 20 (1/5) and the 2nd of item 22 (1/3).
    found = candidate_set(release, Situation(UNKNOWN, ("item-20", "item-22"), 0), 24, 55)
    place = int(np.searchsorted(found.listed.index, 24 + FIRST_ITEM))
    reason = explained(release, found, np.array([place]), personal=False)[0][0]
    assert reason.code == "goes_with_cart"
    assert reason.text == "Often bought together with Item number 22."
    assert found.column("cart_similarity")[place] == pytest.approx(1 / 5 + 1 / 3)
    assert "goes_with_cart" not in told(release, found, 55, personal=False)


def test_what_is_delicate_is_not_named(release: Release) -> None:
    found = candidate_set(release, Situation(UNKNOWN, ("item-20", "item-22"), 0), 24, 55)
    places = np.array([int(np.searchsorted(found.listed.index, 24 + FIRST_ITEM))])
    index, pairs = found.listed.index[places], found.pairs[places]
    aisle = release.catalogue.category_path[22 + FIRST_ITEM][-1].lower()
    texts = {
        words: explain(
            *(release, found.evidence, index, pairs, None), personal=False, delicate=words
        )[0][0].text
        for words in ((), (aisle[:-1],), ("no such word",))
    }
    assert texts == {
        (): "Often bought together with Item number 22.",
        (aisle[:-1],): "Often bought together with an item in your cart.",
        ("no such word",): "Often bought together with Item number 22.",
    }


@pytest.mark.parametrize(
    ("path", "delicate"),
    [
        (("DRUG GM", "FAMILY PLANNING", "PROPHYLACTICS"), True),
        (("DRUG GM", "ADULT INCONTINENCE PADS"), True),
        (("DRUG GM", "COLD AND FLU", "COLD AND FLU - DXM"), True),
        (("Apotheke", "Feminine hygiene"), True),
        (("GROCERY", "COLD CEREAL", "ALL FAMILY CEREAL"), False),
        (("PRODUCE", "APPLES WEDGE/SLICES"), False),
        (("GROCERY", "FAMILY SIZE"), False),
        ((), False),
    ],
)
def test_words_of_health_and_body_are_delicate(path: tuple[str, ...], delicate: bool) -> None:
    assert is_delicate(path, DELICATE) == delicate


def test_what_was_looked_at_is_not_called_the_cart(release: Release) -> None:
    looked = Situation(UNKNOWN, ("item-20",), 0, recent_items=("item-22",))
    found = candidate_set(release, looked, 24, 55)
    place = int(np.searchsorted(found.listed.index, 24 + FIRST_ITEM))
    (reasons,) = explained(release, found, np.array([place]), personal=True)
    assert reasons[0].code == "goes_with_looked_at"
    assert reasons[0].text == "Often bought together with Item number 22, which you looked at."
    assert all("cart" not in why.text for why in reasons)


def test_popular_items_and_what_only_a_model_brought(release: Release) -> None:
    found = candidate_set(release, Situation(UNKNOWN, (), 0), 3, 50)
    assert told(release, found, 3, personal=False) == ["popular_now"]
    place = int(np.searchsorted(found.listed.index, 50 + FIRST_ITEM))
    (only_model,) = explained(release, found, np.array([place]), personal=False)
    assert [why.code for why in only_model] == ["similar_shoppers"]
    assert "similar cart" not in only_model[0].text  # there is no cart to be similar to


def test_at_most_two(release: Release) -> None:
    found = candidate_set(release, Situation(UNKNOWN, ("item-1", "item-2"), 0), *range(3, 12))
    lengths = set(map(len, explained(release, found, np.arange(len(found)), personal=True)))
    assert lengths <= {1, 2}
    assert 2 in lengths


async def test_what_moved_the_score_most_comes_first_and_what_lowered_it_is_no_reason(
    release: Release, store: MemoryFeatureStore
) -> None:
    history = view(await store.read(KNOWN), to_us(CLOCK.now()))
    found = candidate_set(release, Situation(history, (), to_us(CLOCK.now())), 40)
    places = np.searchsorted(found.listed.index, the(40))

    def first(**owed: float) -> list[str]:
        weighed = [owed.get(kind, 0.0) for kind in GROUPS]
        (told,) = explained(release, found, places, personal=True, moved=weighed)
        return [why.code for why in told]

    assert first(bought_before=2.0, your_taste=1.0) == ["bought_before", "your_taste"]
    assert first(bought_before=1.0, your_taste=2.0) == ["your_taste", "bought_before"]
    assert first(bought_before=1.0, your_taste=-0.1) == ["bought_before"]
    # Everything that can be said lowered the score: what did so least, rather than nothing.
    assert first(bought_before=-2.0, your_taste=-1.0) == ["your_taste"]
    # Nothing is said that the evidence does not bear out, whatever the ranker made of it.
    assert "goes_with_cart" not in first(goes_with_cart=9.0)


def test_the_shown_items_scores_are_taken_apart_exactly(release: Release) -> None:
    found = candidate_set(release, Situation(UNKNOWN, ("item-1",), 0), *range(3, 9))
    weighed = owed(release, found.pairs)
    assert weighed is not None
    usual = np.zeros((1, found.pairs.shape[1]), np.float32)
    usual[0, [COLUMN[name] for name in SHARED]] = found.pairs[0, [COLUMN[n] for n in SHARED]]
    assert isinstance(release.models, EmbeddedBackend)
    asked = [ranking.inputs(replace(found, pairs=pairs)) for pairs in (found.pairs, usual)]
    scores = [one["scores"] for one in release.models.infer("ranker", asked)]  # type: ignore[index]
    apart = scores[0][: len(found)] - scores[1][0]
    assert weighed.sum(axis=1) == pytest.approx(apart, abs=1e-4)
