"""A copy of some tables of a PostgreSQL database, for reads that take microseconds and wait for
nobody: a SQLite file of this process, thrown away at its end, that follows the numbered changes.

It counts as true for a second after the database last confirmed it, and for no longer.
"""

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from serving.state.group_writer import StoreError
from serving.state.postgres_changes import changes_since
from serving.state.sql import Step
from serving.state.sqlite_scrub import scrub
from serving.state.sqlite_writer import connect

VALID_SECONDS = 1.0
_FILE = "copy.sqlite"
_PREFIX = "copy-"
_AT_ONCE = 2_000
_LOG_BYTES = 1 << 24

_Change = tuple[int, str, Any]  # number, name of the table, row


class LocalCopy:
    """Followed by any number of threads, one at a time."""

    def __init__(
        self,
        folder: Path,
        make_tables: Step,
        tables: Sequence[str],
        traces: Mapping[str, Sequence[str]],
    ) -> None:
        """`traces`: the columns, by table, whose values must stand nowhere in the file once rows of
        the first of these tables are gone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(folder)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        self._held = _hold(self._folder)
        self.path = self._folder / _FILE
        self._connection: sqlite3.Connection = connect(self.path)
        self._connection.execute("PRAGMA synchronous=OFF")  # a crash leaves nobody to read it
        self._connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        self._lock = Lock()
        self._tables, self._traces = tuple(tables), traces
        self._query = changes_since(tables)
        self._traces_left: list[bytes] = []
        self._rewrite = False
        self._columns: dict[str, list[tuple[str, bool]]] = {}
        self._number, self._epoch, self._confirmed = -1, "", float("-inf")
        self._make(make_tables)

    def _make(self, make_tables: Step) -> None:
        self._connection.execute("BEGIN")
        make_tables(self._connection)
        for name in self._tables:
            for column in ("changed", "row_number"):
                self._connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} INTEGER")
            self._connection.execute(f"CREATE INDEX {name}_by_row ON {name} (row_number)")
            self._connection.execute(f"DELETE FROM {name}")  # what every store begins with
            columns = self._connection.execute(f"PRAGMA table_info({name})").fetchall()
            self._columns[name] = [(one[1], one[2] == "BLOB") for one in columns]
        self._connection.execute("COMMIT")

    def check(self) -> None:
        """Raises StoreError when the copy may be out of date."""
        age = time.monotonic() - self._confirmed
        if age > VALID_SECONDS:
            raise StoreError(f"the control store has not been heard of for {min(age, 1e6):.1f} s")

    def doubt(self) -> None:
        """Until it is confirmed again, nobody may rely on it."""
        self._confirmed = float("-inf")

    def catch_up(self, raw: Any) -> None:
        """Take over what changed, asking on the psycopg connection `raw`: one round trip.

        Raises psycopg.Error, and StoreError when the copy can not be written.
        """
        with self._lock:
            try:
                if not self._caught_up(raw, self._number):
                    self._caught_up(raw, -1)
            except sqlite3.Error as error:
                raise StoreError(f"the copy of the control store: {error}") from error

    def _caught_up(self, raw: Any, after: int) -> bool:
        """False: what came after `after` is not to be told from this database."""
        asked_at = time.monotonic()
        with _asked(raw, self._query, after) as changes:
            forgotten, _, following = next(changes)
            epoch, latest = following["epoch"], following["latest"]
            if after >= 0 and not (epoch == self._epoch and forgotten <= after <= latest):
                return False
            self._apply(changes, after)
        self._epoch, self._confirmed = epoch, asked_at
        return True

    def _apply(self, changes: Iterator[_Change], after: int) -> None:
        """All of `changes` as one transaction."""
        first = next(changes, None)
        if after >= 0 and first is None:
            return
        reached = max(after, 0)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if after < 0:
                self._empty()
            while some := ([] if first is None else [first]) + list(islice(changes, _AT_ONCE)):
                first = None
                reached = max(reached, *(number for number, _, _ in some))
                self._lay(some)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._number = reached

    def _empty(self) -> None:
        for name in self._tables:
            self._connection.execute(f"DELETE FROM {name}")
        # Whoever was erased since then is not named any more.
        self._rewrite = self._number >= 0

    def _lay(self, changes: Sequence[_Change]) -> None:
        """Rows by their primary key, and what is gone by the number of the row."""
        rows: dict[str, list[Any]] = defaultdict(list)
        for _, name, body in changes:
            rows[name].append(body)
        gone = {name: rows.get(f"gone {name}", ()) for name in self._tables}
        if gone[next(iter(self._traces))]:
            for name, traced in self._traces.items():
                self._note_traces(name, traced, gone[name])
        for name in self._tables:
            self._connection.executemany(
                f"DELETE FROM {name} WHERE row_number = ?", [(one,) for one in gone[name]]
            )
            columns = self._columns[name]
            named = ",".join(f'"{column}"' for column, _ in columns)
            self._connection.executemany(
                f"INSERT OR REPLACE INTO {name} ({named}) VALUES ({','.join('?' * len(columns))})",
                [[_value(body, *column) for column in columns] for body in rows.get(name, ())],
            )

    def _note_traces(self, name: str, columns: Sequence[str], rows: Sequence[int]) -> None:
        asked = f"SELECT {','.join(columns)} FROM {name} WHERE row_number = ?"
        for one in rows:
            for value in self._connection.execute(asked, (one,)).fetchone() or ():
                self._traces_left.append(value.encode() if isinstance(value, str) else value)

    def clean(self) -> None:
        """Make sure that nothing of who was erased stands in the file any more. Raises StoreError.
        Others go on reading meanwhile."""
        with self._lock:
            try:
                if self._rewrite:
                    self._connection.execute("VACUUM")
                if self._rewrite or self._traces_left:
                    if not scrub(self._connection, self.path, self._traces_left):
                        return  # somebody is reading: next time
                    self._rewrite, self._traces_left = False, []
            except sqlite3.Error as error:
                raise StoreError(f"the copy of the control store: {error}") from error

    def close(self) -> None:
        """Remove it. May be called twice."""
        with self._lock:
            self._connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._held is not None:
                os.close(self._held)
                self._held = None


@contextmanager
def _asked(raw: Any, query: str, after: int) -> Iterator[Iterator[_Change]]:
    if after >= 0:
        with raw.cursor() as cursor:
            yield iter(cursor.execute(query, {"after": after}).fetchall())
        return
    # Some at a time, so that a first copy of millions takes no memory.
    with raw.transaction(), raw.cursor(name="copy") as cursor:
        cursor.itersize = _AT_ONCE
        cursor.execute(query, {"after": after})
        yield iter(cursor)


def _value(body: Mapping[str, Any], column: str, is_bytes: bool) -> Any:
    said = body.get(column)
    return bytes.fromhex(said[2:]) if is_bytes and said is not None else said


def _hold(folder: Path) -> int | None:
    """A lock on `folder` for as long as this process lives; None: another one has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(folder: Path) -> None:
    """Copies of processes that were killed: nobody keeps them true, or erases from them."""
    for one in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            held = _hold(one)
            if held is not None:
                shutil.rmtree(one, ignore_errors=True)
                os.close(held)
