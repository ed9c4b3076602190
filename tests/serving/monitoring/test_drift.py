"""Drift of what a real gateway serves, from its own log, against a baseline in its release."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from contract import manifest
from contract.clock import FixedClock
from contract.drift import DriftLimits
from contract.drift_profile import Profile, baseline_of
from contract.manifest import ReleaseManifest, sha256
from contract.pair_features import PAIR_FEATURES, PAIR_FEATURES_VERSION
from contract.served import CART_VECTOR, LEAD, SCORE, Served
from serving.monitoring.drift import DriftWatch
from tests.serving.conftest import ALL, Running, Start
from tests.serving.release_factory import Factory
from tests.serving.state.control_places import in_sqlite
from tests.serving.state.test_reviews import NOW, found

DECISIONS = 60


def baseline(served: Served, score: float = 0.0, cart: float = 0.0) -> Profile:
    """What was served, its scores and carts moved."""
    rows = np.array(served.features)
    columns: dict[str, Any] = {name: rows[:, n] for n, name in enumerate(PAIR_FEATURES)}
    columns |= {SCORE: np.array(served.scores) + score, LEAD: np.array(served.leads)}
    return baseline_of(columns, DECISIONS, {CART_VECTOR: np.stack(served.carts) + cart})


def put(factory: Factory, release: str, profile: Profile) -> None:
    """Write the baseline into the release and seal it again."""
    folder = factory.releases_dir / release
    (folder / manifest.DRIFT_BASELINE).write_text(profile.model_dump_json())
    held = ReleaseManifest.model_validate_json((folder / manifest.MANIFEST).read_bytes())
    digest = sha256((folder / manifest.DRIFT_BASELINE).read_bytes())
    files = held.files | {manifest.DRIFT_BASELINE: digest}
    sealed = held.model_copy(update={"files": files}).sealed()
    (folder / manifest.MANIFEST).write_bytes(sealed.as_bytes())


def watching(running: Running, factory: Factory, path: Path) -> DriftWatch:
    control = running.gateway.control
    few = DriftLimits(min_units=DECISIONS)
    registry = CollectorRegistry()
    return DriftWatch(path, control, factory.releases_dir, running.clock, registry, few)


def looked(watch: DriftWatch) -> dict[str, Any]:
    """The findings of one look by key, without telling the store: a loop runs here already."""
    report = watch.report()
    assert report is not None
    return {one.key: one for one in watch.findings(*report)}


async def test_what_is_served_is_held_against_the_release(start: Start, tmp_path: Path) -> None:
    factory = Factory(tmp_path / "own")
    release = factory.write()
    running = await start(releases=factory.releases_dir, models=factory.models_dir)
    for number in range(DECISIONS):
        cart = [{"item_id": f"item-{number % 40}", "quantity": 1, "price": 101}]
        answer = await running.decide(
            visitor_id=f"visitor-{number % 30}",
            consent=ALL,
            cart={"cart_id": "c", "currency": "USD", "items": cart},
        )
        assert answer.json()["rung"] == "full"
    await running.quiet()
    vectors = factory.item_vectors()
    served = Served({factory.item_id(n): row for n, row in enumerate(vectors)})
    for event in running.logged():
        if event.event_name == "decision":
            served.add(event.decision)
    assert served.decisions == DECISIONS

    with closing(watching(running, factory, tmp_path / "none")) as watch:
        assert watch.follow(running.gateway.event_log) == DECISIONS
        assert watch.report() is None  # a release without a baseline

    put(factory, release, baseline(served))
    with closing(watching(running, factory, tmp_path / "same")) as watch:
        assert watch.follow(running.gateway.event_log) == DECISIONS
        assert watch.follow(running.gateway.event_log) == 0
        told = watch.report()
        assert told is not None
        assert told[1].units == DECISIONS
        assert max(one.psi for one in told[1].columns) < 0.02
        assert looked(watch) == {}

    spread = float(np.std(served.scores))
    put(factory, release, baseline(served, score=2 * spread, cart=1.0))
    with closing(watching(running, factory, tmp_path / "moved")) as watch:
        watch.follow(running.gateway.event_log)
        drifted = looked(watch)
        assert set(drifted) == {"drift/scores", "drift/vectors"}
        columns = drifted["drift/scores"].detail["columns"]
        assert [one["name"] for one in columns] == [SCORE]
        assert drifted["drift/scores"].detail["release"] == release

    path = factory.releases_dir / release / manifest.DRIFT_BASELINE
    path.write_bytes(path.read_bytes() + b" ")
    with closing(watching(running, factory, tmp_path / "changed")) as watch:
        watch.follow(running.gateway.event_log)
        assert watch.report() is None  # not what the manifest says


def test_a_look_becomes_review_items_that_end(tmp_path: Path) -> None:
    """Without a release nothing is found, and what was found before has ended."""
    clock = FixedClock(NOW)
    store = in_sqlite(tmp_path).open(clock=clock)
    try:
        asyncio.run(store.note_findings("drift", [found("drift/scores", source="drift")]))
        with closing(DriftWatch(tmp_path / "d", store, tmp_path / "none", clock)) as watch:
            assert watch.look() == []
        (review,) = store.reviews()
        assert review.ended_at == NOW
    finally:
        store.close()


@pytest.mark.parametrize(
    "changed",
    [
        {"rung": "popular"},
        {"pair_features_version": PAIR_FEATURES_VERSION + 1},
        {"shown": [{"item_id": "a", "score": 1.0}]},
        {"shown": [{"item_id": "a", "score": 1.0, "rule": "r", "pair_features": [0.0]}]},
        {"shown": None},
    ],
)
def test_only_what_the_ranker_said_with_features_counts(changed: Mapping[str, Any]) -> None:
    row = {"item_id": "a", "score": 1.0, "pair_features": [0.0] * len(PAIR_FEATURES)}
    body = {"rung": "full", "pair_features_version": PAIR_FEATURES_VERSION, "shown": [row]}
    served = Served()
    served.add(json.loads(json.dumps(body)))
    served.add(body | dict(changed))
    assert (served.decisions, len(served.features), served.leads) == (1, 1, [])
