"""Ranking metrics against sets of targets. Every figure is a fraction from 0 to 1."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def hits(ranked: Numbers, targets: Sequence[Numbers]) -> npt.NDArray[np.bool_]:
    """Whether each ranked item is a target, [T, k]; `ranked` [T, k] holds -1 for nothing shown."""
    return np.array(
        [np.isin(row, wanted) for row, wanted in zip(ranked, targets, strict=True)], bool
    ).reshape(ranked.shape)


def per_case(ranked: Numbers, targets: Sequence[Numbers]) -> dict[str, Floats]:
    """HR, Recall and NDCG at k = ranked.shape[1], one value per case.

    HR: any hit. Recall: hits / targets. NDCG: binary gains, the ideal list has min(k, targets).
    """
    k = ranked.shape[1]
    hit = hits(ranked, targets)
    sizes = np.array([len(wanted) for wanted in targets])
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(sizes, k) - 1]
    return {
        f"HR@{k}": hit.any(axis=1).astype(np.float64),
        f"Recall@{k}": hit.sum(axis=1) / sizes,
        f"NDCG@{k}": (hit * discount).sum(axis=1) / ideal,
    }


def recall_split(
    ranked: Numbers, targets: Sequence[Numbers], seen: Sequence[Numbers]
) -> dict[str, Floats]:
    """Recall of the targets that the shopper had bought before (repeat) and had not (explore);
    one value for each case that has such targets."""
    k = ranked.shape[1]
    repeat: list[float] = []
    explore: list[float] = []
    for row, wanted, known in zip(ranked, targets, seen, strict=True):
        before = np.isin(wanted, known)
        for part, values in ((wanted[before], repeat), (wanted[~before], explore)):
            if len(part):
                values.append(float(np.isin(part, row).mean()))
    return {f"repeat Recall@{k}": np.array(repeat), f"explore Recall@{k}": np.array(explore)}
