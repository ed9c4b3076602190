"""Metrics of questions with one target each, from the place of the target: 1 is the best, infinity
stands for not found."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def gain(places: Floats, k: int) -> float:
    """Mean NDCG@k; with one target the ideal gain is 1."""
    return float(np.where(places <= k, 1.0 / np.log2(places + 1.0), 0.0).mean())


def hit_rate(places: Floats, k: int) -> float:
    """The share of targets among the first k: HR@k, and P@k as the session protocol calls it."""
    return float((places <= k).mean())


def reciprocal_rank(places: Floats, k: int) -> float:
    """Mean of 1 / place, 0 beyond the first k."""
    return float(np.where(places <= k, 1.0 / places, 0.0).mean())


def metrics_of(protocol: str, places: Floats, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """The protocol's metrics, by the names that figures carry."""
    found: dict[str, float] = {}
    for k in reversed(cutoffs):
        if protocol == "session":
            found |= {f"P@{k}": hit_rate(places, k), f"MRR@{k}": reciprocal_rank(places, k)}
        else:
            found |= {f"HR@{k}": hit_rate(places, k), f"NDCG@{k}": gain(places, k)}
    return found
