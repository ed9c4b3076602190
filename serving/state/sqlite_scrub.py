"""The look at a SQLite file after what stood in it was deleted."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

_SCAN_BYTES = 1 << 24


def scrub(connection: sqlite3.Connection, path: Path, traces: Sequence[bytes]) -> bool:
    """Make sure that `traces` are in neither the database nor its write-ahead log.

    Deleted cells are overwritten, but a page that was split or balanced may keep a stale copy in
    its gap. So the files are looked at, and written anew as a whole only if something is found.
    """
    for attempt in range(3):
        if attempt:
            connection.execute("VACUUM")
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        files = (path, path.with_name(path.name + "-wal"))
        if not busy and not any(holds_any(file, traces) for file in files):
            return True
    return False


def holds_any(path: Path, traces: Sequence[bytes]) -> bool:
    """Whether one of `traces` stands in the file."""
    if not traces or not path.exists():
        return False
    overlap = max(len(trace) for trace in traces) - 1
    with path.open("rb") as file:
        kept = b""
        while block := file.read(_SCAN_BYTES):
            window = kept + block
            if any(trace in window for trace in traces):
                return True
            kept = window[-overlap:] if overlap else b""
    return False
