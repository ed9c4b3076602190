"""The difference of two releases on the very same questions, with a bootstrap interval."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_RESAMPLES = 2_000
_PART = 250  # resamples drawn together: T x 250 numbers at a time


@dataclass(frozen=True)
class Paired:
    """Means of both, and the challenger's difference with its interval, all absolute."""

    questions: int
    champion: float
    challenger: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Challenger minus champion."""
        return self.challenger - self.champion

    def relative(self, value: float) -> float:
        """`value` as a share of the champion's figure; 0 where both are nothing."""
        if self.champion > 0:
            return value / self.champion
        return 0.0 if value == 0 else float(np.sign(value))


def paired(
    champion: Floats,
    challenger: Floats,
    unit: npt.NDArray[np.int64],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Paired:
    """The paired difference of two [T] figures. Whole `unit`s (shoppers) are drawn, since the
    baskets of one shopper are alike. ValueError for nothing or for unlike lengths."""
    if not len(champion) or not len(champion) == len(challenger) == len(unit):
        raise ValueError("a comparison needs as many figures of both, at least one")
    _, code = np.unique(unit, return_inverse=True)
    sums = np.bincount(code, challenger - champion)
    sizes = np.bincount(code).astype(np.float64)
    rng, means = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES // _PART):
        drawn = rng.integers(0, len(sums), (_PART, len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Paired(
        len(champion), float(champion.mean()), float(challenger.mean()), float(low), float(high)
    )
