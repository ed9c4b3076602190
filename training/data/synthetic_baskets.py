"""Made-up baskets for kinds of shoppers of whom there are few: half of one's basket with half of
another's of the same kind, at the time and with the history of the first."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
SPARSE = 0.05  # a stratum with a smaller share is sparse


def partners(stratum: Numbers, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`count` pairs of different positions with the same stratum, from the sparse strata alone and
    each of those as likely as another; none where no sparse stratum has two."""
    counts = np.bincount(stratum)
    sparse = np.flatnonzero((counts >= 2) & (counts < SPARSE * len(stratum)))
    if not len(sparse):
        return []
    members = {value: np.flatnonzero(stratum == value) for value in sparse.tolist()}
    pairs = []
    for value in rng.choice(sparse, count).tolist():
        own, other = rng.choice(members[value], 2, replace=False).tolist()
        pairs.append((own, other))
    return pairs


def recombined(own: Numbers, other: Numbers, rng: np.random.Generator) -> Numbers:
    """Half of each basket, rounded up, in one; items that both halves hold stand once."""
    halves = [rng.permutation(items)[: -(-len(items) // 2)] for items in (own, other)]
    both = np.unique(np.concatenate(halves))
    # Two halves may be the same single item; a basket of one cannot be taken apart.
    return both if len(both) >= 2 else own
