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
    sizes = np.array([len(wanted) for wanted in targets], np.int64)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(sizes, k) - 1]
    return {
        f"HR@{k}": hit.any(axis=1).astype(np.float64),
        f"Recall@{k}": hit.sum(axis=1) / sizes,
        f"NDCG@{k}": (hit * discount).sum(axis=1) / ideal,
    }


def recall_of(
    ranked: Numbers, targets: Sequence[Numbers], asked: Sequence[npt.NDArray[np.bool_]]
) -> Floats:
    """Recall of the targets that `asked` marks; one value for each case that has any."""
    parts = (wanted[marked] for wanted, marked in zip(targets, asked, strict=True))
    return np.array(
        [np.isin(part, row).mean() for part, row in zip(parts, ranked, strict=True) if len(part)],
        np.float64,
    )
