"""How many segments there are: every number is tried, the figures decide."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from tqdm import tqdm

from contract.errors import UserError
from training.segments.clustering import Labels, Tree, Vectors, k_means, nearest
from training.segments.validity import adjusted_rand, silhouette, stability

MOST_SEGMENTS = 8
# Mean adjusted Rand index over resamples from which on clusters count as found again.
STABLE = 0.85
# From this silhouette on there are heaps to be found (Kaufman and Rousseeuw 1990), and the best
# silhouette says how many. Below, behaviour is a cloud, of which the silhouette would nearly always
# make two halves; there more segments say more, so the most are taken that still stand apart nearly
# as well as the best.
HEAPS = 0.5
OF_BEST_SILHOUETTE = 2 / 3
SMALLEST_SHARE = 0.02


@dataclass(frozen=True, eq=False)
class Tried:
    """A number of segments and how well it does."""

    k: int
    centroids: Vectors  # [k, B]
    labels: Labels  # [n]
    silhouette: float
    stability: tuple[float, ...]  # adjusted Rand index, one a resample
    hierarchical: float  # adjusted Rand index with the tree cut into as many
    hierarchical_silhouette: float

    @property
    def mean_stability(self) -> float:
        """Over the resamples."""
        return fmean(self.stability)

    @property
    def smallest(self) -> int:
        """Shoppers in the smallest segment."""
        return int(np.bincount(self.labels, minlength=self.k).min())


def tried(vectors: Vectors, tree: Tree, numbers: Sequence[int], seed: int) -> list[Tried]:
    """Each of `numbers` on standardised `vectors` [n, B]."""
    found = []
    for k in tqdm(numbers, desc="segments", unit="number", disable=None):
        centroids = k_means(vectors, k, seed)
        labels = nearest(vectors, centroids)
        hierarchical = tree.cut(k)
        found.append(
            Tried(
                k,
                centroids,
                labels,
                silhouette(vectors, labels, np.random.default_rng(seed)),
                tuple(stability(vectors, labels, k, seed)),
                adjusted_rand(labels, hierarchical),
                silhouette(vectors, hierarchical, np.random.default_rng(seed)),
            )
        )
    return found


def chosen(candidates: Sequence[Tried]) -> Tried:
    """Of the numbers that are `STABLE` and whose smallest segment is worth having: that of the best
    silhouette where there are `HEAPS`, else the largest that comes near the best silhouette. Where
    none is stable, the most stable.

    UserError where every number leaves a segment of next to nobody.
    """
    least = math.ceil(len(candidates[0].labels) * SMALLEST_SHARE)
    held = [one for one in candidates if one.smallest >= least]
    if not held:
        raise UserError(
            f"no number of segments from {candidates[0].k} to {candidates[-1].k} has "
            f"{SMALLEST_SHARE:.0%} of the shoppers in each; choose one with --clusters"
        )
    stable = [one for one in held if one.mean_stability >= STABLE]
    if stable:
        best = max(stable, key=lambda one: one.silhouette)
        if best.silhouette >= HEAPS:
            return best
        near = [o for o in stable if o.silhouette >= OF_BEST_SILHOUETTE * best.silhouette]
        return max(near, key=lambda one: one.k)
    return max(held, key=lambda one: one.mean_stability)
