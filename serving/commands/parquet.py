"""Columns of one Parquet file, or one line that says what is wrong with it."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import UserError
from contract.frames import ADDED_COLUMNS, EVENT_SCHEMA, with_added


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """`names` of the file; those of `EVENT_SCHEMA` in its types. What an earlier version did not
    write is empty. Raises UserError."""
    try:
        # Not read_table: that would load pyarrow's datasets, and pandas with them, for a second.
        with pq.ParquetFile(path) as file:
            absent = [name for name in names if name not in file.schema_arrow.names]
            missing = [name for name in absent if name not in ADDED_COLUMNS]
            if missing:
                raise UserError(f"{path}: lacks the columns {', '.join(missing)}")
            table = file.read(columns=[name for name in names if name not in absent])
        table = with_added(table, names).select(list(names))
        return table.cast(pa.schema([_typed(table.schema.field(name)) for name in names]))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make an import with `tillwise-train import`") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None


def _typed(field: pa.Field) -> pa.Field:
    known = field.name in EVENT_SCHEMA.names
    return EVENT_SCHEMA.field(field.name) if known else field
