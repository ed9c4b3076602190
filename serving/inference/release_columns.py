"""Columns of a release's Parquet files as what the gateway keeps of them. Every Python object that
is made for it takes time under the lock that checkouts need too, and pyarrow lets no other thread
run before it has made all that it was asked for."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import UserError
from contract.manifest import CATALOGUE
from contract.pieces import SIZE, between_pieces, in_pieces


def table(name: str, content: bytes, columns: tuple[str, ...]) -> Any:
    """The Arrow table in `content`, which must have these columns."""
    try:
        # Not read_table: that would load datasets, and pandas with them, for a second.
        read = pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: is no readable Parquet file") from error
    absent = [column for column in columns if column not in read.column_names]
    if absent:
        raise UserError(f"{name}: column {absent[0]} is missing")
    return read


def values(column: Any) -> list[Any]:
    """The column's values, asked for a part at a time."""
    found: list[Any] = []
    for start in range(0, len(column), SIZE):
        found += column.slice(start, SIZE).to_pylist()
        between_pieces()
    return found


@dataclass(frozen=True)
class Lists:
    """A column of lists of strings. Equal ones are one object: a shop has few category paths for
    many items."""

    distinct: list[tuple[str, ...]]
    place: npt.NDArray[np.int64]  # of the list of every row in `distinct`

    def rows(self) -> list[tuple[str, ...]]:
        """The list of every row."""
        return [self.distinct[place] for place in self.place.tolist()]


def lists(column: Any) -> Lists:
    """A missing list is an empty one. ValueError where a string is missing."""
    places: dict[tuple[str, ...], int] = {}
    found = [np.empty(0, np.int64)]
    for part in column.chunks:
        words = part.values.dictionary_encode()
        if words.null_count:
            raise ValueError("a list holds null in place of a string")
        # As text of the words' numbers, so that Arrow finds the equal ones.
        numbers = pa.ListArray.from_arrays(part.offsets, words.indices.cast(pa.string()))
        texts = pc.binary_join(numbers, ",").dictionary_encode()
        known = words.dictionary.to_pylist()
        own = [
            places.setdefault(tuple(known[int(one)] for one in text.split(",") if one), len(places))
            for text in in_pieces(texts.dictionary.to_pylist())
        ]
        found.append(np.array(own, np.int64)[np.from_dlpack(texts.indices)])
    return Lists(list(places), np.concatenate(found))


def numbers(name: str, column: Any) -> npt.NDArray[Any]:
    """A column of numbers. Not its to_numpy, which loads pandas where there is one, for a second
    in which no other thread gets on."""
    if column.null_count:
        raise UserError(f"{CATALOGUE}: {name} is missing for an item")
    return _joined(column, np.float32)


def filled(column: Any, missing: int) -> npt.NDArray[np.int64]:
    """A column of whole numbers or of truths, with `missing` where there is none."""
    return _joined(column.cast(pa.int64()).fill_null(missing), np.int64)


def _joined(column: Any, otherwise: npt.DTypeLike) -> npt.NDArray[Any]:
    parts = [np.from_dlpack(part) for part in column.chunks if len(part)]
    return np.concatenate(parts) if parts else np.empty(0, otherwise)
