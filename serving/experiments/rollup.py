"""What experiments and key figures need of the event log, kept in a file of its own, so that the
log is read once and never by the gateway.

It holds exposures, checkouts and orders under the random log keys of their subjects, which only the
control store can trace, and nothing of anybody without consent to `analytics`. Every round looks
for those who withdrew it or were erased, and lets go of them; their key is gone from the moment of
the erasure.

Facts of experiments are inserted once and joined when they are asked for, so late and repeated
events come out as they would have in order. `monitoring.kpi_rollup` keeps the sums for key figures
in the same file: what was read, and all that came of it, is one transaction.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from contract.clock import to_us
from contract.events import NO_AMOUNT, Event, given_back, order_amount
from serving.monitoring.anonymous import Counted
from serving.monitoring.kpi_rollup import KpiRollup
from serving.monitoring.kpis import FILE
from serving.state.control_records import FactKeeper
from serving.state.control_store import ControlStore
from serving.state.coupon_ledger import Settled
from serving.state.event_log import EventLog, Position
from serving.state.sqlite_writer import connect

__all__ = ["FILE", "Rollup", "read_report"]

_FORMER: Final = "experiments.sqlite"  # of a version that kept no key figures
_BATCH = 2_000
_LOOKED_AT = 20_000  # subjects a round, whether they still agree
_TOLD_EVERY = timedelta(minutes=1)  # so that it is known to be there
_TABLES = ("exposures", "checkouts", "shown", "orders", "bought", "refunds")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keeper (only INTEGER PRIMARY KEY CHECK (only = 1), keeper_id);
CREATE TABLE IF NOT EXISTS progress (only INTEGER PRIMARY KEY CHECK (only = 1), log_id, position);
CREATE TABLE IF NOT EXISTS exposures (
    experiment, subject, variant, first_us, last_us, mixed, device, country,
    PRIMARY KEY (experiment, subject)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkouts (
    subject, session, at_us, last_us, PRIMARY KEY (subject, session)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown (
    subject, session, item, PRIMARY KEY (subject, session, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
    subject, transaction_id, session, at_us, revenue, margin,
    PRIMARY KEY (subject, transaction_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bought (
    subject, transaction_id, item, PRIMARY KEY (subject, transaction_id, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refunds (
    event_id PRIMARY KEY, subject, transaction_id, amount, at_us) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reports (experiment PRIMARY KEY, body) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS exposures_by_subject ON exposures (subject);
CREATE INDEX IF NOT EXISTS refunds_by_subject ON refunds (subject);
"""
_EXPOSED = (
    "INSERT INTO exposures VALUES (?, ?, ?, ?, ?, 0, ?, ?) ON CONFLICT DO UPDATE SET "
    "mixed = mixed OR variant <> excluded.variant, "
    "first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)"
)
_CHECKED_OUT = (
    "INSERT INTO checkouts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "at_us = min(at_us, excluded.at_us), last_us = max(last_us, excluded.last_us)"
)
_SHOWN = "INSERT OR IGNORE INTO shown VALUES (?, ?, ?)"
_ORDERED = "INSERT OR IGNORE INTO orders VALUES (?, ?, ?, ?, ?, ?)"
_BOUGHT = "INSERT OR IGNORE INTO bought VALUES (?, ?, ?)"
_REFUNDED = "INSERT OR IGNORE INTO refunds VALUES (?, ?, ?, ?, ?)"
# What happened before a moment, of each table; what belongs to an order or a checkout goes with it.
_OLD = (
    "DELETE FROM exposures WHERE last_us < :before",
    "DELETE FROM shown WHERE (subject, session) IN "
    "(SELECT subject, session FROM checkouts WHERE last_us < :before)",
    "DELETE FROM checkouts WHERE last_us < :before",
    "DELETE FROM bought WHERE (subject, transaction_id) IN "
    "(SELECT subject, transaction_id FROM orders WHERE at_us < :before)",
    "DELETE FROM orders WHERE at_us < :before",
    "DELETE FROM refunds WHERE at_us < :before",
)
# Whoever stands in another table stands in one of these.
_SUBJECTS = " UNION ".join(
    f"SELECT * FROM (SELECT DISTINCT subject FROM {table} WHERE subject > :after "
    "ORDER BY subject LIMIT :most)"
    for table in ("checkouts", "orders", "refunds", "kpi_facts", "kpi_transactions")
)


class Rollup:
    """The file at `path`; one process at a time writes it."""

    def __init__(self, path: Path) -> None:
        path.with_name(_FORMER).unlink(missing_ok=True)  # the log is read again
        self.file = connect(path)
        self.file.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        self.kpis = KpiRollup(self.file)
        self._date_refunds()
        self.file.execute("INSERT OR IGNORE INTO keeper VALUES (1, ?)", (str(uuid4()),))
        (self.keeper_id,) = self.file.execute("SELECT keeper_id FROM keeper").fetchone()
        self._looked_after = ""
        self._erasures = -1  # as many as were looked for here
        self._in_log = False  # what was removed may stand in the write-ahead log
        self._told: FactKeeper | None = None

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def follow(
        self,
        event_log: EventLog,
        control: ControlStore,
        ends: Callable[[], bool] = lambda: False,
    ) -> int:
        """Take over what is new in the log; returns how many events that were. `ends`: whether to
        leave the rest for the next time."""
        row = self.file.execute("SELECT log_id, position FROM progress").fetchone()
        position: Position = 0 if isinstance(event_log.last_position, int) else ()
        if row is not None and row[0] == event_log.log_id:
            said = json.loads(row[1])
            position = said if isinstance(said, int) else tuple(said)
        elif row is not None:
            self._empty()
        costs = {
            item_id: change.cost
            for item_id, change, _ in control.items_changed_since(0)
            if change.cost is not None
        }
        count, waiting = 0, list[Event]()
        for here, event in event_log.read_from(position):
            waiting.append(event)
            count += 1
            if len(waiting) >= _BATCH:
                self._take(waiting, control, costs, event_log.log_id, here)
                waiting = []
                if control.erasures() != self._erasures:
                    self.forget(control)
                if ends():
                    break
        if waiting:
            self._take(waiting, control, costs, event_log.log_id, here)
        return count

    def forget(self, control: ControlStore) -> int:
        """Let go of subjects who were erased or no longer agree; returns how many. A round looks at
        as many as take no time, and the next one at those after them; after an erasure, by whatever
        gateway, it looks at everybody."""
        erasures = control.erasures()
        if erasures == self._erasures:
            return self._forget_some(control)
        self._looked_after = ""
        count = self._forget_some(control)
        while self._looked_after:
            count += self._forget_some(control)
        self._erasures = erasures
        return count

    def tell(self, control: ControlStore, at: datetime) -> None:
        """Tell all gateways of which erasures nothing is left here, for their receipts."""
        if self._in_log:
            # A reader may hold it; then the next round says so.
            (held, _, _) = self.file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._in_log = bool(held)
        now, before = FactKeeper(self.keeper_id, self._erasures, at), self._told
        if self._in_log or (
            before is not None
            and before.erasures == now.erasures
            and at - before.said_at < _TOLD_EVERY
        ):
            return
        asyncio.run(control.note_fact_keeper(now))
        self._told = now

    def _forget_some(self, control: ControlStore) -> int:
        rows = self.file.execute(
            f"SELECT subject FROM ({_SUBJECTS}) ORDER BY subject LIMIT :most",
            {"after": self._looked_after, "most": _LOOKED_AT},
        ).fetchall()
        looked_at = [str(row[0]) for row in rows]
        gone = _departed(looked_at, control)
        with self._transaction():
            for table in _TABLES:
                self.file.executemany(
                    f"DELETE FROM {table} WHERE subject = ?", [(one,) for one in gone]
                )
            self.kpis.forget(gone)
        self._in_log |= bool(gone)
        self._looked_after = looked_at[-1] if len(looked_at) == _LOOKED_AT else ""
        return len(gone)

    def add_anonymous(self, counted: Iterable[Counted]) -> None:
        """Take over sums of decisions of which nothing else is kept."""
        with self._transaction():
            self.kpis.anonymous(counted)

    def add_redeemed(self, settled: Iterable[Settled]) -> None:
        """Take over what redeemed offers take off transactions."""
        with self._transaction():
            for one in settled:
                self.kpis.redeemed(one.transaction_id, one.amount, one.at_us)

    def tidy(self, before_us: int) -> None:
        """Remove what is older than anybody asks for, and facts of what happened before then."""
        with self._transaction():
            self.kpis.tidy(before_us)
            for statement in _OLD:
                self.file.execute(statement, {"before": before_us})

    def keep_report(self, key: str, body: str) -> None:
        """Keep the JSON `body` as the latest report of an experiment."""
        self.file.execute("INSERT OR REPLACE INTO reports VALUES (?, ?)", (key, body))

    def _date_refunds(self) -> None:
        """Those of a version that did not put their time down are kept as if they were of today."""
        if "at_us" not in {str(row[1]) for row in self.file.execute("PRAGMA table_info(refunds)")}:
            with self._transaction():
                self.file.execute("ALTER TABLE refunds ADD COLUMN at_us")
                self.file.execute("UPDATE refunds SET at_us = ?", (self.kpis.latest_us,))

    def _empty(self) -> None:
        with self._transaction():
            for table in (*_TABLES, "reports", "progress"):
                self.file.execute(f"DELETE FROM {table}")
            self.kpis.empty()

    def _transaction(self) -> "_Transaction":
        return _Transaction(self.file)

    def _take(
        self,
        events: Iterable[Event],
        control: ControlStore,
        costs: Mapping[str, int],
        log_id: str,
        position: Position,
    ) -> None:
        """All of `events` and how far they lead, or nothing."""
        facts = _Facts(costs)
        with self._transaction():
            # Who is there is asked in here: a gateway that erases somebody destroys the key, and
            # then removes what this file holds, before this transaction or after it.
            kept = _agreed(events, control)
            for subject, event in kept:
                facts.note(subject, event)
            for statement, rows in facts.rows.items():
                self.file.executemany(statement, rows)
            self.kpis.take(kept, costs)
            self.file.execute(
                "INSERT OR REPLACE INTO progress VALUES (1, ?, ?)", (log_id, json.dumps(position))
            )


def _agreed(events: Iterable[Event], control: ControlStore) -> list[tuple[str, Event]]:
    """The events that may be counted, with the log key (hex) of their subjects."""
    control.see_all()
    names: dict[UUID, str | None] = {}
    kept: list[tuple[str, Event]] = []
    for event in events:
        if event.subject_id not in names:
            key = control.subject_key(str(event.subject_id))
            names[event.subject_id] = None if key is None else key.log_key.hex()
        subject = names[event.subject_id]
        if subject is not None and "analytics" in event.purposes:
            kept.append((subject, event))
    return kept


class _Facts:
    """What events say of experiments, as rows for the statements that write them."""

    def __init__(self, costs: Mapping[str, int]) -> None:
        self._costs = costs
        self.rows: dict[str, list[tuple[object, ...]]] = {}

    def note(self, subject: str, event: Event) -> None:
        """Take down one event."""
        if event.event_name == "decision" and event.decision is not None:
            self._exposed(subject, event, event.decision)
        elif event.event_name == "purchase":
            self._ordered(subject, event)
        elif event.event_name == "refund":
            what = (event.transaction_id, given_back(event), to_us(event.occurred_at))
            self._write(_REFUNDED, str(event.event_id), subject, *what)

    def _write(self, statement: str, *row: object) -> None:
        self.rows.setdefault(statement, []).append(row)

    def _exposed(self, subject: str, event: Event, decision: Mapping[str, object]) -> None:
        arms = decision.get("experiments")
        if not isinstance(arms, list) or not arms:
            return
        at_us, context = to_us(event.occurred_at), event.context
        device = None if context is None else context.device
        country = None if context is None else context.country
        for arm in arms:
            who = (arm["key"], subject, arm["variant"])
            self._write(_EXPOSED, *who, at_us, at_us, device, country)
        self._write(_CHECKED_OUT, subject, event.session_id, at_us, at_us)
        for item in event.items:
            self._write(_SHOWN, subject, event.session_id, item.item_id)

    def _ordered(self, subject: str, event: Event) -> None:
        amount = order_amount(event)
        revenue = None if amount == NO_AMOUNT else amount
        margin = None
        if revenue is not None and all(item.item_id in self._costs for item in event.items):
            margin = revenue - sum(self._costs[one.item_id] * one.quantity for one in event.items)
        order = (subject, event.transaction_id)
        at_us = to_us(event.occurred_at)
        self._write(_ORDERED, *order, event.session_id, at_us, revenue, margin)
        for item in event.items:
            self._write(_BOUGHT, *order, item.item_id)


class _Transaction:
    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._file.execute("COMMIT" if kind is None else "ROLLBACK")


def _departed(subjects: Sequence[str], control: ControlStore) -> list[str]:
    """Those who were erased or agree to no analytics any more."""
    names = {
        key.log_key.hex(): key.subject_id
        for key in control.subject_keys(log_keys=[bytes.fromhex(one) for one in subjects])
    }
    agreed = control.agreed_by(list(names.values()))
    return [
        one
        for one in subjects
        if one not in names or "analytics" not in agreed.get(names[one], frozenset())
    ]


def read_report(path: Path, key: str) -> str | None:
    """The latest report of an experiment as JSON; None: none was made. Raises sqlite3.Error."""
    if not path.is_file():
        return None
    with closing(connect(path, read_only=True)) as file:
        made = "SELECT 1 FROM sqlite_master WHERE name = 'reports'"
        if file.execute(made).fetchone() is None:  # at this very moment it is made
            return None
        row = file.execute("SELECT body FROM reports WHERE experiment = ?", (key,)).fetchone()
    return None if row is None else str(row[0])
