"""Real inferences before a release is trusted, and again for readiness: a model can have the right
hash and the right shape and still answer with NaN, and a first call is slower than all others."""

import asyncio
from collections.abc import Mapping

import numpy as np

from contract import candidates, pair_features
from contract.encoding import FIRST_ITEM, Encoded, Situation, encode, stack
from contract.features import UNKNOWN
from contract.manifest import MODELS, RANKER
from contract.pieces import between_pieces
from serving.inference.backend import InferenceFailed, finite
from serving.inference.embedded import MAX_BATCH, Session
from serving.inference.release import Release


def probe_inputs(release: Release) -> dict[str, Encoded]:
    """A plain checkout of an unknown shopper with two items, as inputs of every model."""
    cart = release.vocabulary.item_ids[:2]
    situation = Situation(UNKNOWN, cart, 0, rules=release.rules)
    encoded = encode(situation, release.vocabulary)
    evidence = candidates.gather(situation, release.vocabulary, release.neighbours, release.knn)
    index = np.arange(FIRST_ITEM, len(release.vocabulary))[: candidates.MAX_CANDIDATES]
    pairs = np.zeros((candidates.MAX_CANDIDATES, len(pair_features.PAIR_FEATURES)), np.float32)
    pairs[: len(index)] = pair_features.pair_features(
        evidence, index, release.table, release.item_vectors
    )
    ranked: Encoded = {"pair_features": pairs}
    return {name: ranked if name == RANKER else encoded for name in MODELS}


def warm_up(release: Release, sessions: Mapping[str, Session]) -> list[str]:
    """Problems found by running every model once for each batch size."""
    problems = []
    inputs = probe_inputs(release)
    for name, session in sessions.items():
        path = f"{name}/{release.manifest.model(name).version}/model.onnx"
        taken = {tensor: inputs[name][tensor] for tensor in session.inputs}
        try:
            for size in range(1, MAX_BATCH + 1):
                between_pieces()
                outputs = session.infer(stack([taken] * size))
                for entry in release.manifest.model(name).outputs:
                    found = finite(outputs, entry.name)
                    if found.shape != (size, *entry.shape):
                        raise InferenceFailed(f"output {entry.name} has shape {found.shape}")
        except InferenceFailed as error:
            problems.append(f"{path}: {error} on a probe input")
    return problems


async def probe(release: Release) -> None:
    """One real inference of every model over the live path; raises InferenceFailed."""
    # On a thread: it looks at every item, and checkouts go on meanwhile.
    inputs = await asyncio.to_thread(probe_inputs, release)
    for name in MODELS:
        outputs = await release.models.run(name, inputs[name])
        for entry in release.manifest.model(name).outputs:
            finite(outputs, entry.name)
