"""Threads and models that do not come back: the answer is in time and from a lower rung."""

import dataclasses
import time
from typing import Any

import pytest

from contract.encoding import Encoded
from contract.manifest import QUERY_TOWER
from serving.decision import engine, retrieval
from serving.decision.checkout import Checkout
from serving.decision.outcome import Decision
from serving.inference.backend import Outputs
from serving.inference.embedded import EmbeddedBackend
from serving.inference.release import STAGES, Release
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


class Elsewhere:
    """Models that are not this process's: the stages around them run on the workers."""

    remote, away = True, False

    def __init__(self, models: EmbeddedBackend) -> None:
        self._models = models

    async def run(self, model: str, inputs: Encoded) -> Outputs:
        return await self._models.run(model, inputs)

    def close(self, wait_s: float = 0.0) -> None:
        self._models.close(wait_s)


@pytest.mark.parametrize("stage", ["encode", "retrieval"])
async def test_a_stage_that_hangs_beside_a_model_server_is_left_alone_after_a_while(
    release: Release, factory: Factory, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    stuck = Stuck()
    held = with_models(release, factory, {})
    assert isinstance(held.models, EmbeddedBackend)
    held = dataclasses.replace(held, models=Elsewhere(held.models))
    breaker = held.breakers[stage]

    def hangs(*_: Any) -> Any:
        stuck.go.wait(30)
        raise AssertionError("nobody waits for this")

    asked = request("item-1", deadline_ms=400)
    with deciding(held, Forbidden()) as decider:
        assert (await decider.decide(asked, nobody())).rung == "full"
        if stage == "encode":
            monkeypatch.setattr(Checkout, "encoded", hangs)
        else:
            monkeypatch.setattr(retrieval, "retrieve", hangs)
        # Once every worker hangs, the stage before is late as well and may be the one left alone.
        for _ in range(breaker.settings.failures + decider.settings.threads):
            slow = await decider.decide(asked, nobody())
            assert slow.rung == "session_knn"
            assert slow.response.degraded in (("encode",), (stage,))
        assert any(held.breakers[one].is_open for one in STAGES)
        quick = await decider.decide(asked, nobody())
        stuck.go.set()
    (left_alone,) = quick.response.degraded
    assert quick.response.timings_ms[left_alone] == 0.0
    assert quick.rung == "session_knn"
