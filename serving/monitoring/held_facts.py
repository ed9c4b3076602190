"""What the worker's file holds of a person, to be read by that person."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from contract.clock import from_us
from serving.monitoring.visits import SubjectFacts, read_facts
from serving.state.fact_file import tables_of_subjects
from serving.state.sqlite_writer import StoreError, connect

_MOMENTS = range(1, 2**55)  # others stand for never
_BODY = "body"
_NOT_THEIRS = frozenset({"subject", "margin"})  # a random name, and what the shop earns


def held_facts(path: Path, log_keys: Sequence[bytes]) -> dict[str, list[dict[str, Any]]]:
    """By table, what stands under these log keys in the file at `path`, which may not be there.
    Raises StoreError."""
    if not path.is_file():
        return {}
    try:
        with closing(connect(path, read_only=True)) as file:
            held = {
                table: [row for one in log_keys for row in _rows(file, table, one.hex())]
                for table in tables_of_subjects(file)
            }
    except sqlite3.Error as error:
        raise StoreError(f"what is counted could not be read: {error}") from None
    return {table: rows for table, rows in held.items() if rows}


def _rows(file: sqlite3.Connection, table: str, subject: str) -> Iterator[dict[str, Any]]:
    asked = file.execute(f"SELECT * FROM {table} WHERE subject = ?", (subject,))
    names = [column[0] for column in asked.description]
    for values in asked:
        row = dict(zip(names, values, strict=True))
        if _BODY in row:
            row |= _spelt_out(read_facts(row.pop(_BODY)))
        yield _dated(row)


def _spelt_out(facts: SubjectFacts) -> dict[str, Any]:
    """The facts with the names of their fields, which the file leaves out."""
    told = msgspec.structs.asdict(facts)
    for name in ("visits", "orders"):
        told[name] = {one: _dated(msgspec.structs.asdict(of)) for one, of in told[name].items()}
    told["seen"] = {one: _moment(at_us) for one, at_us in facts.seen.items()}
    return told


def _dated(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with moments where microseconds stand."""
    return {
        name.removesuffix("_us"): _moment(value) if name.endswith("_us") else value
        for name, value in row.items()
        if name not in _NOT_THEIRS
    }


def _moment(at_us: int | None) -> str | None:
    if at_us is None or at_us not in _MOMENTS:
        return None
    return from_us(at_us).isoformat()
