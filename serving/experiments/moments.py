"""Sums over units, all that the statistics need: they add up over days, segments and replicas, so
nothing is ever read twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """`units`, the sums [K] of the `columns` over them, and the sums of their products [K, K]."""

    columns: tuple[str, ...]
    units: int
    sums: Floats
    products: Floats

    @classmethod
    def none(cls, columns: Sequence[str]) -> Self:
        """Of no units."""
        size = len(columns)
        return cls(tuple(columns), 0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def of(cls, columns: Sequence[str], rows: Floats) -> Self:
        """Of `rows` [units, K]."""
        return cls(tuple(columns), len(rows), rows.sum(axis=0), rows.T @ rows)

    def __add__(self, other: "Moments") -> "Moments":
        assert self.columns == other.columns
        return Moments(
            self.columns,
            self.units + other.units,
            self.sums + other.sums,
            self.products + other.products,
        )

    def total(self, column: str) -> float:
        """The sum of a column over all units."""
        return float(self.sums[self.columns.index(column)])

    def mean(self, column: str) -> float:
        """The mean of a column per unit. Needs a unit."""
        return self.total(column) / self.units

    def covariance(self, one: str, other: str) -> float:
        """The sample covariance of two columns, or the variance of one. Needs two units."""
        a, b = self.columns.index(one), self.columns.index(other)
        crossed = (
            float(self.products[a, b]) - float(self.sums[a]) * float(self.sums[b]) / self.units
        )
        return crossed / (self.units - 1)
