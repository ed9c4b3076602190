"""The shadow when the release on trial hangs: it finds out, and what it drops it does not call a
crash."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from contract.manifest import RANKER
from contract.rollout import Canary
from serving.decision.decide import Decider
from serving.decision.shadow import Shadow
from serving.inference.embedded import EmbeddedBackend
from serving.inference.release import Release
from serving.inference.releases import LiveRelease
from serving.monitoring.releases import SHADOW, ReleaseMetrics
from tests.serving.decision.setting import (
    CLOCK,
    SIGNER,
    Forbidden,
    Hung,
    Stuck,
    loaded,
    nobody,
    request,
    with_models,
)
from tests.serving.release_factory import BUILT_AT, Factory


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(f"tillwise_{name}_total", labels) or 0.0


async def test_a_model_that_hangs_in_the_shadow_is_found_out(
    release: Release, factory: Factory
) -> None:
    stuck, trial = Stuck(), with_models(loaded(factory), factory, {})
    assert isinstance(trial.models, EmbeddedBackend)
    trial.models.sessions[RANKER] = Hung(trial.models.sessions[RANKER], stuck)
    live = LiveRelease(Path("unused"), Path("unused"))
    live.use(release)
    live._candidate = trial
    live._canary = Canary(release_id="tiny-1", percent=100, shadow=True, started_at=BUILT_AT)
    registry = CollectorRegistry()
    decider = Decider(live, Forbidden(), CLOCK, SIGNER)
    metrics = ReleaseMetrics(registry)
    shadow = Shadow(live, Forbidden(), CLOCK, SIGNER, metrics, lambda: False)
    breaker = trial.breakers[RANKER]
    for _ in range(breaker.settings.failures):
        shown = await decider.decide(request("item-1", deadline_ms=200), nobody())
        assert shown.rung == "full"
        shadow.offer(shown)
        await shadow.drain()
    assert breaker.is_open
    assert counted(registry, "release_decisions", role=SHADOW, rung="full") == 0
    held = [shadow._decider.admission.enter() for _ in range(2)]  # left behind by others
    shadow.offer(shown)
    await shadow.drain()
    assert counted(registry, "shadow_dropped", why="busy") == 1
    assert counted(registry, "release_failed_decisions", role=SHADOW) == 5
    for place in held:
        place.drop()
    stuck.go.set()
    shadow.close()
    decider.close()
    live.close()
