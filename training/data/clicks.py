"""Click logs: `train.parquet`, `valid.parquet` and `test.parquet` with a row a click, in any order,
and the columns `SessionId`, `ItemId` and `Time` (seconds since 1970, or timestamps)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import MICROSECONDS
from contract.errors import UserError
from training.data.storage import read_parquet

TRAIN_FILE, VALID_FILE, TEST_FILE = "train.parquet", "valid.parquet", "test.parquet"
COLUMNS = ("SessionId", "ItemId", "Time")
UNKNOWN = -1

Ints = npt.NDArray[np.int64]
_LAST_SECOND = 2**63 // MICROSECONDS - 1


@dataclass(frozen=True)
class Clicks:
    """Training clicks in the order of the file, and the sessions to predict.

    Shapes: R training clicks, N items.
    """

    session: Ints  # [R] number of the session, in the order of the ids
    item: Ints  # [R] position in `item_ids`
    occurred_us: Ints  # [R]
    item_ids: pa.Array  # [N] sorted
    test_sessions: list[Ints]  # items in time order, UNKNOWN where training has no such item

    @property
    def num_items(self) -> int:
        return len(self.item_ids)


def read_clicks(folder: Path) -> Clicks:
    """The training clicks and the test sessions of two or more clicks.

    Clicks of one session at the same time keep the order of the file. Raises UserError when a file
    or a column is missing or holds something else, or no test session has two clicks.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    absent = [n for n in (TRAIN_FILE, VALID_FILE, TEST_FILE) if not (folder / n).is_file()]
    if absent:
        raise UserError(
            f"{folder}: lacks {', '.join(absent)}; click logs are {TRAIN_FILE}, {VALID_FILE} and "
            f"{TEST_FILE} with the columns {', '.join(COLUMNS)}"
        )
    train_ids, train_items, train_us = _columns(folder / TRAIN_FILE)
    test_ids, test_items, test_us = _columns(folder / TEST_FILE)
    if train_items.type != test_items.type:
        raise UserError(
            f"{folder / TEST_FILE}: column ItemId is {test_items.type}, in {TRAIN_FILE} it is "
            f"{train_items.type}"
        )
    item_ids = pc.unique(train_items).sort()
    known = pc.index_in(test_items, value_set=item_ids)
    tests = _sessions(_numbers(test_ids), pc.fill_null(known, UNKNOWN).to_numpy(), test_us)
    if not tests:
        raise UserError(f"{folder / TEST_FILE}: no session has two clicks, nothing to predict")
    items = pc.index_in(train_items, value_set=item_ids).to_numpy().astype(np.int64)
    return Clicks(_numbers(train_ids), items, train_us, item_ids, tests)


def _sessions(session: Ints, item: npt.NDArray[Any], occurred_us: Ints) -> list[Ints]:
    """The items of each session of two or more clicks, in time order."""
    order = np.lexsort((np.arange(len(item)), occurred_us, session))
    starts = np.flatnonzero(np.diff(session[order])) + 1
    split = np.split(item[order].astype(np.int64), starts)
    return [items for items in split if len(items) > 1]


def _columns(file: Path) -> tuple[Any, Any, Ints]:
    """Session ids, item ids and times in microseconds."""
    table = read_parquet(file)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{file}: lacks the columns {', '.join(missing)}")
    for name in COLUMNS:
        if table[name].null_count:
            raise UserError(f"{file}: column {name} has empty values")
    ids = [_ids(file, name, table[name].combine_chunks()) for name in COLUMNS[:2]]
    return ids[0], ids[1], _microseconds(file, table["Time"].combine_chunks())


def _ids(file: Path, name: str, column: Any) -> Any:
    """Whole numbers as int64 (uint64 beyond it), text as it is."""
    kind = column.type
    if pa.types.is_uint64(kind) or pa.types.is_string(kind):
        return column
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    raise UserError(f"{file}: column {name} is {kind}, neither whole numbers nor text")


def _microseconds(file: Path, column: Any) -> Ints:
    kind = column.type
    if pa.types.is_timestamp(kind):
        # Nanoseconds beyond the microsecond say nothing about the order that anyone would rely on.
        stamps = column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
        return np.asarray(stamps.to_numpy(), np.int64)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UserError(f"{file}: column Time is {kind}, neither seconds nor a timestamp")
    seconds = column.to_numpy()
    if not (np.isfinite(seconds) & (np.abs(seconds.astype(np.float64)) < _LAST_SECOND)).all():
        raise UserError(f"{file}: column Time has values that are no seconds since 1970")
    if pa.types.is_integer(kind):
        return np.asarray(seconds.astype(np.int64) * MICROSECONDS)
    return np.asarray(np.round(seconds.astype(np.float64) * MICROSECONDS), np.int64)


def _numbers(ids: Any) -> Ints:
    """The rank of each id among the distinct ones."""
    return np.asarray(pc.index_in(ids, value_set=pc.unique(ids).sort()).to_numpy(), np.int64)
