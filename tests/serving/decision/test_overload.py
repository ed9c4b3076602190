"""Above one limit a cheaper rung, above the next a refusal; places come back when work ends."""

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry

from contract.features import SubjectState
from serving.decision.admission import Admission, Overloaded
from serving.decision.limits import DecisionSettings
from serving.inference.release import Release
from serving.monitoring.decisions import DecisionMetrics
from tests.serving.decision.setting import Forbidden, deciding, known, nobody, request


class Held:
    """A feature store that answers when told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.reading = 0
        self.read_twice = asyncio.Event()

    async def read(self, subject_id: str) -> SubjectState:
        self.reading += 1
        if self.reading == 2:
            self.read_twice.set()
        await self.go.wait()
        return {}


async def test_a_shed_decision_runs_no_model(release: Release) -> None:
    metrics = DecisionMetrics(CollectorRegistry())
    settings = DecisionSettings(max_full=0, max_total=5)
    with deciding(release, Forbidden(), settings, metrics=metrics) as decider:
        release.models.close()  # any model run would fail and be named
        decision = await decider.decide(request("item-1"), nobody())
    assert (decision.rung, decision.response.degraded) == ("session_knn", ("overload",))
    assert len(decision.response.recommendations) == 5
    assert metrics.registry.get_sample_value("tillwise_decisions_shed_total") == 1


async def test_one_full_one_shed_one_refused(release: Release) -> None:
    store, metrics = Held(), DecisionMetrics(CollectorRegistry())
    settings = DecisionSettings(max_full=1, max_total=2)
    with deciding(release, store, settings, metrics=metrics) as decider:
        tasks = [asyncio.create_task(decider.decide(request("item-1"), known())) for _ in range(2)]
        await store.read_twice.wait()
        with pytest.raises(Overloaded) as refused:
            await decider.decide(request("item-1"), known())
        assert refused.value.retry_after_s >= 1
        store.go.set()
        decisions = await asyncio.gather(*tasks)
        assert decider.admission.active == 0
        again = await decider.decide(request("item-1"), known())
    assert sorted(one.rung for one in decisions) == ["full", "session_knn"]
    assert again.rung == "full"
    assert metrics.registry.get_sample_value("tillwise_decisions_rejected_total") == 1


async def test_work_that_outlives_its_decision_keeps_its_place(release: Release) -> None:
    settings = DecisionSettings(max_full=4, max_total=4, threads=1)
    go, running = threading.Event(), threading.Event()

    def slow() -> None:
        running.set()
        go.wait(30)

    with deciding(release, Forbidden(), settings) as decider:
        place = decider.admission.enter()
        with place, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await decider._workers.run(place, slow)
        assert running.is_set()
        assert decider.admission.active == 1  # answered, but the thread is still taken
        decision = await decider.decide(request("item-1", deadline_ms=100), nobody())
        assert decision.response.degraded == ("encode",)
        # What it had queued behind the stuck thread was withdrawn with it.
        assert decider.admission.active == 1
        go.set()
        with decider.admission.enter() as next_place:
            await decider._workers.run(next_place, lambda: None)
        assert decider.admission.active == 0


def test_places_are_counted() -> None:
    admission = Admission(max_full=1, max_total=2)
    first, second = admission.enter(), admission.enter()
    assert (first.full, second.full) == (True, False)
    with pytest.raises(Overloaded):
        admission.enter()
    first.hold()
    first.drop()
    assert admission.active == 2
    first.drop()
    second.drop()
    assert admission.active == 0


@pytest.mark.parametrize(("max_full", "max_total"), [(2, 1), (-1, 1), (0, 0)])
def test_limits_must_make_sense(max_full: int, max_total: int) -> None:
    with pytest.raises(ValueError, match="limits"):
        Admission(max_full, max_total)
