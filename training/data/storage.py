"""Reading and writing `events/part-*.parquet` and `catalogue.parquet`; `events` may also be what
`tillwise-serve export` wrote, by day.

Writes are deterministic (same rows, same bytes) and appear under their final name only when they
are complete. Reads refuse anything that is not the schema, in one line that names the file.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from contract.catalogue import CATALOGUE_COLUMNS
from contract.errors import UserError
from contract.event_parts import PARTS_FILE, read_parts
from contract.frames import ADDED_COLUMNS, EVENT_SCHEMA, with_added

EVENTS_FOLDER = "events"
CATALOGUE_FILE = "catalogue.parquet"
SUBJECTS_FILE = "subjects.parquet"
SPLIT_FILE = "split.json"
CHECKOUTS_FILE = "checkouts.parquet"

_ARROW_TYPES = {
    "string": pa.string(),
    "list<string>": pa.list_(pa.string()),
    "int64": pa.int64(),
    "bool": pa.bool_(),
}
CATALOGUE_SCHEMA = pa.schema(
    [(name, _ARROW_TYPES[arrow_type]) for name, arrow_type in CATALOGUE_COLUMNS.items()]
)
# One row per checkout that was begun: what was offered with which chance, what could be chosen, and
# what came of it. `arm` is null where nothing was decided at random; `propensities` are of `arms`.
CHECKOUTS_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("subject_id", pa.string()),
        ("decided_at", pa.timestamp("us", tz="UTC")),
        ("context", EVENT_SCHEMA.field("context").type),
        ("items", EVENT_SCHEMA.field("items").type),
        ("value", pa.int64()),  # of the cart, minor units
        ("margin", pa.int64()),  # what the shop earns by it before any reduction, minor units
        ("arms", pa.list_(pa.string())),
        ("propensities", pa.list_(pa.float64())),
        ("reductions", pa.list_(pa.int64())),  # what each arm takes off a purchase, minor units
        ("arm", pa.string()),
        ("purchased", pa.bool_()),
        ("payment_methods", pa.list_(pa.string())),
        ("payment_type", pa.string()),  # null where it was not come to
        (
            "shipping_options",
            pa.list_(pa.struct([("id", pa.string()), ("price", pa.int64()), ("days", pa.int64())])),
        ),
        ("shipping_tier", pa.string()),
    ]
)
SUBJECTS_SCHEMA = pa.schema([("visitor_id", pa.string()), ("subject_id", pa.string())])

_EVENTS_PER_PART = 131_072
_ROW_GROUP = 131_072
Metadata = Mapping[str, str]


class EventsWriter:
    """Writes each table it is given as the next part of an `events` folder."""

    def __init__(self, folder: Path, metadata: Metadata | None) -> None:
        self._folder = folder
        self._metadata = metadata
        self.num_parts = 0
        self.num_events = 0

    def write(self, events: pa.Table) -> None:
        """Append `events` (columns of `EVENT_SCHEMA`, any castable types) as one part."""
        part = self._folder / f"part-{self.num_parts:05d}.parquet"
        _write(events.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA), part, self._metadata)
        self.num_parts += 1
        self.num_events += len(events)


@contextmanager
def events_writer(output: Path, metadata: Metadata | None = None) -> Iterator[EventsWriter]:
    """Replace `output/events` by what is written inside the block; on an error the old one stays.

    `metadata` becomes key-value metadata of every part.
    """
    make_folder(output)
    partial, final = output / ".events-partial", output / EVENTS_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield EventsWriter(partial, metadata)
        # A reader never sees a mixture of two imports: the old folder goes before the new comes.
        if final.exists():
            shutil.rmtree(final)
        partial.replace(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_events(
    rows: pa.Table, build: Callable[[pa.Table], pa.Table], output: Path, *, label: str
) -> None:
    """Write `rows`, turned into events by `build` a part at a time, with a progress bar."""
    with (
        events_writer(output) as writer,
        tqdm(total=len(rows), desc=label, unit="event", unit_scale=True, disable=None) as progress,
    ):
        for start in range(0, len(rows), _EVENTS_PER_PART):
            events = build(rows.slice(start, _EVENTS_PER_PART).combine_chunks())
            writer.write(events)
            progress.update(len(events))


def write_catalogue(catalogue: pa.Table, output: Path, metadata: Metadata | None = None) -> None:
    """Write `output/catalogue.parquet`, columns in the order of `CATALOGUE_COLUMNS`."""
    rows = catalogue.select(CATALOGUE_SCHEMA.names).cast(CATALOGUE_SCHEMA)
    write_parquet(rows, output / CATALOGUE_FILE, metadata)


def write_subjects(
    visitor_ids: Sequence[str],
    subject_ids: Sequence[str] | pa.Array,
    output: Path,
    metadata: Metadata | None = None,
) -> None:
    """Write `output/subjects.parquet`: which pseudonym stands for which visitor."""
    columns = {"visitor_id": visitor_ids, "subject_id": subject_ids}
    write_parquet(pa.table(columns, schema=SUBJECTS_SCHEMA), output / SUBJECTS_FILE, metadata)


def write_split(output: Path, days: Mapping[str, str]) -> None:
    """Write the window in which the data is to be trained on, chosen on and tested on."""
    (output / SPLIT_FILE).write_text(json.dumps(days, indent=1) + "\n", encoding="utf-8")


def write_parquet(table: pa.Table, path: Path, metadata: Metadata | None = None) -> None:
    """Write `table` to `path`, which appears only once it is complete."""
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.partial")
    try:
        _write(table, partial, metadata)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_events(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All parts of `folder/events` in order; `columns` limits what is read.

    Raises UserError when the folder, a part or a column is missing, a column is unknown or of the
    wrong type, or there are no events.
    """
    parts = event_parts(folder)
    return pa.concat_tables([read_parquet(part, EVENT_SCHEMA, columns) for part in parts])


def check_events(folder: Path) -> None:
    """Raises UserError as `read_events` does, reading no more than the end of each part."""
    for part in event_parts(folder):
        with _opened(part, EVENT_SCHEMA):
            pass


def read_catalogue(path: Path) -> pa.Table:
    """The catalogue in `path`, a file or a folder that holds `catalogue.parquet`.

    Raises UserError as `read_events` does.
    """
    return read_parquet(path / CATALOGUE_FILE if path.is_dir() else path, CATALOGUE_SCHEMA)


def read_parquet(
    path: Path, schema: pa.Schema | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of one file, checked against `schema` when one is given.

    Raises UserError naming the file and what is wrong with it.
    """
    with _opened(path, schema) as file:
        # Of a column that came later an older file has nothing; it is not asked for it.
        asked = [name for name in columns or () if name in file.schema_arrow.names]
        table = file.read(columns=asked if columns is not None else None)
    if schema is None:
        return table.replace_schema_metadata(None)
    names = schema.names if columns is None else list(columns)
    wanted = pa.schema([schema.field(name) for name in names])
    try:
        return with_added(table, names).select(names).cast(wanted)
    except pa.ArrowException as error:
        raise UserError(f"{path}: {_first_line(error)}") from error


def make_folder(folder: Path) -> None:
    """Create `folder`; raises UserError where something else has that name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{folder}: cannot be a folder, a file has that name") from error


def event_parts(folder: Path) -> list[Path]:
    """The files that hold the events of `folder`, in order. Raises UserError without any."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make it with `tillwise-train import`")
    events = folder / EVENTS_FOLDER
    listed = events / PARTS_FILE
    if listed.is_file():
        try:
            named = read_parts(listed.read_text(encoding="utf-8")).parts
        except ValueError as error:
            raise UserError(f"{listed}: {error}") from None
        parts = [events / part for part in named]
    else:
        parts = sorted(events.glob("*.parquet"))
    if not parts:
        raise UserError(f"{events}: no *.parquet files; import or simulate first")
    return parts


@contextmanager
def _opened(path: Path, schema: pa.Schema | None) -> Iterator[pq.ParquetFile]:
    """`path`, which has rows, in the columns of `schema` if one is given."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows == 0:
                raise UserError(f"{path}: holds no rows")
            if schema is not None:
                _check_columns(path, file.schema_arrow, schema)
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error


def _check_columns(path: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    later = ADDED_COLUMNS - set(found.names)
    missing = [name for name in wanted.names if name not in found.names and name not in later]
    if missing:
        raise UserError(f"{path}: lacks the columns {', '.join(missing)}")
    unknown = [name for name in found.names if name not in wanted.names]
    if unknown:
        raise UserError(f"{path}: has unknown columns {', '.join(unknown)}")
    for field in wanted:
        if field.name in later:
            continue
        there = found.field(field.name).type
        if not _castable(there, field.type):
            raise UserError(f"{path}: column {field.name} is {there}, not {field.type}")


def _castable(found: Any, wanted: Any) -> bool:
    """Whether `found` is `wanted` up to width: numbers never become text, nor text numbers."""
    kinds = (pa.types.is_integer, pa.types.is_timestamp, pa.types.is_boolean, pa.types.is_nested)
    if any(kind(found) != kind(wanted) for kind in kinds):
        return bool(pa.types.is_null(found))
    return True


def _write(table: pa.Table, path: Path, metadata: Metadata | None) -> None:
    if metadata is not None:
        table = table.replace_schema_metadata(dict(metadata))
    pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
