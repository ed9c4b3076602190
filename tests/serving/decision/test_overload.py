"""Above one limit a cheaper rung, above the next a refusal; places come back when work ends."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from contract.encoding import Encoded
from contract.features import SubjectState
from contract.manifest import RANKER
from serving.decision.admission import Admission, Overloaded
from serving.decision.decide import Decider
from serving.decision.limits import DecisionSettings
from serving.inference.backend import Outputs
from serving.inference.embedded import EmbeddedBackend, Session
from serving.inference.release import Release
from serving.monitoring.decisions import DecisionMetrics
from tests.serving.decision.setting import (
    Forbidden,
    Hung,
    Stuck,
    deciding,
    known,
    nobody,
    request,
    with_models,
)
from tests.serving.release_factory import Factory


class Held:
    """A feature store that answers when told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.reading = 0
        self.read_twice = asyncio.Event()

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        self.reading += 1
        if self.reading == 2:
            self.read_twice.set()
        await self.go.wait()
        return [{} for _ in subject_ids]


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


async def test_work_that_outlives_its_decision_keeps_its_place(
    release: Release, factory: Factory
) -> None:
    stuck = Stuck()
    held = with_models(release, factory, {})
    assert isinstance(held.models, EmbeddedBackend)
    held.models.sessions[RANKER] = Hung(held.models.sessions[RANKER], stuck)
    with deciding(held, Forbidden(), DecisionSettings(max_full=4, max_total=4)) as decider:
        decision = await decider.decide(request("item-1", deadline_ms=100), nobody())
        assert (decision.rung, decision.response.degraded) == ("no_ranker", ("ranker",))
        assert decider.admission.active == 1  # answered, but the thread is still taken
        decision = await decider.decide(request("item-1", deadline_ms=100), nobody())
        assert (decision.rung, decision.response.degraded) == ("session_knn", ("ranker",))
        assert decider.admission.active == 1  # what waited behind it was withdrawn
        stuck.go.set()
        while decider.admission.active:
            await asyncio.sleep(0.01)
        decision = await decider.decide(request("item-1", deadline_ms=1_000), nobody())
        assert decision.rung == "full"


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


class Slow(Session):
    """A model on a machine on which every item of a batch takes the same time."""

    def __init__(self, inner: Session, item_s: float) -> None:
        self.inputs, self.outputs, self._session = inner.inputs, inner.outputs, inner._session
        self._item_s = item_s

    def infer(self, batch: Encoded) -> Outputs:
        time.sleep(self._item_s * len(next(iter(batch.values()))))
        return super().infer(batch)


async def closed_loop(decider: Decider, clients: int, seconds: float) -> list[tuple[str, float]]:
    """Rung and duration in ms of every decision of `clients` that ask again once answered, or a
    moment after they were refused."""
    answers: list[tuple[str, float]] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            try:
                decision = await decider.decide(request("item-1", deadline_ms=100), nobody())
            except Overloaded:
                await asyncio.sleep(0.01)
                continue
            answers.append((decision.rung, (time.perf_counter() - began) * 1_000))
            await asyncio.sleep(0)

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def test_rising_load_sheds_and_full_answers_go_on(release: Release, factory: Factory) -> None:
    held = with_models(release, factory, {})
    assert isinstance(held.models, EmbeddedBackend)
    sessions = held.models.sessions
    sessions.update({name: Slow(inner, 0.003) for name, inner in sessions.items()})
    with deciding(held, Forbidden()) as decider:
        await closed_loop(decider, 1, 0.2)
        alone = await closed_loop(decider, 1, 1.0)
        crowd = await closed_loop(decider, 30, 1.0)
        after = await closed_loop(decider, 1, 0.2)
    full = [sum(rung == "full" for rung, _ in answers) for answers in (alone, crowd)]
    assert full[0] > 0
    assert full[1] > full[0] / 4  # about level; a collapse leaves a fiftieth
    # The rest is answered from lower rungs, as many as the machine has time for beside others.
    assert len(crowd) > 1.25 * full[1]
    durations = sorted(ms for _, ms in crowd)
    assert durations[len(durations) // 2] < 100
    assert durations[-1] < 100 + 900  # a collapse lets them wait for seconds
    assert not any(breaker.is_open for breaker in held.breakers.values())
    assert {rung for rung, _ in after} == {"full"}


async def test_a_shed_decision_does_not_wait_for_a_busy_thread(release: Release) -> None:
    go = threading.Event()
    with deciding(release, Forbidden(), DecisionSettings(max_full=0)) as decider:
        place = decider.admission.enter()
        with place:
            stuck = asyncio.create_task(decider._spare_worker.run(place, lambda: go.wait(30)))
            await asyncio.sleep(0)
            decision = await decider.decide(request("item-1"), nobody())
            go.set()
            await stuck
    assert (decision.rung, decision.response.degraded) == ("popular", ("overload",))


def test_shed_decisions_take_no_place_of_a_full_one() -> None:
    admission = Admission(max_full=1, max_total=4)
    first, shed = admission.enter(), admission.enter()
    assert admission.crowded
    first.drop()
    assert not admission.crowded
    again = admission.enter()
    assert (first.full, shed.full, again.full) == (True, False, True)
