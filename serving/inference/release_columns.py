"""Columns of a release's Parquet files as what the gateway keeps of them. Every Python object that
is made for it takes time under the lock that checkouts need too, and pyarrow lets no other thread
run before it has made all that it was asked for."""

import io
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import UserError
from contract.manifest import CATALOGUE

_PART = 4_096  # rows


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
    return [
        value
        for start in range(0, len(column), _PART)
        for value in column.slice(start, _PART).to_pylist()
    ]


def lists(column: Any) -> list[tuple[str, ...]]:
    """The lists of strings of a column as tuples, empty for a missing one. Equal ones are one
    object: a shop has few category paths for many items. ValueError where a string is missing."""
    found: list[tuple[str, ...]] = []
    for part in column.chunks:
        encoded = part.values.dictionary_encode()
        if encoded.null_count:
            raise ValueError("a list holds null in place of a string")
        words, codes = encoded.dictionary.to_pylist(), np.from_dlpack(encoded.indices)
        ends, content = part.offsets.to_pylist(), codes.tobytes()
        width, known = codes.itemsize, {b"": ()}
        for start, end in pairwise(ends):
            key = content[start * width : end * width]
            held = known.get(key)
            if held is None:
                held = known[key] = tuple(words[code] for code in codes[start:end])
            found.append(held)
    return found


def numbers(name: str, column: Any) -> npt.NDArray[Any]:
    """A column of numbers. Not its to_numpy, which loads pandas where there is one, for a second
    in which no other thread gets on."""
    if column.null_count:
        raise UserError(f"{CATALOGUE}: {name} is missing for an item")
    parts = [np.from_dlpack(part) for part in column.chunks if len(part)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
