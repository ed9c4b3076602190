"""Clustered item vectors and queries, and the exact answers by plain numpy."""

from typing import Any

import numpy as np

from contract.encoding import FIRST_ITEM


def clustered(items: int, dimension: int = 16, queries: int = 200, seed: int = 0) -> Any:
    """(vectors [items, dimension], queries [queries, dimension]), of unit length."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(8, int(items**0.5)), dimension))
    at = centres[rng.integers(0, len(centres), items + queries)]
    drawn = at + 0.6 * rng.normal(size=at.shape)
    drawn = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return drawn[:items], drawn[items:]


def exact(vectors: Any, query: Any, wanted: int, mask: Any = None) -> list[int]:
    """Vocabulary indices of the `wanted` largest inner products among `mask` [items + 2]."""
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    if mask is not None:
        scores[~mask[FIRST_ITEM:]] = -np.inf
        wanted = min(wanted, int(mask[FIRST_ITEM:].sum()))
    return [int(row) + FIRST_ITEM for row in np.argsort(-scores, kind="stable")[:wanted]]


def found_share(found: Any, expected: list[list[int]]) -> float:
    """The mean share of each expected row that was found."""
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len(set(map(int, f)) & set(e)) / len(e) for f, e in pairs]))
