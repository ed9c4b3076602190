"""What a column of numbers, labels or vectors looks like, small enough to travel with a release:
counts in bins, and of vectors mean and covariance. Profiles of two days add up to that of both, so
what is live can be counted as it comes and nobody keeps the values.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

BINS: Final = 10
MOST_LABELS: Final = 50
Values = npt.NDArray[np.floating[Any]]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Column(_Strict):
    """One column. `edges` are the inner borders of the bins of numbers, of which a value at a
    border belongs to the bin above; `labels` the names of a category, whose last count is of all
    others. `counts` [bins]; `missing` had no value that is finite."""

    name: str
    kind: Literal["numeric", "category"] = "numeric"
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    counts: tuple[Count, ...]
    missing: Count = 0

    @model_validator(mode="after")
    def _bins_fit(self) -> "Column":
        borders = self.edges if self.kind == "numeric" else self.labels
        if len(self.counts) != len(borders) + 1 or len(set(borders)) != len(borders):
            raise ValueError(f"{self.name}: {len(self.counts)} counts for {len(borders)} borders")
        if self.kind == "numeric" and list(self.edges) != sorted(self.edges):
            raise ValueError(f"{self.name}: edges must rise")
        return self

    def same_bins(self, other: "Column") -> bool:
        """Whether the two can be compared bin by bin."""
        held = (self.name, self.kind, self.edges, self.labels)
        return held == (other.name, other.kind, other.edges, other.labels)

    def counted(self, values: Values | Sequence[str]) -> "Column":
        """The same bins with `values` [N] in them."""
        if self.kind == "category":
            places = {label: place for place, label in enumerate(self.labels)}
            found = [places.get(str(one), len(places)) for one in values]
            counts = np.bincount(np.array(found, np.int64), minlength=len(self.counts))
            return self.model_copy(update={"counts": _whole(counts), "missing": 0})
        numbers = np.asarray(values, np.float64)
        finite = numbers[np.isfinite(numbers)]
        bins = np.searchsorted(np.array(self.edges, np.float64), finite, side="right")
        counts = np.bincount(bins, minlength=len(self.counts))
        missing = len(numbers) - len(finite)
        return self.model_copy(update={"counts": _whole(counts), "missing": missing})


class Vectors(_Strict):
    """Vectors of one kind: `count` of them, their sum [D], and the sum of their outer products
    [D * D], row by row, so that two add up."""

    name: str
    count: Count
    total: tuple[float, ...]
    products: tuple[float, ...]

    @model_validator(mode="after")
    def _square(self) -> "Vectors":
        if len(self.products) != len(self.total) ** 2:
            raise ValueError(f"{self.name}: products are not square")
        return self

    @property
    def mean(self) -> Values:
        """[D]."""
        return np.array(self.total) / max(self.count, 1)

    @property
    def covariance(self) -> Values:
        """[D, D]."""
        size = len(self.total)
        second = np.array(self.products).reshape(size, size) / max(self.count, 1)
        found: Values = second - np.outer(self.mean, self.mean)
        return found

    @classmethod
    def of(cls, name: str, vectors: Values) -> "Vectors":
        """Of `vectors` [N, D]; those that are not finite are left out."""
        held = np.asarray(vectors, np.float64)
        held = held[np.isfinite(held).all(axis=1)]
        products = (held.T @ held).ravel()
        return cls(
            name=name,
            count=len(held),
            total=tuple(map(float, held.sum(axis=0))),
            products=tuple(map(float, products)),
        )


class Profile(_Strict):
    """Columns and vectors of the same cases. `units` are the shoppers behind them: many rows of one
    shopper are not many independent draws, so chance is judged by the shoppers."""

    format: Literal[1] = 1
    units: Count
    columns: tuple[Column, ...] = ()
    vectors: tuple[Vectors, ...] = ()

    def counted(
        self,
        columns: Mapping[str, Values | Sequence[str]],
        units: int,
        vectors: Mapping[str, Values] | None = None,
    ) -> "Profile":
        """What `columns` [N each] and `vectors` [N, D] are in these bins; what is not named here
        has no place, and what is not given counts nothing."""
        given = vectors or {}
        return Profile(
            units=units,
            columns=tuple(one.counted(columns.get(one.name, ())) for one in self.columns),
            vectors=tuple(
                Vectors.of(one.name, given.get(one.name, np.zeros((0, len(one.total)))))
                for one in self.vectors
            ),
        )

    def plus(self, other: "Profile") -> "Profile":
        """Both together. ValueError where they were not made for the same bins."""
        held, more = self.columns, other.columns
        if len(held) != len(more) or not all(map(Column.same_bins, held, more)):
            raise ValueError("profiles with other columns or bins can not be added")
        if [len(one.total) for one in self.vectors] != [len(one.total) for one in other.vectors]:
            raise ValueError("profiles with other vectors can not be added")
        return Profile(
            units=self.units + other.units,
            columns=tuple(map(_columns_added, held, more)),
            vectors=tuple(map(_vectors_added, self.vectors, other.vectors)),
        )


def baseline_of(
    columns: Mapping[str, Values | Sequence[str]],
    units: int,
    vectors: Mapping[str, Values] | None = None,
    bins: int = BINS,
) -> Profile:
    """A profile with bins of its own: of numbers [N] at their quantiles, of labels the commonest
    ones. ValueError where a column has no finite value."""
    made = []
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.number):
            made.append(_numeric(name, np.asarray(values, np.float64), bins))
        else:
            made.append(_category(name, [str(one) for one in values]))
    kept = tuple(Vectors.of(name, found) for name, found in (vectors or {}).items())
    return Profile(units=units, columns=tuple(made), vectors=kept)


def _numeric(name: str, values: Values, bins: int) -> Column:
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise ValueError(f"{name} has no finite value")
    quantiles = np.quantile(finite, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    found, often = np.unique(quantiles, return_counts=True)
    # A value that fills more than one quantile is a bin of its own: below it, it, above it.
    spikes = found[(often > 1) | (len(found) == 1)]
    edges = np.unique(np.concatenate([found, np.nextafter(spikes, np.inf)]))
    empty = Column(name=name, edges=tuple(map(float, edges)), counts=(0,) * (len(edges) + 1))
    return empty.counted(values)


def _category(name: str, values: Sequence[str]) -> Column:
    if not values:
        raise ValueError(f"{name} has no value")
    labels, often = np.unique(np.array(values), return_counts=True)
    common = sorted(zip(-often, labels, strict=True))[:MOST_LABELS]
    kept = tuple(str(label) for _, label in common)
    empty = Column(name=name, kind="category", labels=kept, counts=(0,) * (len(kept) + 1))
    return empty.counted(values)


def _columns_added(one: Column, other: Column) -> Column:
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return one.model_copy(update={"counts": counts, "missing": one.missing + other.missing})


def _vectors_added(one: Vectors, other: Vectors) -> Vectors:
    total, products = (
        tuple(a + b for a, b in zip(left, right, strict=True))
        for left, right in ((one.total, other.total), (one.products, other.products))
    )
    count = one.count + other.count
    return one.model_copy(update={"count": count, "total": total, "products": products})


def _whole(counts: npt.NDArray[Any]) -> tuple[int, ...]:
    return tuple(map(int, counts))
