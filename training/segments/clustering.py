"""K-means (FAISS) and hierarchical clustering (SciPy, Ward) of standardised behaviour.

Shapes: n shoppers, B figures, k clusters. All of it is a function of the vectors and the seed.
"""

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy

Vectors = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_ROUNDS, _STARTS = 100, 10
# Ward's method holds all distances: of more shoppers than this the tree is grown over
# micro-clusters.
MOST_LEAVES = 1_500
_MICRO_CLUSTERS = 300


def k_means(vectors: Vectors, k: int, seed: int) -> Vectors:
    """Centroids [k, B] of `vectors` [n, B], the best of several starts."""
    faiss.omp_set_num_threads(1)  # sums in one order: the same seed, the same centroids
    found = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=_ROUNDS,
        nredo=_STARTS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    found.train(np.ascontiguousarray(vectors, np.float32))
    return np.asarray(found.centroids, np.float64)


def nearest(vectors: Vectors, centroids: Vectors) -> Labels:
    """The nearest of `centroids` [k, B] to each of `vectors` [n, B]."""
    squares = (centroids**2).sum(1)
    labels: Labels = (squares - 2 * vectors @ centroids.T).argmin(1)
    return labels


@dataclass(frozen=True)
class Tree:
    """A hierarchy: SciPy's linkage over `leaves` [m, B], and the leaf of each shopper [n]."""

    linkage: Vectors  # [m - 1, 4]
    leaves: Vectors
    leaf_of: Labels

    def cut(self, k: int) -> Labels:
        """The cluster of each shopper where the tree is cut into k, [n]."""
        labels = hierarchy.fcluster(self.linkage, k, "maxclust").astype(np.int64) - 1
        return np.asarray(labels[self.leaf_of], np.int64)

    def height(self, k: int) -> float:
        """Where to cut the tree so that k clusters hang below."""
        heights = self.linkage[:, 2]
        return float(heights[-k] + heights[-k + 1]) / 2 if k > 1 else float(heights[-1]) + 1


def grown(vectors: Vectors, seed: int) -> Tree:
    """Ward's tree over `vectors`, or over micro-clusters of them where they are many."""
    leaves, leaf_of = vectors, np.arange(len(vectors))
    if len(vectors) > MOST_LEAVES:
        leaves = k_means(vectors, _MICRO_CLUSTERS, seed)
        leaf_of = nearest(vectors, leaves)
        held, leaf_of = np.unique(leaf_of, return_inverse=True)
        leaves = leaves[held]
    return Tree(hierarchy.linkage(leaves, "ward"), leaves, leaf_of.astype(np.int64))
