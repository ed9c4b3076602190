"""What the kernels of a decision cost alone: the models and the search of both towers' vectors in
batches of eight, as the engine asks for them, the session neighbourhood, and the view of a
subject's state."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.twin import live_manifest
from contract.candidates import knn_scores
from contract.encoding import FIRST_ITEM, stack
from contract.events import EVENT_TYPE
from contract.features import PURCHASES, view
from contract.index_entry import WANTED
from serving.inference.embedded import MAX_BATCH, EmbeddedBackend
from serving.inference.probe import probe_inputs
from serving.inference.release import Release, compute_single_threaded
from serving.inference.releases import load_release

SINGLE = "item search, one alone"
_ROUNDS = 200
_PURCHASES = 600  # of a shopper with a year's history


def kernel_ms(releases: Path, models: Path) -> dict[str, float]:
    """CPU milliseconds per decision of each kernel of the live release, the median of many runs
    with other data each. `SINGLE` is no part of their sum: the search as it is for one checkout
    that comes alone."""
    compute_single_threaded()
    release = load_release(releases, models, live_manifest(releases).release_id)
    try:
        return {
            **_models(release),
            "item search": _median(_batched_searches(release)) / MAX_BATCH,
            SINGLE: _median(_searches(release)),
            "session kNN": _median(_neighbourhoods(release)),
            "features": _median(_views(release)),
        }
    finally:
        release.models.close()


def _models(release: Release) -> dict[str, float]:
    assert isinstance(release.models, EmbeddedBackend)
    found = {}
    for name, inputs in probe_inputs(release).items():
        session = release.models.sessions[name]
        batch = stack([{tensor: inputs[tensor] for tensor in session.inputs}] * MAX_BATCH)
        found[name] = _median([lambda s=session, b=batch: s.infer(b)] * _ROUNDS) / MAX_BATCH  # type: ignore[misc]
    return found


def _batched_searches(release: Release) -> list[Callable[[], object]]:
    """As the engine does it for a batch of decisions: in one pass over the vectors."""
    rng = np.random.default_rng(3)
    dimension = release.item_vectors.shape[1]
    queries = rng.normal(size=(_ROUNDS, MAX_BATCH, 2, dimension)).astype(np.float32)
    masks = [release.catalogue.now.sellable(None)] * MAX_BATCH
    return [lambda q=one: release.index.nearest_each(q, masks, WANTED) for one in queries]  # type: ignore[misc]


def _searches(release: Release) -> list[Callable[[], object]]:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(_ROUNDS, 1, 2, release.item_vectors.shape[1])).astype(np.float32)
    masks = [release.catalogue.now.sellable(None)]
    return [lambda q=one: release.index.nearest_each(q, masks, WANTED) for one in queries]  # type: ignore[misc]


def _neighbourhoods(release: Release) -> list[Callable[[], object]]:
    rng = np.random.default_rng(1)
    carts = rng.choice(release.popular, (_ROUNDS, 8))
    return [lambda c=cart: knn_scores(release.knn, c) for cart in carts]  # type: ignore[misc]


def _views(release: Release) -> list[Callable[[], object]]:
    rng = np.random.default_rng(2)
    states = []
    for _ in range(_ROUNDS):
        rows = np.zeros(_PURCHASES, PURCHASES.kind.dtype)
        rows["occurred_us"] = np.sort(rng.integers(0, 365 * 86_400_000_000, _PURCHASES))
        rows["event_key"] = rows["occurred_us"] // 86_400_000_000
        rows["event_type"], rows["quantity"] = EVENT_TYPE["purchase"], 1
        index = rng.choice(len(release.vocabulary.item_ids), _PURCHASES) + FIRST_ITEM
        known, place = release.vocabulary.by_key
        rows["item_key"] = known[np.argsort(place)[index - FIRST_ITEM]]
        states.append({PURCHASES.name: rows})
    return [lambda s=state: view(s, 366 * 86_400_000_000) for state in states]  # type: ignore[misc]


def _median(runs: list[Callable[[], object]]) -> float:
    took = []
    for one in runs:
        began = time.thread_time()
        one()
        took.append(time.thread_time() - began)
    return statistics.median(took) * 1_000
