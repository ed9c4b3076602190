"""Interaction sequences, a line `user item item ...` in time order, as `select_item` events.

The files say in which order a user met the items and nothing else, so times are made up: one day
per position from a fixed epoch. Only the order within a user is real.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import ibis
import numpy as np
import pyarrow as pa

from contract.clock import DAY_US
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
from training.data.storage import write_catalogue, write_events, write_subjects

EPOCH_US = 946_684_800_000_000  # 2000-01-01T00:00:00Z
NOTES = ["times are made up: one day per position from 2000-01-01; only the order is real"]

_NAMESPACE = uuid5(NAMESPACE_DNS, "sequences.tillwise")


def import_sequences(file: Path, output: Path) -> dict[str, dict[str, int]]:
    """Write events, catalogue and subjects to `output`; returns the counts.

    Raises UserError, naming the line, when `file` is missing, empty, not UTF-8, has a user without
    items or a user twice.
    """
    users, items = read_sequences(file)
    connection = ibis.duckdb.connect()
    lines = ibis.memtable(pa.table({"line": range(len(users)), "user": users, "items": items}))
    taken = connection.create_table("interactions", interactions(lines))
    catalogue = minimal_catalogue(taken.select("item_id"))
    write_catalogue(catalogue, output)
    subjects = stable_ids(_NAMESPACE, (f"user-{user}" for user in users))
    ordered = taken.order_by("line", "position").to_pyarrow()
    write_events(ordered, lambda part: selections(part, subjects), output, label="sequences")
    write_subjects(users, subjects, output)
    counts = {"users": len(users), "items": len(catalogue), "interactions": len(ordered)}
    return {"sequences": counts}


def read_sequences(file: Path) -> tuple[list[str], list[list[str]]]:
    """Users and their items, line by line; ids stay text, whatever their size."""
    first_line: dict[str, int] = {}
    items: list[list[str]] = []
    for number, line in _lines(file):
        user, *sequence = line.split()
        if not sequence:
            raise UserError(f"{file}: line {number} holds a user without items")
        if user in first_line:
            raise UserError(f"{file}: line {number} repeats the user of line {first_line[user]}")
        first_line[user] = number
        items.append(sequence)
    if not items:
        raise UserError(f"{file}: holds no sequences")
    return list(first_line), items


def interactions(sequences: Any) -> Any:
    """One row per interaction with its `position` in the sequence."""
    return sequences.select(
        "line",
        "user",
        item_id=sequences["items"].unnest(),
        position=ibis.range(sequences["items"].length()).unnest(),
    )


def selections(taken: pa.Table, subjects: pa.Array) -> pa.Table:
    """`taken` as `select_item` events; `subjects` are the pseudonyms by line."""
    num_events = len(taken)
    users, positions = taken["user"].to_pylist(), taken["position"].to_numpy()
    times = utc(EPOCH_US + positions.astype(np.int64) * DAY_US)
    names = (f"{user} {place}" for user, place in zip(users, positions.tolist(), strict=True))
    columns = {
        "event_id": stable_ids(_NAMESPACE, names),
        "event_name": repeated("select_item", "event_name", num_events),
        "occurred_at": times,
        "received_at": times,
        "subject_id": subjects.take(taken["line"].chunk(0)),
        "session_id": users,
        "purposes": repeated(IMPORTED_PURPOSES, "purposes", num_events),
        "items": one_item_each(taken["item_id"].chunk(0)),
    }
    return event_table(columns, synthetic=False)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of `file` that are not blank."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{file}: line {number} is not UTF-8") from error
            if line.strip():
                yield number, line
