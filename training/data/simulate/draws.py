"""Vectorised draws: many categorical choices at once, each from a distribution of its own."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from training.data.simulate.world import Duration

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Generator = np.random.Generator


def trait(parts: Mapping[Any, BaseModel], field: str) -> Floats:
    """The numbers that `parts` of a world have under `field`, in their order."""
    return np.array([getattr(part, field) for part in parts.values()], np.float64)


def cumulative(weights: npt.ArrayLike) -> Floats:
    """[N, K] weights (or [K]) as cumulative shares offset by their row, flat, for `choose`."""
    table = np.atleast_2d(np.asarray(weights, np.float64))
    shares = np.cumsum(table, axis=1)
    shares /= shares[:, -1:]
    flat: Floats = (shares + np.arange(len(table))[:, None]).ravel()
    return flat


def choose(rng: Generator, flat: Floats, num_choices: int, rows: Ints) -> Ints:
    """One choice 0..K-1 for each of `rows` of the distributions in `flat` (see `cumulative`)."""
    drawn = np.searchsorted(flat, rows + rng.random(len(rows)), side="right")
    chosen: Ints = np.clip(drawn - rows * num_choices, 0, num_choices - 1)
    return chosen


def pick(rng: Generator, weights: Iterable[float], size: int) -> Ints:
    """`size` choices from one distribution."""
    listed = list(weights)
    return choose(rng, cumulative(listed), len(listed), np.zeros(size, np.int64))


def chance(rng: Generator, probability: npt.ArrayLike, size: int) -> Bools:
    """`size` coin throws with the given probability, one for all or one each."""
    return rng.random(size) < np.asarray(probability)


def milliseconds(rng: Generator, duration: Duration, size: int) -> Floats:
    """`size` log-normal lengths of time, at least 1 ms and at most half an hour."""
    drawn = duration.median_ms * np.exp(duration.sigma * rng.standard_normal(size))
    return np.clip(drawn, 1.0, 1_800_000.0)


def log_odds(probability: npt.ArrayLike) -> Floats:
    """The log-odds of probabilities strictly between 0 and 1."""
    p = np.asarray(probability, np.float64)
    return np.log(p / (1.0 - p))


def from_log_odds(value: npt.ArrayLike) -> Floats:
    """The inverse of `log_odds`."""
    return 1.0 / (1.0 + np.exp(-np.asarray(value, np.float64)))
