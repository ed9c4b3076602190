"""Decisions of which nothing else may be kept, as sums by 5 minutes that lead to nobody: what is
counted without consent to analytics. The gateway adds up in memory and writes the sums, the worker
takes over what they grew by."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from serving.decision.outcome import Decision
from serving.monitoring.visits import BUCKET_US, decision_counters
from serving.state.sqlite_writer import connect

FILE: Final = "anonymous.sqlite"  # in the state folder
_KEPT_US: Final = 3 * 86_400_000_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS anonymous (
    source TEXT, start_us INTEGER, body TEXT, PRIMARY KEY (source, start_us)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Counted:
    """What one process has counted of 5 minutes so far, by counter."""

    source: str
    start_us: int
    counts: dict[str, float]


class AnonymousTally:
    """Of one gateway process, whose `source` is its own: so what it wrote is never added twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = str(uuid4())
        self._counts: dict[int, dict[str, float]] = {}
        self._changed: set[int] = set()

    def decided(self, decision: Decision, at_us: int) -> None:
        """Count a decision: its rung, its time, what was agreed to; nothing of whom it was for."""
        agreed = decision.subject.purposes if decision.agreed is None else decision.agreed
        what = decision_counters(
            rung=decision.rung,
            spent_ms=decision.response.timings_ms.get("total"),
            purposes=agreed,
            degraded=bool(decision.response.degraded),
            offered=bool(decision.response.offers),
        )
        start = at_us // BUCKET_US * BUCKET_US
        held = self._counts.setdefault(start, {})
        for name, amount in what.items():
            held[name] = held.get(name, 0.0) + amount
        self._changed.add(start)

    def taken(self) -> list[tuple[str, int, str]]:
        """What has changed since it was taken last, as rows to be written. On the loop's thread, as
        counting is."""
        changed = sorted(self._changed)
        rows = [(self._source, start, json.dumps(self._counts[start])) for start in changed]
        self._changed.clear()
        if changed:
            # Clocks only go forward: of a bucket before the last two nothing more comes.
            for start in [one for one in self._counts if one < changed[-1] - BUCKET_US]:
                del self._counts[start]
        return rows

    def write(self, rows: Sequence[tuple[str, int, str]]) -> None:
        """Write rows; on any thread. Those that can not be written are lost: they lead to nobody
        and nothing waits for them. Raises sqlite3.Error."""
        if not rows:
            return
        with closing(connect(self._path)) as file:
            file.executescript(_SCHEMA)
            file.execute("BEGIN IMMEDIATE")
            file.executemany("INSERT OR REPLACE INTO anonymous VALUES (?, ?, ?)", rows)
            file.execute("DELETE FROM anonymous WHERE start_us < ?", (rows[-1][1] - _KEPT_US,))
            file.execute("COMMIT")

    def flush(self) -> None:
        """Both, at the end."""
        self.write(self.taken())


def counted_in(path: Path) -> Iterator[Counted]:
    """What gateways have written; nothing where none did."""
    if not path.is_file():
        return
    with closing(connect(path, read_only=True)) as file:
        try:
            rows = file.execute("SELECT source, start_us, body FROM anonymous").fetchall()
        except sqlite3.OperationalError:  # it is made at this very moment
            return
    for source, start_us, body in rows:
        yield Counted(source, int(start_us), json.loads(body))
