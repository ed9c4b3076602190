"""Click sessions split for next-item prediction, as `view_item` events plus the test instances.

`train_sessions.parquet` has `item_ids` per session, in time order of the sessions;
`test_instances.parquet` has `history` and `target`. Times are made up: sessions an hour apart from
a fixed epoch, ten seconds between items, so that recency between sessions keeps its order.
"""

from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import MICROSECONDS
from contract.errors import UserError
from training.data.columns import (
    IMPORTED_PURPOSES,
    event_table,
    one_item_each,
    repeated,
    stable_ids,
    utc,
)
from training.data.minimal_catalogue import minimal_catalogue
from training.data.storage import read_parquet, write_catalogue, write_events, write_parquet

TRAIN_FILE = "train_sessions.parquet"
TEST_FILE = "test_instances.parquet"
EPOCH_US = 946_684_800_000_000  # 2000-01-01T00:00:00Z
NOTES = [
    "times are made up: sessions an hour apart from 2000-01-01, in the order of the file; "
    "only the order is real"
]

_NAMESPACE = uuid5(NAMESPACE_DNS, "sessions.tillwise")
_SESSION_GAP_US = 3600 * MICROSECONDS
_VIEW_GAP_US = 10 * MICROSECONDS


def import_sessions(folder: Path, output: Path) -> dict[str, dict[str, int]]:
    """Write events, catalogue and `test_instances.parquet` to `output`; returns the counts.

    Raises UserError when a file or a column is missing or of another kind, or a session is empty.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    connection = ibis.duckdb.connect()
    sessions = _load(connection, folder / TRAIN_FILE, lists="item_ids", scalar=None)
    tests = _load(connection, folder / TEST_FILE, lists="history", scalar="target")
    seen = connection.create_table("views", views(sessions))
    tests = tests.order_by("row").select("history", "target")
    items = ibis.union(
        seen.select("item_id"),
        tests.select(item_id=tests.target),
        tests.select(item_id=tests.history.unnest()),
    )
    catalogue = minimal_catalogue(items)
    write_catalogue(catalogue, output)
    ordered = seen.order_by("row", "position").to_pyarrow()
    write_events(ordered, view_events, output, label="sessions")
    instances = tests.to_pyarrow()
    write_parquet(instances, output / TEST_FILE)
    num_sessions = int(sessions.count().to_pyarrow().as_py())
    return {
        "train": {"sessions": num_sessions, "views": len(ordered), "items": len(catalogue)},
        "test": {"instances": len(instances)},
    }


def read_lists(file: Path, *, lists: str, scalar: str | None) -> tuple[list[Any], ...]:
    """The column `lists` of `file` as lists of item ids, and `scalar`, if one is named, beside it.
    Ids become text, whatever their width. Raises UserError as `import_sessions` does."""
    table = read_parquet(file)
    _check(file, table, lists, scalar)
    nested = table[lists].combine_chunks()
    flat = nested.flatten().cast(pa.string()).to_pylist()
    ends = np.cumsum(pc.list_value_length(nested).to_numpy()).tolist()
    found = [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if scalar is None:
        return (found,)
    return found, table[scalar].cast(pa.string()).to_pylist()


def views(sessions: Any) -> Any:
    """One row per viewed item with its session's row and its `position` in the session."""
    return sessions.select(
        "row",
        item_id=sessions.item_ids.unnest(),
        position=ibis.range(sessions.item_ids.length()).unnest(),
    )


def view_events(seen: pa.Table) -> pa.Table:
    """`seen` as `view_item` events; every session is a subject of its own."""
    num_events = len(seen)
    rows = seen["row"].to_numpy().astype(np.int64)
    positions = seen["position"].to_numpy().astype(np.int64)
    times = utc(EPOCH_US + rows * _SESSION_GAP_US + positions * _VIEW_GAP_US)
    distinct, session = np.unique(rows, return_inverse=True)
    subjects = stable_ids(_NAMESPACE, (f"session-{row}" for row in distinct))
    names = (f"view-{r}-{p}" for r, p in zip(rows.tolist(), positions.tolist(), strict=True))
    columns = {
        "event_id": stable_ids(_NAMESPACE, names),
        "event_name": repeated("view_item", "event_name", num_events),
        "occurred_at": times,
        "received_at": times,
        "subject_id": subjects.take(pa.array(session)),
        "session_id": pa.array([f"session-{row}" for row in distinct]).take(pa.array(session)),
        "purposes": repeated(IMPORTED_PURPOSES, "purposes", num_events),
        "items": one_item_each(seen["item_id"].chunk(0)),
    }
    return event_table(columns, synthetic=False)


def _load(connection: Any, file: Path, *, lists: str, scalar: str | None) -> Any:
    """The wanted columns of `file` as text, with the number of the `row`."""
    table = read_parquet(file)
    _check(file, table, lists, scalar)
    wanted = [lists] if scalar is None else [lists, scalar]
    rows = table.select(wanted).append_column("row", pa.array(range(len(table)), pa.int64()))
    # `create_table` with Arrow rows breaks on DuckDB 2; through a memtable it works.
    loaded = connection.create_table(file.stem, ibis.memtable(rows))
    columns = {lists: loaded[lists].cast("array<string>")}
    if scalar is not None:
        columns[scalar] = loaded[scalar].cast("string")
    return loaded.select("row", **columns)


def _check(file: Path, table: pa.Table, lists: str, scalar: str | None) -> None:
    """Raises UserError unless every row has items in `lists` and something in `scalar`."""
    missing = [name for name in (lists, scalar) if name and name not in table.column_names]
    if missing:
        raise UserError(f"{file}: lacks the columns {', '.join(missing)}")
    kind = table.schema.field(lists).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise UserError(f"{file}: column {lists} is {kind}, not a list of item ids")
    lengths = pc.fill_null(pc.list_value_length(table[lists]), 0).to_numpy()
    for row in np.flatnonzero(lengths == 0)[:1]:
        raise UserError(f"{file}: row {row} has no items in {lists}")
    if pc.list_flatten(table[lists]).null_count:
        raise UserError(f"{file}: column {lists} has an empty item id")
    if scalar is not None:
        for row in np.flatnonzero(pc.is_null(table[scalar]).to_numpy())[:1]:
            raise UserError(f"{file}: row {row} has no {scalar}")
