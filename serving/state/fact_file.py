"""The facts that a worker keeps of subjects, under their log keys, as an erasure reaches them: all
tables of its file that have a column `subject`."""

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from serving.state.sqlite_writer import BUSY_SECONDS, connect

log = logging.getLogger(__name__)

_TABLES = (
    "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c "
    "WHERE m.type = 'table' AND c.name = 'subject'"
)


@dataclass(frozen=True)
class FactFile:
    """The file at `path`, which may not be there. `alone`: no other worker counts the same shop, as
    those beside other gateways do."""

    path: Path
    alone: bool
    busy_seconds: float = BUSY_SECONDS

    def forget(self, log_keys: Sequence[bytes]) -> bool:
        """Remove all that is held of erased subjects; False where that has to be tried again.

        A batch that the worker has read already does not bring them back: it looks once more who
        is there, in the transaction that writes, and that comes wholly before this one or after.
        """
        if not self.path.is_file():
            return True
        subjects = [(one.hex(),) for one in log_keys]
        try:
            with closing(connect(self.path, busy_seconds=self.busy_seconds)) as file:
                file.execute("BEGIN IMMEDIATE")
                for table in tables_of_subjects(file):
                    file.executemany(f"DELETE FROM {table} WHERE subject = ?", subjects)
                file.execute("COMMIT")
                # The write-ahead log still holds the pages as they were.
                (busy, _, _) = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            log.warning("facts of key figures are removed later: %s", error)
            return False
        return not busy

    def keeper_id(self) -> str | None:
        """The name of the worker that writes the file; None where there is none."""
        if not self.path.is_file():
            return None
        try:
            with closing(connect(self.path, read_only=True)) as file:
                row = file.execute("SELECT keeper_id FROM keeper").fetchone()
        except sqlite3.Error:  # of a version that had no name
            return None
        return None if row is None else str(row[0])


def tables_of_subjects(file: sqlite3.Connection) -> list[str]:
    """The tables that hold something of subjects."""
    return [str(table) for (table,) in file.execute(_TABLES)]
