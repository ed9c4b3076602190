"""The sums behind the key figures, and the facts of subjects that they are made from, as tables of
the worker's file. A batch of events, the sums and how far the log was read are one transaction of
whoever calls, so nothing counts twice and nothing is left out, whenever the process dies.

Facts stand under the random log keys of their subjects and go with a withdrawal, an erasure or
their age; sums know nobody and stay.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from contract.clock import to_us
from contract.events import Event
from serving.monitoring.anonymous import Counted
from serving.monitoring.kpi_metrics import COUNTERS, PLACE
from serving.monitoring.kpis import DAY, GRAINS, HOUR, MINUTES_5
from serving.monitoring.visits import (
    BUCKET_US,
    ORDER_US,
    Counts,
    SubjectFacts,
    add,
    decided,
    read_facts,
)

TABLES: Final = ("kpi_facts", "kpi_transactions")  # of subjects
KEPT_US: Final = {MINUTES_5: 70 * DAY, HOUR: 800 * DAY}  # days are kept for good
_COLUMNS: Final = ", ".join(f"{name} NOT NULL DEFAULT 0" for name in COUNTERS)
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS kpi_sums (
    grain INTEGER, cut TEXT, value TEXT, start_us INTEGER, {_COLUMNS},
    PRIMARY KEY (grain, cut, value, start_us)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kpi_slices (
    cut TEXT, value TEXT, first_us INTEGER, last_us INTEGER,
    PRIMARY KEY (cut, value)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kpi_latest (only INTEGER PRIMARY KEY CHECK (only = 1), latest_us);
CREATE TABLE IF NOT EXISTS kpi_facts (subject PRIMARY KEY, latest_us, body) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kpi_facts_by_age ON kpi_facts (latest_us);
CREATE TABLE IF NOT EXISTS kpi_transactions (
    transaction_id PRIMARY KEY, subject) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kpi_transactions_by_subject ON kpi_transactions (subject);
CREATE TABLE IF NOT EXISTS kpi_redeemed (
    transaction_id PRIMARY KEY, amount, at_us) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kpi_anonymous (source, start_us, body, PRIMARY KEY (source, start_us))
    WITHOUT ROWID;
"""
_ADD = (
    f"INSERT INTO kpi_sums (grain, cut, value, start_us, {', '.join(COUNTERS)}) "
    f"VALUES ({', '.join('?' * (4 + len(COUNTERS)))}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTERS)
)
_SEEN = (
    "INSERT INTO kpi_slices VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)"
)
_MOST_SLICES: Final = 500  # of one cut; what comes after them counts in ALL alone


class KpiRollup:
    """Writes the tables through `file`, whose transactions are the caller's."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file
        file.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        held = {str(row[1]) for row in file.execute("PRAGMA table_info(kpi_sums)")}
        for name in COUNTERS:
            if name not in held:  # of a version that did not count it
                file.execute(f"ALTER TABLE kpi_sums ADD COLUMN {name} NOT NULL DEFAULT 0")
        self._values: dict[str, set[str]] = {}
        for cut, value in file.execute("SELECT cut, value FROM kpi_slices"):
            self._values.setdefault(cut, set()).add(value)

    def take(self, events: Iterable[tuple[str, Event]], costs: Mapping[str, int]) -> None:
        """Count events, each with the log key of its subject (hex); all of them agreed to."""
        by_subject: dict[str, list[Event]] = {}
        for subject, event in events:
            by_subject.setdefault(subject, []).append(event)
        latest_us = self.latest_us
        counts: Counts = {}
        for subject, theirs in by_subject.items():
            facts = self._facts(subject)
            facts.prune(latest_us)
            before = facts.counted()
            for event in theirs:
                latest_us = max(latest_us, to_us(event.occurred_at))
                self._note(subject, facts, event, costs, counts)
            _merge(counts, facts.counted(), 1.0)
            _merge(counts, before, -1.0)
            facts.prune(latest_us)
            self._keep(subject, facts)
        self._add(counts)
        self._file.execute("INSERT OR REPLACE INTO kpi_latest VALUES (1, ?)", (latest_us,))

    def redeemed(self, transaction_id: str, amount: int, at_us: int) -> None:
        """What redeemed offers take off a transaction, by now."""
        self._file.execute(
            "INSERT OR REPLACE INTO kpi_redeemed VALUES (?, ?, ?)", (transaction_id, amount, at_us)
        )
        row = self._file.execute(
            "SELECT subject FROM kpi_transactions WHERE transaction_id = ?", (transaction_id,)
        ).fetchone()
        if row is None:
            return  # of nobody who is known, or not told yet
        facts = self._facts(row[0])
        counts: Counts = {}
        _merge(counts, facts.counted(), -1.0)
        facts.offers[transaction_id] = amount
        _merge(counts, facts.counted(), 1.0)
        self._keep(row[0], facts)
        self._add(counts)

    def anonymous(self, counted: Iterable[Counted]) -> None:
        """Take over what grew of sums that lead to nobody. Those of a process only grow."""
        counts: Counts = {}
        for one in counted:
            key = (one.source, one.start_us)
            row = self._file.execute(
                "SELECT body FROM kpi_anonymous WHERE source = ? AND start_us = ?", key
            ).fetchone()
            before: dict[str, float] = {} if row is None else json.loads(row[0])
            if one.counts == before:
                continue
            grown = {
                name: amount - before.get(name, 0.0)
                for name, amount in one.counts.items()
                if name in PLACE
            }
            add(counts, one.start_us, [("all", "")], grown)
            self._file.execute(
                "INSERT OR REPLACE INTO kpi_anonymous VALUES (?, ?, ?)",
                (*key, json.dumps(one.counts)),
            )
        self._add(counts)

    def redeemed_until(self) -> int:
        """When the latest redemption or rollback happened that is known here; 0: none is."""
        (at_us,) = self._file.execute("SELECT max(at_us) FROM kpi_redeemed").fetchone()
        return 0 if at_us is None else int(at_us)

    def forget(self, subjects: Iterable[str]) -> None:
        """Let go of the facts of these subjects."""
        gone = [(one,) for one in subjects]
        for table in TABLES:
            self._file.executemany(f"DELETE FROM {table} WHERE subject = ?", gone)

    def tidy(self) -> None:
        """Remove facts that nothing can change any more, and buckets finer than their age asks."""
        old = self.latest_us - ORDER_US
        self._file.execute(
            "DELETE FROM kpi_transactions WHERE subject IN "
            "(SELECT subject FROM kpi_facts WHERE latest_us < ?)",
            (old,),
        )
        self._file.execute("DELETE FROM kpi_facts WHERE latest_us < ?", (old,))
        self._file.execute("DELETE FROM kpi_redeemed WHERE at_us < ?", (old,))
        self._file.execute("DELETE FROM kpi_anonymous WHERE start_us < ?", (old,))
        for grain, kept_us in KEPT_US.items():
            # One range for each slice, because the key begins with them.
            self._file.executemany(
                "DELETE FROM kpi_sums WHERE grain = ? AND cut = ? AND value = ? AND start_us < ?",
                [
                    (grain, cut, value, self.latest_us - kept_us)
                    for cut, values in self._values.items()
                    for value in values
                ],
            )

    def empty(self) -> None:
        """Forget everything: the log is another one."""
        for table in (*TABLES, "kpi_sums", "kpi_slices", "kpi_latest", "kpi_redeemed"):
            self._file.execute(f"DELETE FROM {table}")
        self._file.execute("DELETE FROM kpi_anonymous")
        self._values = {}

    @property
    def latest_us(self) -> int:
        """When the latest event happened that was counted; 0 before the first."""
        row = self._file.execute("SELECT latest_us FROM kpi_latest").fetchone()
        return 0 if row is None else int(row[0])

    def _note(
        self,
        subject: str,
        facts: SubjectFacts,
        event: Event,
        costs: Mapping[str, int],
        counts: Counts,
    ) -> None:
        if event.event_name == "decision":
            name = event.event_id.hex[:16]
            if event.decision is None or name in facts.seen:
                return
            facts.seen[name] = to_us(event.occurred_at)
            _merge(counts, decided(event, event.decision), 1.0)
        facts.note(event, costs)
        if event.event_name == "purchase" and event.transaction_id:
            told = (event.transaction_id, subject)
            self._file.execute("INSERT OR REPLACE INTO kpi_transactions VALUES (?, ?)", told)
            row = self._file.execute(
                "SELECT amount FROM kpi_redeemed WHERE transaction_id = ?", told[:1]
            ).fetchone()
            if row is not None:
                facts.offers[event.transaction_id] = int(row[0])

    def _facts(self, subject: str) -> SubjectFacts:
        row = self._file.execute(
            "SELECT body FROM kpi_facts WHERE subject = ?", (subject,)
        ).fetchone()
        return SubjectFacts() if row is None else read_facts(row[0])

    def _keep(self, subject: str, facts: SubjectFacts) -> None:
        row = (subject, facts.latest_us, facts.as_json())
        self._file.execute("INSERT OR REPLACE INTO kpi_facts VALUES (?, ?, ?)", row)

    def _add(self, counts: Counts) -> None:
        sums: dict[tuple[int, str, str, int], list[float]] = {}
        spans: dict[tuple[str, str], tuple[int, int]] = {}
        for (start, cut, value), row in counts.items():
            if not any(row) or not self._admitted(cut, value):
                continue
            first, last = spans.get((cut, value), (start, start))
            spans[cut, value] = min(first, start), max(last, start)
            for grain in GRAINS:
                key = (grain, cut, value, start // grain * grain)
                held = sums.get(key)
                if held is None:
                    sums[key] = row.copy()
                else:
                    for place, amount in enumerate(row):
                        if amount:
                            held[place] += amount
        self._file.executemany(_ADD, [(*key, *map(_whole, row)) for key, row in sums.items()])
        self._file.executemany(_SEEN, [(*key, *span) for key, span in spans.items()])

    def _admitted(self, cut: str, value: str) -> bool:
        """Whether that slice is counted: callers choose some of these names."""
        values = self._values.setdefault(cut, set())
        if value in values:
            return True
        if len(values) >= _MOST_SLICES:
            return False
        values.add(value)
        return True


def _merge(into: Counts, counts: Counts, sign: float) -> None:
    for key, row in counts.items():
        held = into.get(key)
        if held is None:
            into[key] = [sign * amount for amount in row]
        else:
            for place, amount in enumerate(row):
                if amount:
                    held[place] += sign * amount


def _whole(amount: float) -> float | int:
    """As an integer where it is one: SQLite keeps 0 and 1 in no bytes at all."""
    return int(amount) if amount.is_integer() else amount


assert BUCKET_US == MINUTES_5
