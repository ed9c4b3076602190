"""The parts between the stages, one by one."""

import numpy as np

from contract import candidates
from contract.encoding import FIRST_ITEM, Situation
from contract.features import UNKNOWN
from serving.decision.admission import Admission
from serving.decision.candidate_set import COLUMN, SOURCE, Ranked, collect
from serving.decision.checkout import Answer, Checkout
from serving.decision.deadline import Deadline
from serving.decision.eligibility import Eligible
from serving.decision.outcome import SubjectContext
from serving.decision.retrieval import retrieve
from serving.inference.release import Release
from tests.serving.decision.setting import PERSONAL, request

QUERY = np.eye(8, dtype=np.float32)[0]


def only(release: Release, *numbers: int) -> Eligible:
    mask = np.zeros(len(release.vocabulary), bool)
    mask[np.array(numbers) + FIRST_ITEM] = True
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


def test_the_exact_scan_agrees_with_the_index(release: Release) -> None:
    some = list(range(0, 60, 5))  # a share that is scanned, not searched
    may = only(release, *some)
    found = retrieve(release, Situation(UNKNOWN, (), 0), may, {"query_tower": QUERY})
    inner = found.pairs[:, COLUMN["query_tower"]]
    assert np.allclose(inner, release.item_vectors[found.listed.index] @ QUERY)
    assert set(found.listed.index.tolist()) == {number + FIRST_ITEM for number in some}


def test_what_a_stage_let_slip_is_stopped_at_the_end(release: Release) -> None:
    situation = Situation(UNKNOWN, (), 0)
    evidence = candidates.gather(situation, release.vocabulary, release.neighbours, None)
    found = collect(release, evidence, {"popular": np.array([2, 3, 4, 5])})
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
