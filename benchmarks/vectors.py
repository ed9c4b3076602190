"""Vectors to search among, where no trained ones are at hand."""

import numpy as np

from contract.items import Floats

_DRAWN = 100_000  # rows at a time


def synthetic(items: int, dimension: int, queries: int, seed: int) -> tuple[Floats, Floats]:
    """Item vectors [items, dimension] and query vectors [queries, dimension], labelled synthetic.

    The shape is near that of two towers trained on a grocery catalogue of 26,270 items, and not
    easier to search: one axis, along which popular items lie apart from the rest, holds a fifth of
    the variance, and the others fall off slowly (standard deviation with rank^-0.1); lengths differ
    (log-normal, sigma 0.16).
    Items lie in clusters, as products lie in categories: half of the square root of their number,
    with sizes by Zipf's law (exponent 0.7) and 0.6 of the spread between them within. A query is
    drawn like an item, from the same clusters, so none equals an item.
    """
    rng = np.random.default_rng(seed)
    clusters = max(8, int(items**0.5 / 2))
    spread = ((1 + np.arange(dimension)) ** -0.1).astype(np.float32)
    spread[0] = np.sqrt(0.3 / 0.7 * (spread[1:] ** 2).sum())
    centres = rng.normal(size=(clusters, dimension)).astype(np.float32) * spread
    size = (1 + np.arange(clusters)) ** -0.7
    drawn = np.empty((items + queries, dimension), np.float32)
    for start in range(0, len(drawn), _DRAWN):
        part = drawn[start : start + _DRAWN]
        cluster = rng.choice(clusters, len(part), p=size / size.sum())
        noise = rng.standard_normal(part.shape, np.float32) * spread
        part[:] = centres[cluster] + np.float32(0.6) * noise
        length = rng.lognormal(0, 0.16, (len(part), 1)).astype(np.float32)
        part *= length / np.linalg.norm(part, axis=1, keepdims=True)
    return drawn[:items], drawn[items:]


def held_out(vectors: Floats, queries: int, seed: int) -> tuple[Floats, Floats]:
    """Some of `vectors` taken out as queries, and moved by a tenth of their length each, because a
    query is no item."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(vectors))
    asked = vectors[order[: min(queries, len(vectors) // 10)]]
    noise = rng.standard_normal(asked.shape, np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    noise *= np.float32(0.1) * np.linalg.norm(asked, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors[np.sort(order[len(asked) :])]), asked + noise
