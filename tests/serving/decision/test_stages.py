"""The parts between the stages, one by one."""

from pathlib import Path

import numpy as np

from contract import candidates, pair_features
from contract.clock import to_us
from contract.encoding import FIRST_ITEM, Situation
from contract.features import UNKNOWN, view
from serving.decision.admission import Admission
from serving.decision.candidate_set import SOURCE, Ranked, collect
from serving.decision.checkout import Answer, Checkout
from serving.decision.deadline import Deadline
from serving.decision.eligibility import Eligible
from serving.decision.outcome import SubjectContext
from serving.decision.retrieval import retrieve
from serving.inference.release import Release
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import CLOCK, KNOWN, PERSONAL, loaded, request
from tests.serving.release_factory import Factory

QUERY = np.eye(8, dtype=np.float32)[0]


def only(release: Release, *numbers: int) -> Eligible:
    mask = np.zeros(len(release.vocabulary), bool)
    mask[np.array(numbers, np.int64) + FIRST_ITEM] = True
    return Eligible(mask, len(numbers), False)


def brought(release: Release, may: Eligible, source: str) -> set[int]:
    situation = Situation(UNKNOWN, (), 0)
    found = retrieve(release, situation, may, {"query_tower": QUERY, "sequence": -QUERY})
    kept = found.listed.brought[:, SOURCE[source]]
    return set((found.listed.index[kept] - FIRST_ITEM).tolist())


def nearest_first(release: Release) -> list[int]:
    order = np.argsort(-(release.item_vectors[FIRST_ITEM:] @ QUERY))
    return [int(number) for number in order]


def test_every_eligible_item_is_found_where_the_quota_allows(release: Release) -> None:
    # Half of the items may be shown, and they are the farthest: a search that drops what may not
    # be shown sees few of them.
    far = nearest_first(release)[30:]
    assert brought(release, only(release, *far), "query_tower") == set(far)
    assert brought(release, only(release, *far), "sequence") == set(far)
    few = nearest_first(release)[-3:]
    assert brought(release, only(release, *few), "query_tower") == set(few)


def test_the_exact_scan_finds_the_nearest_in_order(release: Release) -> None:
    some = set(range(0, 60, 5))
    nearest = [number for number in nearest_first(release) if number in some]
    may = only(release, *some)
    for wanted in (4, 12):
        (found,) = release.index.exact(QUERY[None], may.mask, wanted)
        assert (found - FIRST_ITEM).tolist() == nearest[:wanted]


def test_what_a_stage_let_slip_is_stopped_at_the_end(release: Release) -> None:
    situation = Situation(UNKNOWN, (), 0)
    evidence = candidates.gather(situation, release.vocabulary, release.neighbours, None)
    nothing = only(release)
    found = collect(release, evidence, nothing, {"popular": np.array([2, 3, 4, 5])})
    ranked = Ranked(np.array([3, 1, 0]), np.array([0.9, 0.5, 0.1], np.float32))
    checked = Answer("full", found, ranked).checked(only(release, 1, 2))
    assert checked.ranked is not None
    assert found.listed.index[checked.ranked.places].tolist() == [3]
    assert checked.ranked.scores.tolist() == [0.5]
    assert Answer("full", found, ranked).checked(only(release, 50)).rung == "empty"


def test_only_consent_lets_this_page_into_the_situation(release: Release) -> None:
    asked = request("item-1", "item-2", "item-1", recent_items=["item-5"], search_terms=["milk"])
    place = Admission(1, 1).enter()
    for purposes, recent, terms in (
        (PERSONAL, ("item-5",), ("milk",)),
        (frozenset({"analytics", "offers"}), (), ()),
    ):
        subject = SubjectContext(None, purposes)
        checkout = Checkout(asked, subject, release, place, Deadline(100), 0)
        situation = checkout.situation({})
        assert (situation.recent_items, situation.search_terms) == (recent, terms)
        assert situation.cart == ("item-1", "item-2")
        assert situation.view is UNKNOWN


async def test_without_filters_the_candidates_are_those_of_training(
    tmp_path: Path, store: MemoryFeatureStore
) -> None:
    factory = Factory(tmp_path, num_items=2_000)
    factory.write()
    release = loaded(factory)
    release.models.close()
    history = view(await store.read(KNOWN), to_us(CLOCK.now()))
    cart = ("item-40", "item-41", "item-0", "item-7", "item-300")
    situation = Situation(history, cart, to_us(CLOCK.now()))
    vectors = {"query_tower": release.item_vectors[302], "sequence": release.item_vectors[9]}
    found = retrieve(release, situation, _all_but(release, cart), vectors)
    evidence = candidates.gather(
        situation,
        release.vocabulary,
        release.neighbours,
        release.knn,
        query_vector=vectors["query_tower"],
        sequence_vector=vectors["sequence"],
    )
    nearest = {
        name: np.argsort(-(release.item_vectors[FIRST_ITEM:] @ vector), kind="stable")[:80]
        + FIRST_ITEM
        for name, vector in vectors.items()
    }
    sources = candidates.sources_of(evidence, release.popular) | nearest
    merged = candidates.merge(sources, evidence.cart)
    assert found.listed.index.tolist() == merged.index.tolist()
    assert (found.listed.brought == merged.brought).all()
    pairs = pair_features.pair_features(evidence, merged.index, release.table, release.item_vectors)
    assert np.array_equal(found.pairs, pairs)


def _all_but(release: Release, cart: tuple[str, ...]) -> Eligible:
    mask = np.ones(len(release.vocabulary), bool)
    mask[:FIRST_ITEM] = False
    mask[release.vocabulary.indices(cart)] = False
    return Eligible(mask, int(mask.sum()), False)


def test_popular_items_join_where_sources_name_the_cart_alone(release: Release) -> None:
    situation = Situation(UNKNOWN, ("item-20", "item-21"), 0)
    evidence = candidates.gather(situation, release.vocabulary, release.neighbours, None)
    sources = {"neighbours": evidence.cart}
    found = collect(release, evidence, only(release, 3, 50, 51), sources)
    assert (found.listed.index - FIRST_ITEM).tolist() == [3, 50, 51]
    assert len(collect(release, evidence, only(release, *range(20)), sources)) >= 5
