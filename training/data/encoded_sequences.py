"""Training sequences of an imported folder as flat arrays, made by `training.data.etl` on DuckDB.

DuckDB keeps its tables in a file of a temporary folder and sorts on disk beyond its memory limit,
so a log may be larger than memory; what comes back is 18 bytes a row and then the arrays.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.encoding import Vocabulary
from contract.errors import UserError
from contract.events import EVENT_TYPE
from contract.frames import EVENT_SCHEMA
from training.data import etl
from training.data.etl import By
from training.data.storage import check_events, event_parts

Ints = npt.NDArray[np.int64]
MEMORY_MIB = 1024


@dataclass(frozen=True)
class EncodedSequences:
    """Shapes: S sequences in the order of their keys, E interactions, sequence after sequence, each
    in the order of (occurred_at, event_id, place of the item in its event)."""

    item: Ints  # [E] vocabulary indices; OOV for items in too few sequences
    event_type: Ints  # [E] contract.events.EVENT_TYPE
    occurred_us: Ints  # [E]
    offsets: Ints  # [S + 1] into the above
    vocabulary: Vocabulary  # most frequent item first, equally frequent ones by id
    keys: pa.Table  # [S] subject_id; by session also session_id and part
    # Row of the interaction that a search came after, and its words; searches before the first
    # interaction of a sequence are left out. In time order.
    search_row: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # [Q]
    search_term: tuple[str, ...] = ()  # [Q]
    seconds: dict[str, float] = field(default_factory=dict, compare=False)  # of each step

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, sequence: int) -> slice:
        """Where the rows of `sequence` stand."""
        return slice(int(self.offsets[sequence]), int(self.offsets[sequence + 1]))


def read_sequences(
    folder: Path,
    *,
    by: By,
    events: Sequence[str] | None = None,
    min_item_count: int = 1,
    memory_mib: int = MEMORY_MIB,
) -> EncodedSequences:
    """The sequences of `folder/events`, one per subject or session, of what may be learned from.

    `events`: event names, all by default. `min_item_count`: sequences that must hold an item for it
    to be in the vocabulary. `memory_mib`: DuckDB's limit. Raises UserError when the folder or its
    files are not an import, a name is unknown, or nothing is left.
    """
    unknown = [name for name in events or () if name not in EVENT_TYPE]
    if unknown:
        raise UserError(f"unknown event names: {', '.join(unknown)}")
    check_events(folder)
    with tempfile.TemporaryDirectory(prefix="tillwise-etl-") as scratch:
        connection = open_engine(Path(scratch), memory_mib)
        try:
            log = connection.read_parquet(
                [str(part) for part in event_parts(folder)],
                hive_partitioning=False,
                union_by_name=True,
            )
            steps = _Steps(connection)
            return _read(steps, log, folder, by, events, min_item_count)
        except duckdb.Error as error:
            raise UserError(f"{folder}: {str(error).partition(chr(10))[0]}") from None
        finally:
            connection.disconnect()


def open_engine(scratch: Path, memory_mib: int) -> Any:
    """DuckDB over a file in `scratch`, where it also puts what does not fit `memory_mib`."""
    connection = ibis.duckdb.connect(
        scratch / "etl.duckdb",
        memory_limit=f"{memory_mib}MiB",
        temp_directory=str(scratch / "spilled"),
        threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2,
        preserve_insertion_order=False,
    )
    # In a process that multiprocessing spawned it takes itself to be at a prompt, and draws one
    # over whatever the command prints.
    connection.raw_sql("SET enable_progress_bar = false")
    return connection


class _Steps:
    """Tables made one after another, and how long each took."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, make: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = make()
        self.seconds[name] = time.perf_counter() - began
        return made

    def table(self, name: str, expression: Any) -> Any:
        return self.timed(name, lambda: self.connection.create_table(name, expression))


def _read(
    steps: _Steps,
    log: Any,
    folder: Path,
    by: By,
    names: Sequence[str] | None,
    min_item_count: int,
) -> EncodedSequences:
    units = steps.table("units", etl.units(log, by))
    rows = steps.table("interactions", etl.interactions(log, units, by=by, names=names))
    sequences = steps.table("sequences", etl.sequences(rows))
    items = steps.table("vocabulary", etl.vocabulary(rows, min_item_count))
    item_ids = items.order_by("item").item_id.to_pyarrow().to_pylist()
    if not item_ids:
        raise UserError(
            f"{folder}: no item stands in {min_item_count} or more sequences "
            f"of {'' if names is None else ', '.join(names) + ' '}events "
            "written under personalization"
        )
    ordered = steps.timed("encoding", lambda: _columns(etl.encoded(rows, sequences, items)))
    if (ordered["event_type"] == etl.UNKNOWN_EVENT).any():
        raise UserError(f"{folder}: holds event names that this version does not know")
    offsets = np.searchsorted(ordered["sequence"], np.arange(sequences.count().execute() + 1))
    asked = steps.timed(
        "searches",
        lambda: (
            etl.searches(log, units, sequences, by=by)
            .order_by("sequence", "occurred_at", "event_id")
            .to_pyarrow()
        ),
    )
    search_row, search_term = _placed(asked, offsets, ordered["occurred_at"])
    keys = sequences.inner_join(units, "unit").order_by("sequence")
    key_table = keys.select(*etl.UNIT[by], *(["part"] if by == "session" else [])).to_pyarrow()
    return EncodedSequences(
        item=ordered["item"],
        event_type=ordered["event_type"],
        occurred_us=ordered["occurred_at"],
        offsets=offsets,
        vocabulary=Vocabulary(tuple(item_ids)),
        keys=key_table,
        search_row=search_row,
        search_term=search_term,
        seconds=steps.seconds,
    )


def _placed(asked: pa.Table, offsets: Ints, occurred_us: Ints) -> tuple[Ints, tuple[str, ...]]:
    """The row that each of the searches `asked` came after, and its words; one at the very time of
    an interaction came before it."""
    sequence = asked["sequence"].to_numpy().astype(np.int64)
    when = asked["occurred_at"].cast(EVENT_SCHEMA.field("occurred_at").type).cast(pa.int64())
    asked_us = when.to_numpy()
    rows = np.array(
        [
            offsets[one] + np.searchsorted(occurred_us[offsets[one] : offsets[one + 1]], us) - 1
            for one, us in zip(sequence.tolist(), asked_us.tolist(), strict=True)
        ],
        np.int64,
    )
    after = rows >= offsets[sequence]
    terms = asked["search_term"].to_pylist()
    return rows[after], tuple(term for term, kept in zip(terms, after, strict=True) if kept)


def _columns(encoded: Any) -> dict[str, Ints]:
    """The `encoded` rows in order, a column at a time as int64."""
    narrow = etl.in_order(encoded).select(
        sequence=encoded.sequence.cast("int32"),
        item=encoded["item"].cast("int32"),
        event_type=encoded.event_type.cast("int16"),
        occurred_at=encoded.occurred_at,
    )
    table = narrow.to_pyarrow()
    columns: dict[str, Ints] = {}
    for name in table.column_names:
        column = table[name]
        if name == "occurred_at":
            column = column.cast(EVENT_SCHEMA.field(name).type).cast(pa.int64())
        columns[name] = pc.cast(column, pa.int64()).to_numpy()
        table = table.drop_columns([name])
    return columns
