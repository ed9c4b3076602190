"""Threads and models that do not come back: the answer is in time and from a lower rung."""

import time
from typing import Any

import pytest

from contract.manifest import QUERY_TOWER
from serving.decision import engine
from serving.decision.outcome import Decision
from serving.inference.embedded import EmbeddedBackend
from serving.inference.release import Release
from tests.serving.decision.setting import (
    Forbidden,
    Hung,
    Stuck,
    deciding,
    nobody,
    request,
    with_models,
)
from tests.serving.release_factory import Factory


def is_sound(decision: Decision) -> bool:
    found = decision.response.recommendations
    return len({one.item_id for one in found}) == 5 and all(one.reasons for one in found)


async def test_when_every_thread_is_stuck_popular_items_remain(
    release: Release, factory: Factory
) -> None:
    stuck = Stuck()
    held = with_models(release, factory, {})
    assert isinstance(held.models, EmbeddedBackend)
    held.models.sessions[QUERY_TOWER] = Hung(held.models.sessions[QUERY_TOWER], stuck)
    with deciding(held, Forbidden()) as decider:
        decider._spare_worker._pool.submit(stuck.go.wait, 30)
        began = time.perf_counter()
        decision = await decider.decide(request("item-1", deadline_ms=200), nobody())
        took = time.perf_counter() - began
        stuck.go.set()
    assert decision.rung == "popular"
    assert decision.response.degraded == (QUERY_TOWER, "session_knn")
    assert is_sound(decision)
    assert took < 0.2 + 2.0


async def test_a_model_that_hangs_is_left_alone_after_a_while(
    release: Release, factory: Factory
) -> None:
    stuck = Stuck()
    held = with_models(release, factory, {})
    assert isinstance(held.models, EmbeddedBackend)
    held.models.sessions[QUERY_TOWER] = Hung(held.models.sessions[QUERY_TOWER], stuck)
    breaker = held.breakers[QUERY_TOWER]
    with deciding(held, Forbidden()) as decider:
        for _ in range(breaker.settings.failures):
            slow = await decider.decide(request("item-1", deadline_ms=400), nobody())
            assert (slow.rung, slow.response.degraded) == ("session_knn", (QUERY_TOWER,))
            assert is_sound(slow)
        assert breaker.is_open
        quick = await decider.decide(request("item-1", deadline_ms=400), nobody())
        assert quick.response.timings_ms[QUERY_TOWER] == 0.0
        stuck.go.set()
    assert quick.response.degraded == (QUERY_TOWER,)


@pytest.mark.parametrize(
    ("stage", "of_the_engine"), [("encode", "_encode"), ("retrieval", "_retrieve")]
)
async def test_a_stage_that_hangs_is_left_alone_after_a_while(
    release: Release,
    factory: Factory,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    of_the_engine: str,
) -> None:
    stuck, usual = Stuck(), getattr(engine, of_the_engine)

    def hangs(work: Any) -> None:
        stuck.go.wait(30)
        usual(work)

    held = with_models(release, factory, {})
    breaker = held.breakers[stage]
    asked = request("item-1", deadline_ms=400)
    with deciding(held, Forbidden()) as decider:
        with monkeypatch.context() as patched:
            patched.setattr(engine, of_the_engine, hangs)
            for _ in range(breaker.settings.failures):
                slow = await decider.decide(asked, nobody())
                assert (slow.rung, slow.response.degraded) == ("session_knn", (stage,))
                assert is_sound(slow)
            assert breaker.is_open
            quick = await decider.decide(asked, nobody())
            assert quick.response.timings_ms[stage] == 0.0
            assert (quick.rung, quick.response.degraded) == ("session_knn", (stage,))
            stuck.go.set()
        for _ in range(500):  # until the thread has come back
            made = await decider.decide(request("item-1"), nobody())
            if made.rung == "full":
                break
        assert made.rung == "full"
        assert not breaker.is_open
