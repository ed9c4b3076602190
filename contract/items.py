"""What is known about every item of a release, as columns indexed like the vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.compiled import FLOATS, FLOATS_2D, INT, INTS, INTS32_2D, MASK, compiled
from contract.encoding import FIRST_ITEM
from contract.events import key_of
from contract.pieces import in_pieces
from contract.ranks import highest
from contract.session_knn import ascending

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


# The statistics that stand as columns in a release's catalogue.
ITEM_STATISTICS = (
    "popularity",
    "recent_popularity",
    "weekly_popularity",
    "buyers",
    "repeat_rate",
    "gap_days",
    "price_level",
)


def category_codes(paths: Sequence[Sequence[str]]) -> Indices:
    """Codes of three levels of each category path, [len(paths), 3]; 0 where a level is absent.

    A code stands for the whole path down to its level, and is the same in every release.
    """
    places: dict[tuple[str, ...], int] = {}  # most items share their path with others
    place = [places.setdefault(tuple(path), len(places)) for path in in_pieces(paths)]
    distinct = [_codes_of(path) for path in in_pieces(list(places))]
    return np.array(distinct, np.int64).reshape(-1, 3)[np.array(place, np.int64)]


def _codes_of(path: tuple[str, ...]) -> list[int]:
    levels = range(min(len(path), 3))
    codes = [1 + key_of("/".join(path[: level + 1])) % (2**31) for level in levels]
    # A short path repeats its narrowest level, so that the last column is always the narrowest.
    return codes + [codes[-1] if codes else 0] * (3 - len(codes))


def category_of(path: Sequence[str] | None) -> str | None:
    """The `item_category` that events of an item carry: the two widest levels of its path."""
    return "/".join(path[:2])[:200] if path else None


# The levels of `ItemTable.categories` that habits are counted on, and their columns.
LEVELS = {"narrow": -1, "wide": 1}


@dataclass(frozen=True)
class ItemTable:
    """Item statistics at the training cut. N = len(vocabulary); rows PAD and OOV are neutral."""

    popularity: Floats  # [N] log1p of the number of baskets with the item
    recent_popularity: Floats  # [N] the same over the last 28 days
    weekly_popularity: Floats  # [N] the same over the last 7 days
    buyers: Floats  # [N] log1p of the number of shoppers who bought it
    repeat_rate: Floats  # [N] share of its buyers who bought it again
    gap_days: Floats  # [N] usual days between two purchases by one shopper, 0 when never seen
    price_level: Floats  # [N] log1p of minor units, 0 when not priced
    categories: Indices  # [N, 3] codes of the category path, 0 when absent

    def __len__(self) -> int:
        return len(self.popularity)

    @cached_property
    def levels(self) -> Indices:
        """The categories on `LEVELS`, [N, len(LEVELS)], numbered from 1 on each; 0 for none."""
        columns = (self.categories[:, column] for column in LEVELS.values())
        return np.ascontiguousarray(np.column_stack([_numbered(codes) for codes in columns]))

    @cached_property
    def baskets(self) -> Floats:
        """How many baskets held each item, [N]."""
        counted: Floats = np.expm1(self.popularity)
        return counted

    @cached_property
    def for_ranking(self) -> Floats:
        """What the ranker is told about an item alone: popularity, recent, weekly, trend, repeat
        rate, log1p of the gap, price, buyers, log1p of baskets per buyer; and what else its
        features are made of, baskets, the gap and `levels`. One row an item, [N, 16], which is one
        line of the cache, so that one look at it brings all."""
        baskets, buyers = self.baskets, np.expm1(self.buyers)
        columns = (
            *(self.popularity, self.recent_popularity, self.weekly_popularity),
            self.recent_popularity - self.popularity,
            self.repeat_rate,
            np.log1p(self.gap_days),
            *(self.price_level, self.buyers),
            np.log1p(baskets / np.maximum(buyers, 1.0)),
            *(baskets, self.gap_days),
            *self.levels.T,
        )
        return _in_lines(np.column_stack(columns).astype(np.float32))

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, npt.NDArray[Any]], categories: Indices
    ) -> "ItemTable":
        """From `ITEM_STATISTICS` columns and `categories` of the vocabulary's items, in its order;
        the reserved rows are put before them."""
        reserved = np.zeros(FIRST_ITEM, np.float32)
        parts = {
            name: np.concatenate((reserved, columns[name].astype(np.float32)))
            for name in ITEM_STATISTICS
        }
        return cls(**parts, categories=np.vstack((np.zeros((FIRST_ITEM, 3), np.int64), categories)))


def _numbered(codes: Indices) -> Indices:
    """`codes` as numbers from 1 in their order, 0 staying what it is."""
    distinct, number = np.unique(codes, return_inverse=True)
    return number + (0 if len(distinct) and distinct[0] == 0 else 1)


_LINE = 64  # bytes that the processor reads together


def _in_lines(rows: Floats) -> Floats:
    """`rows` [N, at most 16], each widened with zeros to a line of the cache."""
    width = _LINE // rows.itemsize
    room = np.zeros((len(rows) + 1) * width, np.float32)
    first = -room.ctypes.data % _LINE // rows.itemsize
    lines = room[first : first + len(rows) * width].reshape(-1, width)
    lines[:, : rows.shape[1]] = rows
    return lines


@dataclass(frozen=True)
class CategoryLift:
    """How much more often than by chance the categories of one level share a basket. G groups;
    group 0 is no category, or a rare one, about which nothing is said."""

    group: npt.NDArray[np.int32]  # [N] of each item
    log_lift: Floats  # [G, G] symmetric, row and column 0 are zero; half as wide in files

    @classmethod
    def nothing(cls, size: int) -> "CategoryLift":
        """For a vocabulary of `size` without categories."""
        return cls(np.zeros(size, np.int32), np.zeros((1, 1), np.float32))


@dataclass(frozen=True)
class ItemNeighbours:
    """What is bought together: items by cosine of their baskets, categories by lift; frozen at the
    training cut.

    Shapes: N = len(vocabulary), K neighbours each; unused places hold index 0 and similarity 0.
    """

    neighbours: npt.NDArray[np.int32]  # [N, K]
    similarity: Floats  # [N, K]
    wide: CategoryLift  # of the second level of the category paths
    narrow: CategoryLift  # of the last level
    baskets: float  # how many were counted

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as named arrays, for one `.npz` file."""
        return {
            "neighbours": self.neighbours,
            "similarity": self.similarity,
            "wide_group": self.wide.group,
            "wide_log_lift": self.wide.log_lift.astype(np.float16),
            "narrow_group": self.narrow.group,
            "narrow_log_lift": self.narrow.log_lift.astype(np.float16),
            "baskets": np.array(self.baskets, np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "ItemNeighbours":
        """What `arrays` came from; KeyError naming an array that is absent."""

        def column(name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
            return np.ascontiguousarray(arrays[name], dtype)

        wide, narrow = (
            CategoryLift(
                column(f"{level}_group", np.int32), column(f"{level}_log_lift", np.float32)
            )
            for level in ("wide", "narrow")
        )
        return cls(
            column("neighbours", np.int32),
            column("similarity", np.float32),
            wide,
            narrow,
            float(arrays["baskets"]),
        )

    def score(self, cart: Indices) -> "Sparse":
        """The summed similarity of every neighbour to the items of `cart`."""
        return Sparse(*_near(self.neighbours, self.similarity, cart))


@dataclass(frozen=True)
class Sparse:
    """A score for some items: `index` strictly ascending, `value` of the same length."""

    index: Indices
    value: Floats

    @classmethod
    def summed(cls, index: Indices, value: Floats) -> "Sparse":
        """Equal indices are added up."""
        return cls(*_summed(index, value))

    def at(self, wanted: Indices) -> Floats:
        """The score of each of `wanted`, 0 where there is none."""
        if not len(self.index):
            return np.zeros(len(wanted), np.float32)
        place = np.minimum(np.searchsorted(self.index, wanted), len(self.index) - 1)
        return np.where(self.index[place] == wanted, self.value[place], np.float32(0))

    def best(self, limit: int) -> Indices:
        """The indices of the highest scores, best first; equal ones by index."""
        best: Indices = _best(self.index, self.value, limit)
        return best

    def best_within(self, mask: npt.NDArray[np.bool_], limit: int) -> Indices:
        """The same of what `mask` lets through."""
        best: Indices = best_within(self.index, self.value, mask, limit)
        return best


@compiled(INTS, FLOATS)
def _summed(index: Indices, value: Floats) -> tuple[Indices, Floats]:
    order = ascending(index)
    items, totals, count = np.empty(len(index), np.int64), np.empty(len(index)), 0
    for row in order:
        if count == 0 or items[count - 1] != index[row]:
            items[count], totals[count] = index[row], 0.0
            count += 1
        totals[count - 1] += value[row]
    return items[:count].copy(), totals[:count].astype(np.float32)


@compiled(INTS32_2D, FLOATS_2D, INTS)
def _near(neighbours: Indices, similarity: Floats, cart: Indices) -> tuple[Indices, Floats]:
    most, count = len(cart) * neighbours.shape[1], 0
    index, value = np.empty(most, np.int64), np.empty(most, np.float32)
    for item in cart:
        for k in range(neighbours.shape[1]):
            if similarity[item, k] > 0:
                index[count], value[count] = neighbours[item, k], similarity[item, k]
                count += 1
    return _summed(index[:count], value[:count])


@compiled(INTS, FLOATS, INT)
def _best(index: Indices, value: Floats, limit: int) -> Indices:
    return index[highest(value, limit)]


@compiled(INTS, FLOATS, MASK, INT)
def best_within(index: Indices, value: Floats, mask: npt.NDArray[np.bool_], limit: int) -> Indices:
    """`Sparse.best_within`."""
    items, scores, count = np.empty(len(index), np.int64), np.empty(len(index), np.float32), 0
    for place in range(len(index)):
        if mask[index[place]]:
            items[count], scores[count] = index[place], value[place]
            count += 1
    return _best(items[:count], scores[:count], limit)


NOTHING = Sparse(np.empty(0, np.int64), np.empty(0, np.float32))
