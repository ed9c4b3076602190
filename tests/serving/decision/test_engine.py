"""Batches of decisions: every release has a thread of its own, and whatever becomes of it there is
an answer, and every place is given back."""

import asyncio
import dataclasses
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.manifest import RANKER
from contract.rollout import Canary
from serving.decision import ranking, reasons
from serving.decision.decide import Decider
from serving.inference.embedded import EmbeddedBackend
from serving.inference.release import Release
from serving.inference.releases import LiveRelease
from tests.serving.decision.setting import (
    CLOCK,
    SIGNER,
    Forbidden,
    Hung,
    Stuck,
    deciding,
    nobody,
    request,
    with_models,
)
from tests.serving.release_factory import BUILT_AT, Factory


def on_trial(release: Release, factory: Factory, stuck: Stuck) -> Release:
    """The release under another name, with a ranker that hangs."""
    held = with_models(release, factory, {})
    assert isinstance(held.models, EmbeddedBackend)
    held.models.sessions[RANKER] = Hung(held.models.sessions[RANKER], stuck)
    named = held.manifest.model_copy(update={"release_id": "trial"})
    return dataclasses.replace(held, manifest=named)


async def test_a_canary_that_hangs_takes_nothing_from_the_live_release(
    release: Release, factory: Factory
) -> None:
    stuck, held = Stuck(), with_models(release, factory, {})
    live = LiveRelease(Path("unused"), Path("unused"))
    live.use(held)
    live._candidate = on_trial(release, factory, stuck)
    live._canary = Canary(release_id="trial", percent=50, started_at=BUILT_AT)
    decider = Decider(live, Forbidden(), CLOCK, SIGNER)
    rungs: dict[str, list[str]] = {}
    for number in range(40):
        asked = request(
            "item-1",
            user_id=None,
            visitor_id=f"v{number}",
            session_id=f"s{number}",
            deadline_ms=1_000 if number % 2 else 200,
        )
        made = await decider.decide(asked, nobody())
        rungs.setdefault(made.response.release_id, []).append(made.rung)
        if len(rungs) == 2 and len(rungs["trial"]) > 3 and len(rungs["tiny-1"]) > 3:
            break
    stuck.go.set()
    assert set(rungs["tiny-1"]) == {"full"}
    assert "full" not in rungs["trial"]
    assert not any(breaker.is_open for breaker in held.breakers.values())
    decider.close()
    live.close()


async def test_what_comes_in_one_turn_of_the_loop_is_one_batch(
    release: Release, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = with_models(release, factory, {})
    assert isinstance(held.models, EmbeddedBackend)
    infer, sizes = held.models.infer_batch, []

    def counted(model: str, batch: Any) -> Any:
        sizes.append(len(batch["pair_features"]))
        return infer(model, batch)

    monkeypatch.setattr(held.models, "infer_batch", counted)
    with deciding(held, Forbidden()) as decider:
        asked = [
            decider.decide(request(f"item-{n}", deadline_ms=1_000), nobody()) for n in range(4)
        ]
        made = await asyncio.gather(*asked)
    assert [one.rung for one in made] == ["full"] * 4
    assert sizes == [4]


async def test_attributions_are_asked_for_once_for_all_of_a_batch(
    release: Release, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, owed, asked = with_models(release, factory, {}), reasons.owed, []

    def counted(release: Release, shown: Any) -> Any:
        asked.append((threading.current_thread().name, len(shown)))
        return owed(release, shown)

    monkeypatch.setattr(reasons, "owed", counted)
    with deciding(held, Forbidden()) as decider:
        some = [request(f"item-{n}", deadline_ms=1_000, num_results=n) for n in (1, 2, 5)]
        made = await asyncio.gather(*(decider.decide(one, nobody()) for one in some))
    assert asked == [("engine", 1 + 2 + 5)]
    for one in made:
        alone = owed(held, np.array([item.pair_features for item in one.shown], np.float32))
        assert alone is not None
        told = np.array([item.attributions for item in one.shown])
        np.testing.assert_allclose(told, alone, atol=1e-4)


async def test_what_fails_for_a_batch_is_asked_for_one_by_one(
    release: Release, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, owed = with_models(release, factory, {}), reasons.owed

    def failing(release: Release, shown: Any) -> Any:
        if threading.current_thread().name == "engine":
            raise ValueError
        return owed(release, shown)

    monkeypatch.setattr(reasons, "owed", failing)
    with deciding(held, Forbidden()) as decider:
        made = await decider.decide(request("item-1", deadline_ms=1_000), nobody())
    assert made.rung == "full"
    assert not made.response.degraded
    assert all(item.attributions for item in made.shown)


async def test_a_closed_engine_leaves_a_lower_rung(release: Release, factory: Factory) -> None:
    held = with_models(release, factory, {})
    with deciding(held, Forbidden()) as decider:
        await decider.decide(request("item-1"), nobody())
        decider._engines.close()
        made = await decider.decide(request("item-1"), nobody())
        assert decider.admission.active == 0
    assert (made.rung, made.response.degraded) == ("session_knn", ("encode",))


async def test_inputs_that_fail_are_told_and_do_not_jam_the_breaker(
    release: Release, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> Any:
        raise ValueError

    held = with_models(release, factory, {})
    breaker = held.breakers[RANKER]
    with deciding(held, Forbidden()) as decider:
        with monkeypatch.context() as patched:
            patched.setattr(ranking, "put", wrong)
            for _ in range(breaker.settings.failures):
                made = await decider.decide(request("item-1"), nobody())
                assert (made.rung, made.response.degraded) == ("no_ranker", (RANKER,))
            assert breaker.is_open
            breaker._open_until = 0.0  # cooled off: one may try, and fails
            await decider.decide(request("item-1"), nobody())
        breaker._open_until = 0.0
        made = await decider.decide(request("item-1"), nobody())
    assert made.rung == "full"


async def test_an_idle_engine_keeps_no_release_in_memory_and_ends_with_it(
    release: Release, factory: Factory
) -> None:
    held = with_models(release, factory, {})
    live = LiveRelease(Path("unused"), Path("unused"))
    live.use(held)
    decider = Decider(live, Forbidden(), CLOCK, SIGNER)
    await decider.decide(request("item-1"), nobody())
    thread, alive = decider._engines.of(held)._thread, weakref.ref(held)
    live.use(with_models(release, factory, {}))
    del held
    gc.collect()
    assert alive() is None
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    decider.close()
    live.close()


async def test_the_loop_waits_for_no_thread_to_begin_when_a_release_comes(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release brings two: the one that loads it and its engine."""
    begun, usual = dict[str, int](), threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        begun[thread.name] = threading.get_ident()
        usual(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    live = LiveRelease(factory.releases_dir, factory.models_dir)
    await live.load_or_keep("tiny-1")
    decider = Decider(live, Forbidden(), CLOCK, SIGNER)
    assert (await decider.decide(request("item-1"), nobody())).rung == "full"
    assert {"load-release", "engine"} <= begun.keys()
    assert threading.get_ident() not in (begun["load-release"], begun["engine"])
    decider.close()
    live.close()
