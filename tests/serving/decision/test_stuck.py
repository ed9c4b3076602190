"""Threads and models that do not come back: the answer is in time and from a lower rung."""

import threading
import time
from typing import Any

from contract.encoding import Encoded
from contract.manifest import QUERY_TOWER, SEQUENCE_ENCODER
from serving.decision.outcome import Decision
from serving.inference.backend import Outputs
from serving.inference.embedded import EmbeddedBackend, Session
from serving.inference.release import Release
from tests.serving.decision.setting import Forbidden, deciding, nobody, request, with_models
from tests.serving.release_factory import Factory


def is_sound(decision: Decision) -> bool:
    found = decision.response.recommendations
    return len({one.item_id for one in found}) == 5 and all(one.reasons for one in found)


class Stuck:
    """Keeps threads of a pool busy until told otherwise."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def block(self, pool: Any, threads: int) -> None:
        for _ in range(threads):
            pool._pool.submit(self.go.wait, 30)


async def test_stuck_threads_end_in_a_lower_rung_in_time(release: Release) -> None:
    stuck = Stuck()
    with deciding(release, Forbidden()) as decider:
        stuck.block(decider._workers, 2)
        began = time.perf_counter()
        decision = await decider.decide(request("item-1", deadline_ms=200), nobody())
        took = time.perf_counter() - began
        stuck.go.set()
    assert (decision.rung, decision.response.degraded) == ("session_knn", ("encode",))
    assert is_sound(decision)
    assert took < 0.2 + 2.0


async def test_when_every_thread_is_stuck_popular_items_remain(release: Release) -> None:
    stuck = Stuck()
    with deciding(release, Forbidden()) as decider:
        stuck.block(decider._workers, 2)
        stuck.block(decider._spare_worker, 1)
        decision = await decider.decide(request("item-1", deadline_ms=200), nobody())
        stuck.go.set()
    assert decision.rung == "popular"
    assert decision.response.degraded == ("encode", "session_knn")
    assert is_sound(decision)


class Hung(Session):
    """A model that does not come back."""

    def __init__(self, inner: Session, stuck: Stuck) -> None:
        self.inputs, self.outputs, self._session = inner.inputs, inner.outputs, inner._session
        self._stuck = stuck

    def infer(self, batch: Encoded) -> Outputs:
        self._stuck.go.wait(30)
        return super().infer(batch)


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
            assert slow.rung == "session_knn"  # one thread runs all models
            assert is_sound(slow)
        assert breaker.is_open
        quick = await decider.decide(request("item-1", deadline_ms=400), nobody())
        assert quick.response.timings_ms[QUERY_TOWER] == 0.0
        stuck.go.set()
    assert set(quick.response.degraded) == {QUERY_TOWER, SEQUENCE_ENCODER}
