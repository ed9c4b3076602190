"""Ranking metrics against sets of targets. Every figure is a fraction from 0 to 1."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def hits(ranked: Numbers, targets: Sequence[Numbers]) -> npt.NDArray[np.bool_]:
    """Whether each ranked item is a target, [T, k]; `ranked` [T, k] holds -1 for nothing shown."""
    case, same = _matches(ranked, targets)
    found = np.zeros(ranked.shape, bool)
    target, place = np.nonzero(same)
    found[case[target], place] = True
    return found


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
    case, same = _matches(ranked, targets)
    marked = np.concatenate([*asked, np.empty(0, bool)])
    count = np.bincount(case[marked], minlength=len(ranked))
    found = np.bincount(case[marked], weights=same[marked].any(axis=1), minlength=len(ranked))
    return found[count > 0] / count[count > 0]


def _matches(ranked: Numbers, targets: Sequence[Numbers]) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """All targets one after the other: the case of each, [M], and which of its ranked items it is,
    [M, k]. A call of numpy for each case would take most of an evaluation's time."""
    if len(ranked) != len(targets):
        raise ValueError(f"{len(ranked)} rankings of {len(targets)} cases")
    case = np.repeat(np.arange(len(targets)), [len(wanted) for wanted in targets])
    every = np.concatenate([*targets, np.empty(0, np.int64)])
    return case, ranked[case] == every[:, None]
