"""Query vectors that are kept: for exactly the same inputs of the same release, and nothing else of
an answer."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from contract.encoding import QUERY_TOWER_INPUTS, SEQUENCE_INPUTS, Encoded, Situation, encode
from contract.features import UNKNOWN
from contract.manifest import QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from serving.decision.limits import DecisionSettings
from serving.decision.vector_cache import VectorCache, VectorCaches, key_of
from serving.inference.embedded import EmbeddedBackend, Session
from serving.inference.release import Release
from serving.monitoring.decisions import DecisionMetrics
from tests.serving.decision.setting import Forbidden, deciding, nobody, request, with_models
from tests.serving.release_factory import Factory


class Counted(Session):
    """A model that counts what it is asked."""

    def __init__(self, name: str, inner: Session, asked: Counter[str]) -> None:
        self.inputs, self.outputs, self._session = inner.inputs, inner.outputs, inner._session
        self._name, self._asked = name, asked

    def infer(self, batch: Encoded) -> Any:
        self._asked[self._name] += 1
        return super().infer(batch)


class Overtaken(Session):
    """A model during which somebody is erased."""

    def __init__(self, inner: Session, caches: VectorCaches) -> None:
        self.inputs, self.outputs, self._session = inner.inputs, inner.outputs, inner._session
        self._caches = caches

    def infer(self, batch: Encoded) -> Any:
        self._caches.clear()
        return super().infer(batch)


def counted(release: Release, factory: Factory) -> tuple[Release, Counter[str]]:
    """The release, and how often each of its models ran."""
    held, asked = with_models(release, factory, {}), Counter[str]()
    assert isinstance(held.models, EmbeddedBackend)
    for name, inner in held.models.sessions.items():
        held.models.sessions[name] = Counted(name, inner, asked)
    return held, asked


async def test_the_same_question_asks_the_towers_once_and_every_answer_is_fresh(
    release: Release, factory: Factory
) -> None:
    held, asked = counted(release, factory)
    seen: list[tuple[str, bool]] = []
    with deciding(held, Forbidden()) as decider:
        decider.query_vectors.of(held)._on_look_up = lambda *told: seen.append(told)
        first = (await decider.decide(request("item-1"), nobody())).response
        again = (await decider.decide(request("item-1"), nobody())).response
        assert asked == {QUERY_TOWER: 1, SEQUENCE_ENCODER: 1, RANKER: 2}
        assert again.rung == "full"
        assert again.recommendations == first.recommendations
        assert again.decision_id != first.decision_id
        assert again.attribution_token != first.attribution_token
        assert QUERY_TOWER in again.timings_ms
        await decider.decide(request("item-2"), nobody())
        assert asked[QUERY_TOWER] == asked[SEQUENCE_ENCODER] == 2
    assert [held for _, held in seen] == [False, False, True, True, False, False]


async def test_what_is_held_needs_no_tower(release: Release, factory: Factory) -> None:
    held, _ = counted(release, factory)
    with deciding(held, Forbidden()) as decider:
        await decider.decide(request("item-1"), nobody())
        for name in (QUERY_TOWER, SEQUENCE_ENCODER):
            for _ in range(held.breakers[name].settings.failures):
                held.breakers[name].failed()
        made = await decider.decide(request("item-1"), nobody())
        assert (made.rung, made.response.degraded) == ("full", ())
        made = await decider.decide(request("item-2"), nobody())
        assert made.rung == "session_knn"


async def test_another_release_begins_with_nothing(release: Release, factory: Factory) -> None:
    caches = VectorCaches(8)
    other = with_models(release, factory, {})
    caches.of(release).put(b"key", np.ones(4, np.float32))
    assert caches.of(release).get(QUERY_TOWER, b"key") is not None
    assert caches.of(other).get(QUERY_TOWER, b"key") is None
    caches.clear()
    assert caches.of(release).get(QUERY_TOWER, b"key") is None
    other.models.close()


def test_what_was_under_way_when_all_was_cleared_is_not_held(release: Release) -> None:
    caches = VectorCaches(8)
    cache, before = caches.of(release), caches.generation
    caches.clear()
    cache.put(b"late", np.ones(4, np.float32), before)
    assert len(cache) == 0
    cache.put(b"fresh", np.ones(4, np.float32), caches.generation)
    assert len(cache) == 1


async def test_a_decision_that_an_erasure_overtakes_leaves_nothing(
    release: Release, factory: Factory
) -> None:
    held, asked = counted(release, factory)
    with deciding(held, Forbidden()) as decider:
        assert isinstance(held.models, EmbeddedBackend)
        held.models.sessions[QUERY_TOWER] = Overtaken(
            held.models.sessions[QUERY_TOWER], decider.query_vectors
        )
        assert (await decider.decide(request("item-1"), nobody())).rung == "full"
        assert len(decider.query_vectors.of(held)) == 0
        await decider.decide(request("item-1"), nobody())
        assert asked[SEQUENCE_ENCODER] == 2


async def test_no_room_at_all(release: Release, factory: Factory) -> None:
    held, asked = counted(release, factory)
    with deciding(held, Forbidden(), DecisionSettings(query_vectors=0)) as decider:
        for _ in range(3):
            await decider.decide(request("item-1"), nobody())
    assert asked[QUERY_TOWER] == 3


def test_only_models_whose_vectors_are_held_are_counted() -> None:
    metrics = DecisionMetrics(CollectorRegistry())
    metrics.vector_looked_up(QUERY_TOWER, True)
    (family,) = [one for one in metrics.registry.collect() if "query_vectors" in one.name]
    counted = {one.labels["model"] for one in family.samples}
    assert counted == {QUERY_TOWER, SEQUENCE_ENCODER}


def test_the_one_longest_not_asked_for_goes_first() -> None:
    cache = VectorCache(2)
    batch = np.arange(8, dtype=np.float32).reshape(2, 4)
    cache.put(b"a", batch[0])
    cache.put(b"b", batch[1])
    batch[:] = 0  # what is held is a copy
    held = cache.get(QUERY_TOWER, b"a")
    assert held is not None
    assert held.tolist() == [0, 1, 2, 3]
    cache.put(b"c", batch[0])
    assert cache.get(QUERY_TOWER, b"b") is None
    assert cache.get(QUERY_TOWER, b"a") is not None
    assert len(cache) == 2


@pytest.mark.parametrize(
    ("model", "name"),
    [(QUERY_TOWER, name) for name in QUERY_TOWER_INPUTS]
    + [(SEQUENCE_ENCODER, name) for name in SEQUENCE_INPUTS],
)
def test_every_bit_of_every_input_counts(release: Release, model: str, name: str) -> None:
    asked = encode(Situation(UNKNOWN, ("item-1",), 0), release.vocabulary)
    changed = {key: tensor.copy() for key, tensor in asked.items()}
    changed[name].view(np.uint8)[-1] ^= 1
    assert key_of(model, changed) != key_of(model, asked)
    assert key_of(model, {key: tensor.copy() for key, tensor in asked.items()}) == key_of(
        model, asked
    )
