"""How well clusters hold: silhouette, adjusted Rand index, stability over bootstrap resamples."""

import numpy as np
from scipy.spatial.distance import cdist

from training.segments.clustering import Labels, Vectors, k_means, nearest

RESAMPLES = 10
# The silhouette compares everybody with everybody: of more than this many, a sample.
_MOST_COMPARED = 2_000


def silhouette(vectors: Vectors, labels: Labels, rng: np.random.Generator) -> float:
    """Mean over the shoppers of (b - a) / max(a, b): a the mean distance to the others of one's own
    cluster, b to the nearest other cluster; 0 for one alone in its cluster (Rousseeuw 1987)."""
    if len(vectors) > _MOST_COMPARED:
        drawn = rng.choice(len(vectors), _MOST_COMPARED, replace=False)
        vectors, labels = vectors[drawn], labels[drawn]
    clusters, own = np.unique(labels, return_inverse=True)
    if len(clusters) < 2:
        return 0.0
    members = np.eye(len(clusters))[own]  # [n, k]
    sizes = members.sum(0)
    total = cdist(vectors, vectors) @ members
    rows = np.arange(len(vectors))
    alone = sizes[own] == 1
    inside = total[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = total / sizes
    means[rows, own] = np.inf
    outside = means.min(1)
    wider = np.maximum(inside, outside)
    spread = (outside - inside) / np.where(wider == 0, 1.0, wider)
    return float(np.where(alone, 0.0, spread).mean())


def adjusted_rand(one: Labels, other: Labels) -> float:
    """Agreement of two partitions of the same shoppers, 1 for the same, about 0 by chance
    (Hubert and Arabie 1985)."""
    table = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(table, (one, other), 1)

    def pairs(counts: Vectors) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, of_one, of_other = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    every = len(one) * (len(one) - 1) / 2
    by_chance = of_one * of_other / every if every else 0.0
    most = (of_one + of_other) / 2
    return 1.0 if most == by_chance else (both - by_chance) / (most - by_chance)


def stability(vectors: Vectors, labels: Labels, k: int, seed: int) -> list[float]:
    """Of `RESAMPLES` bootstrap resamples: the adjusted Rand index between `labels` and the nearest
    centroids that the resample gives, over all shoppers."""
    rng = np.random.default_rng([seed, k])
    found = []
    for number in range(RESAMPLES):
        drawn = vectors[rng.integers(0, len(vectors), len(vectors))]
        found.append(adjusted_rand(labels, nearest(vectors, k_means(drawn, k, seed + number))))
    return found
