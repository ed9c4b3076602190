"""Without personalization a decision knows the cart it carries, and nothing else about a person."""

import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from contract.pair_features import PAIR_FEATURES
from serving.decision.outcome import Decision, SubjectContext
from serving.inference.release import Release
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import (
    BOUGHT,
    KNOWN,
    Forbidden,
    deciding,
    known,
    nobody,
    request,
)
from tests.serving.release_factory import BUILT_AT, ranker_weight


def answered(decision: Decision) -> list[tuple[str, float]]:
    return [(one.item_id, one.score) for one in decision.response.recommendations]


@pytest.mark.parametrize("purposes", [(), ("analytics",), ("analytics", "offers")])
async def test_history_is_not_even_read(release: Release, purposes: tuple[str, ...]) -> None:
    subject = SubjectContext(KNOWN, frozenset(purposes))
    with deciding(release, Forbidden()) as decider:
        plain = await decider.decide(request("item-1"), subject)
        telling = await decider.decide(
            request("item-1", recent_items=["item-50", "item-51"], search_terms=["bread"]), subject
        )
        stranger = await decider.decide(request("item-1"), nobody())
    assert plain.response.degraded == ()
    assert answered(plain) == answered(telling) == answered(stranger)
    codes = {why.code for one in plain.response.recommendations for why in one.reasons}
    assert not codes & {"bought_before", "your_taste"}


async def test_with_personalization_history_and_this_page_count(
    release: Release, store: MemoryFeatureStore
) -> None:
    with deciding(release, store) as decider:
        decision = await decider.decide(request("item-1"), known())
        recent = await decider.decide(
            request("item-1", recent_items=["item-50", "item-51"]), known()
        )
        stranger = await decider.decide(request("item-1"), nobody())
    assert answered(decision) != answered(stranger)
    assert answered(decision) != answered(recent)


async def test_the_record_of_a_decision(release: Release, store: MemoryFeatureStore) -> None:
    with deciding(release, store) as decider:
        decision = await decider.decide(request("item-1"), known("analytics", "personalization"))
        plain = await decider.decide(request("item-1"), known("analytics"))
    body = decision.event_body()
    assert body["decision_id"] == str(decision.response.decision_id)
    assert (body["rung"], body["release_id"], body["cart"]) == ("full", "tiny-1", ["item-1"])
    shown = body["shown"]
    assert [(one["item_id"], one["score"]) for one in shown] == answered(decision)
    assert [one["index"] for one in shown] == [0, 1, 2, 3, 4]
    assert all(one["propensity"] == 1.0 for one in shown)
    assert all(len(one["pair_features"]) == len(PAIR_FEATURES) for one in shown)
    again = [one for one in shown if one["item_id"] in BOUGHT]
    assert all("bought_before" in one["reasons"] for one in again)
    assert any(one["pair_features"][0] > 0 for one in shown) == bool(again)
    # The ranker of the tiny release is linear: the features as recorded give the scores as served.
    weight = ranker_weight(7)[:, 0]
    for one in shown:
        assert np.dot(one["pair_features"], weight) == pytest.approx(one["score"], abs=1e-4)
    assert all("pair_features" not in one for one in plain.event_body()["shown"])
    for raw in ("raw-visitor", "raw-user", KNOWN):
        assert raw not in json.dumps(body)
        assert raw not in decision.response.model_dump_json()


async def test_nothing_is_recommended_where_nothing_was_asked(release: Release) -> None:
    with deciding(release, Forbidden()) as decider:
        decision = await decider.decide(
            request("item-1", placements=["offers", "payment"], payment_methods=["card"]), known()
        )
    response = decision.response
    assert (response.recommendations, response.offers) == ((), ())
    assert response.payment_method_order == ("card",)  # never fewer than the caller sent
    assert response.degraded == ()
    assert decision.event_body()["shown"] == []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_any_time_that_a_caller_sends_is_survived(release: Release, moment: str) -> None:
    context = {"occurred_at": datetime.fromisoformat(moment), "timezone": "America/New_York"}
    with deciding(release, Forbidden()) as decider:
        decision = await decider.decide(request("item-1", context=context), nobody())
    assert (decision.rung, decision.response.degraded) == ("full", ())


async def test_behaviour_counts_up_to_the_time_that_the_caller_says(
    release: Release, store: MemoryFeatureStore
) -> None:
    before = {"occurred_at": BUILT_AT - timedelta(days=100)}  # before the first purchase
    with deciding(release, store) as decider:
        early = await decider.decide(request("item-1", context=before), known())
        stranger = await decider.decide(request("item-1", context=before), nobody())
    assert answered(early) == answered(stranger)
