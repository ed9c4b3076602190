"""Query vectors: the query tower and the sequence encoder at once, each with its own fallback."""

import asyncio
from time import perf_counter

from contract.encoding import Encoded
from contract.items import Floats
from contract.manifest import QUERY_TOWER, SEQUENCE_ENCODER
from serving.decision.checkout import Checkout
from serving.decision.vector_cache import VectorCache
from serving.inference.backend import Outputs, finite

# Model -> (its output tensor, the source of candidates that its vector is).
SOURCES = {
    QUERY_TOWER: ("query_vector", "query_tower"),
    SEQUENCE_ENCODER: ("sequence_vector", "sequence"),
}


async def query_vectors(
    checkout: Checkout,
    encoded: Encoded,
    cache: VectorCache,
    budget_share: float,
    reserve_share: float,
) -> dict[str, Floats]:
    """The vectors [d] of the towers that answered, by source; both run at once."""
    release = checkout.release

    async def one(model: str, output: str) -> Floats | None:
        async def vector() -> Floats | None:
            return vector_of(await release.models.run(model, encoded), output)

        began = perf_counter()
        key, held = cache.ask(model, encoded)
        if held is not None:
            checkout.deadline.record([(model, began, perf_counter(), None)])
            return held
        fresh = await checkout.deadline.stage(
            model,
            checkout.share(budget_share),
            vector,
            None,
            reserve_ms=checkout.share(reserve_share),
            breaker=release.breakers[model],
        )
        if fresh is not None:
            cache.put(key, fresh, checkout.generation)
        return fresh

    found = await asyncio.gather(*(one(model, output) for model, (output, _) in SOURCES.items()))
    sources = [source for _, source in SOURCES.values()]
    return {name: one for name, one in zip(sources, found, strict=True) if one is not None}


def vector_of(outputs: Outputs, output: str) -> Floats:
    """The query vector [d] of a tower; raises InferenceFailed where it is not finite."""
    return finite(outputs, output)
