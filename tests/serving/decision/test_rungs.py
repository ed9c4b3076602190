"""Every rung of the ladder, reached by really breaking the part above it."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from contract.features import SubjectState
from contract.item_index import ItemIndex
from contract.manifest import QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from contract.rule_set import RuleSet
from contract.rules import RuleBook
from serving.decision.decide import Decider
from serving.decision.limits import NoRules
from serving.decision.messages import DecideResponse
from serving.decision.outcome import Decision
from serving.inference.breaker import Breaker
from serving.inference.release import Release
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import (
    BOUGHT,
    Forbidden,
    deciding,
    known,
    nobody,
    request,
    with_models,
)
from tests.serving.inference.broken_models import failing, not_a_number
from tests.serving.release_factory import Factory


def ids(decision: Decision) -> list[str]:
    return [one.item_id for one in decision.response.recommendations]


def is_sound(decision: Decision, num_results: int = 5) -> bool:
    found = ids(decision)
    return len(set(found)) == num_results and all(
        one.reasons for one in decision.response.recommendations
    )


async def test_full(release: Release, store: MemoryFeatureStore) -> None:
    with deciding(release, store) as decider:
        decision = await decider.decide(request("item-1", "item-2"), known())
    assert (decision.rung, decision.response.degraded) == ("full", ())
    assert is_sound(decision)
    scores = [one.score for one in decision.response.recommendations]
    assert scores == sorted(scores, reverse=True)
    stages = {"features", "encode", "query_tower", "sequence_encoder", "retrieval", "ranker"}
    assert stages | {"total"} <= decision.response.timings_ms.keys()
    # It is made of parts that are known to be valid, so nobody checked them.
    said = decision.response
    assert DecideResponse.model_validate_json(said.model_dump_json()) == said
    assert list(said.model_dump()) == list(DecideResponse.model_fields)


async def test_an_empty_cart_of_an_unknown_shopper_is_still_full(release: Release) -> None:
    with deciding(release, Forbidden()) as decider:
        decision = await decider.decide(request(), nobody())
    assert (decision.rung, decision.response.degraded) == ("full", ())
    assert is_sound(decision)


@pytest.mark.parametrize("broken", [failing(RANKER, 8), not_a_number(8)], ids=["fails", "nan"])
async def test_no_ranker(
    release: Release, factory: Factory, store: MemoryFeatureStore, broken: bytes
) -> None:
    with deciding(with_models(release, factory, {RANKER: broken}), store) as decider:
        decision = await decider.decide(request("item-1"), known())
    assert (decision.rung, decision.response.degraded) == ("no_ranker", ("ranker",))
    assert is_sound(decision)
    assert set(BOUGHT) & set(ids(decision))  # the blend leans on what was bought before


@pytest.mark.parametrize("tower", [QUERY_TOWER, SEQUENCE_ENCODER])
async def test_one_silent_tower(release: Release, factory: Factory, tower: str) -> None:
    models = with_models(release, factory, {tower: failing(tower, 8)})
    with deciding(models, Forbidden()) as decider:
        decision = await decider.decide(request("item-1"), nobody())
    assert (decision.rung, decision.response.degraded) == ("no_ranker", (tower,))
    assert is_sound(decision)


def silent(release: Release, factory: Factory) -> Release:
    towers = {name: failing(name, 8) for name in (QUERY_TOWER, SEQUENCE_ENCODER)}
    return with_models(release, factory, towers)


async def test_session_knn_without_models(release: Release, factory: Factory) -> None:
    with deciding(silent(release, factory), Forbidden()) as decider:
        decision = await decider.decide(request("item-1"), nobody())
    assert decision.rung == "session_knn"
    assert set(decision.response.degraded) == {QUERY_TOWER, SEQUENCE_ENCODER}
    assert is_sound(decision)
    codes = {why.code for one in decision.response.recommendations for why in one.reasons}
    assert "goes_with_cart" in codes


async def test_session_knn_from_history_alone(
    release: Release, factory: Factory, store: MemoryFeatureStore
) -> None:
    with deciding(silent(release, factory), store) as decider:
        decision = await decider.decide(request(), known())
    assert decision.rung == "session_knn"
    assert set(BOUGHT) <= set(ids(decision))


async def test_session_knn_when_the_index_raises(release: Release) -> None:
    # A search with vectors of 8 dimensions is refused.
    other = ItemIndex(np.zeros((len(release.vocabulary), 3), np.float32))
    with deciding(dataclasses.replace(release, index=other), Forbidden()) as decider:
        decision = await decider.decide(request("item-1"), nobody())
    assert (decision.rung, decision.response.degraded) == ("session_knn", ("retrieval",))
    assert is_sound(decision)


async def test_popular(release: Release, factory: Factory) -> None:
    with deciding(silent(release, factory), Forbidden()) as decider:
        decision = await decider.decide(request(num_results=3), nobody())
    assert decision.rung == "popular"
    assert ids(decision) == ["item-0", "item-1", "item-2"]
    assert all(
        [why.code for why in one.reasons] == ["popular_now"]
        for one in decision.response.recommendations
    )


async def test_rules_choose_from_all_that_is_popular(release: Release, factory: Factory) -> None:
    first = [f"item-{number}" for number in range(45)]
    for kind, items, shown in (
        ("exclude", first, ["item-45", "item-46", "item-47", "item-48", "item-50"]),
        ("exclude", ["item-1"], ["item-0", "item-2", "item-3"]),
        ("pin", ["item-48"], ["item-48", "item-0", "item-1"]),
    ):
        actions = [{"kind": kind, "items": items}]
        book = RuleBook.model_validate({"rules": [{"id": "r", "actions": actions}]})
        rules = NoRules(RuleSet(book), 1)
        with deciding(silent(release, factory), Forbidden(), rules=rules) as decider:
            decision = await decider.decide(request(num_results=len(shown)), nobody())
        assert decision.rung == "popular"
        assert ids(decision) == shown
        assert decision.response.applied_rules


async def test_empty_when_nothing_may_be_shown(release: Release) -> None:
    with deciding(release, Forbidden()) as decider:
        decision = await decider.decide(
            request(filter={"include_categories": ["NO SUCH CATEGORY"]}), nobody()
        )
    assert (decision.rung, ids(decision)) == ("empty", [])


async def test_empty_when_nobody_can_say_what_may_be_shown(release: Release) -> None:
    broken: Any = None
    release.catalogue.now = broken
    with deciding(release, Forbidden()) as decider:
        decision = await decider.decide(request(), nobody())
    assert (decision.rung, decision.response.degraded) == ("empty", ("eligibility",))


class Hanging:
    """A feature store that never answers."""

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        await asyncio.Event().wait()
        raise AssertionError


class Failing:
    """A feature store that is down."""

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        raise ConnectionError("raw-visitor")


@pytest.mark.parametrize("store", [Hanging(), Failing()])
async def test_without_its_history_a_shopper_is_served_as_unknown(
    release: Release, store: Any
) -> None:
    with deciding(release, store) as decider:
        began = time.perf_counter()
        lost = await decider.decide(request("item-1", deadline_ms=300), known())
        took = time.perf_counter() - began
        unknown = await decider.decide(request("item-1"), nobody())
    assert (lost.rung, lost.response.degraded) == ("full", ("features",))
    assert ids(lost) == ids(unknown)
    assert took < 0.3 + 2.0


async def test_the_smallest_deadline_still_brings_an_answer(
    release: Release, store: MemoryFeatureStore
) -> None:
    with deciding(release, store) as decider:
        decision = await decider.decide(request("item-1", deadline_ms=1), known())
    assert is_sound(decision)


async def test_a_failing_model_is_left_alone_after_a_while(
    release: Release, factory: Factory
) -> None:
    broken = with_models(release, factory, {RANKER: failing(RANKER, 8)})
    with deciding(broken, Forbidden()) as decider:
        limit = broken.breakers[RANKER].settings.failures
        for _ in range(limit):
            assert not broken.breakers[RANKER].is_open
            await decider.decide(request("item-1"), nobody())
        assert broken.breakers[RANKER].is_open
        decision = await decider.decide(request("item-1"), nobody())
    assert decision.rung == "no_ranker"
    assert decision.response.timings_ms["ranker"] == 0.0  # not even tried


async def test_impatient_callers_do_not_open_the_breaker(
    release: Release, store: MemoryFeatureStore
) -> None:
    with deciding(release, store) as decider:
        for _ in range(30):
            await decider.decide(request("item-1", deadline_ms=1), known())
        decision = await decider.decide(request("item-1"), known())
    assert decision.rung == "full"
    assert not any(breaker.is_open for breaker in release.breakers.values())


async def test_a_cancelled_decision_gives_its_place_back(release: Release) -> None:
    with deciding(release, Hanging()) as decider:
        task = asyncio.create_task(decider.decide(request("item-1"), known()))
        await _until_active(decider, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert decider.admission.active == 0
    assert all(isinstance(one, Breaker) for one in release.breakers.values())


async def _until_active(decider: Decider, count: int) -> None:
    async with asyncio.timeout(10):
        while decider.admission.active != count:
            await asyncio.sleep(0)
