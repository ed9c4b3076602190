"""Whether two samples come from the same source: shares that differ by more than chance, and the
population stability index of two samples of numbers."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Sample = npt.NDArray[np.floating[Any]]
BINS = 10


def psi(expected: Sample, found: Sample, bins: int = BINS) -> float:
    """The population stability index of `found` [M] against `expected` [N]:
    sum over bins of (q - p) * ln(q / p).

    Bins are the quantiles of `expected`; equal quantiles are one bin, and values beyond the ends
    fall into the outer bins. Half a count is added to every bin, so that an empty one does not make
    the sum infinite. Read it as usual (N. Siddiqi, Credit Risk Scorecards, 2006): below 0.1 stable,
    above 0.25 another population. By chance alone about (bins - 1) * (1/N + 1/M).
    ValueError where a sample is empty or holds a value that is not finite.
    """
    for name, sample in (("expected", expected), ("found", found)):
        if not len(sample) or not np.isfinite(sample).all():
            raise ValueError(f"{name} must be finite numbers, at least one")
    inner = np.unique(np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1]))
    if len(inner) == 1 < bins - 1:  # nearly all values are one: below it, it, above it
        inner = np.array([inner[0], np.nextafter(inner[0], np.inf)])
    p, q = _shares(expected, inner), _shares(found, inner)
    return float(np.sum((q - p) * np.log(q / p)))


def _shares(sample: Sample, inner: Sample) -> npt.NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(inner, sample, side="right"), minlength=len(inner) + 1)
    smoothed = counts.astype(np.float64) + 0.5
    shares: npt.NDArray[np.float64] = smoothed / smoothed.sum()
    return shares


def excess(hits: int, of: int, base_hits: int, base_of: int) -> float:
    """How many standard errors the share hits/of lies above base_hits/base_of (the pooled z of two
    proportions; negative below). 0 where neither or everything is a hit. ValueError for an empty
    sample."""
    if of < 1 or base_of < 1:
        raise ValueError("a share needs at least one case")
    pooled = (hits + base_hits) / (of + base_of)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / base_of))
    return (hits / of - base_hits / base_of) / error if error else 0.0
