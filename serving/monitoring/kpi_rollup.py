"""The sums behind the key figures, and the facts of subjects that they are made from, as tables of
the worker's file. A batch of events, the sums and how far the log was read are one transaction of
whoever calls, so nothing counts twice and nothing is left out, whenever the process dies.

Facts stand under the random log keys of their subjects and go with a withdrawal, an erasure or
their age; sums know nobody and stay. Of an order its name outlasts the facts, for as long as
behaviour is kept, so that it does not count again when it is told once more.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
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
    decided,
    merge,
    read_facts,
)

_Key = tuple[int, str, str, int]  # grain, cut, value, start
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
DROP INDEX IF EXISTS kpi_facts_by_age;
CREATE TABLE IF NOT EXISTS kpi_transactions (
    transaction_id PRIMARY KEY, subject, at_us) WITHOUT ROWID;
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
# Of all that a batch speaks of at once.
_HELD = "SELECT subject, body FROM kpi_facts WHERE subject IN (SELECT value FROM json_each(?))"
_REDEEMED = (
    "SELECT transaction_id, amount FROM kpi_redeemed "
    "WHERE transaction_id IN (SELECT value FROM json_each(?))"
)
_NOTED = (
    "SELECT transaction_id, subject FROM kpi_transactions "
    "WHERE transaction_id IN (SELECT value FROM json_each(?))"
)
_NOTE = (
    "INSERT INTO kpi_transactions VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
    "subject = excluded.subject, at_us = max(at_us, excluded.at_us)"
)
_KEEP = (
    "INSERT INTO kpi_facts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
    "latest_us = excluded.latest_us, body = excluded.body"
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
                if name == "valued":  # until then every order counted as one
                    file.execute("UPDATE kpi_sums SET valued = orders")
        if "at_us" not in {row[1] for row in file.execute("PRAGMA table_info(kpi_transactions)")}:
            # Of a version that did not put it down: as if they were of today.
            file.execute("ALTER TABLE kpi_transactions ADD COLUMN at_us")
            file.execute("UPDATE kpi_transactions SET at_us = ?", (self.latest_us,))
        self._values: dict[str, set[str]] = {}
        for cut, value in file.execute("SELECT cut, value FROM kpi_slices"):
            self._values.setdefault(cut, set()).add(value)

    def take(self, events: Iterable[tuple[str, Event]], costs: Mapping[str, int]) -> None:
        """Count events, each with the log key of its subject (hex); all of them agreed to."""
        by_subject: dict[str, list[tuple[int, Event]]] = {}
        latest_us = self.latest_us
        for subject, event in events:
            at_us = to_us(event.occurred_at)
            latest_us = max(latest_us, at_us)
            by_subject.setdefault(subject, []).append((at_us, event))
        held = self._held(by_subject)
        known, offers = self._noted_orders(by_subject)
        counts: Counts = {}
        kept = []
        for subject in sorted(by_subject):  # as they lie in the file
            facts = held.get(subject) or SubjectFacts()
            merge(counts, facts.counted(), -1)
            for at_us, event in by_subject[subject]:
                if event.event_name == "decision" and not _decided(facts, event, at_us, counts):
                    continue
                if (event.transaction_id, subject) in known and _settled(facts, event):
                    continue
                facts.note(event, at_us, costs)
                if event.transaction_id in offers and event.event_name == "purchase":
                    facts.offers[event.transaction_id] = offers[event.transaction_id]
            merge(counts, facts.counted(), 1)
            facts.prune(latest_us)
            kept.append(_row(subject, facts))
        self._file.executemany(_KEEP, kept)
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
        subject = str(row[0])
        facts = self._held([subject]).get(subject)
        if facts is None or transaction_id not in facts.orders:
            return  # counted so long ago that nothing changes it
        counts: Counts = {}
        merge(counts, facts.counted(), -1)
        facts.offers[transaction_id] = amount
        merge(counts, facts.counted(), 1)
        self._file.execute(_KEEP, _row(subject, facts))
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
            grown = [
                (PLACE[name], amount - before.get(name, 0.0))
                for name, amount in one.counts.items()
                if name in PLACE
            ]
            place = (one.start_us // BUCKET_US * BUCKET_US, (("all", ""),), tuple(grown))
            merge(counts, {place: 1}, 1)
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

    def tidy(self, before_us: int = 0) -> None:
        """Remove facts that nothing can change any more or that are of before then, names of orders
        of before then, and buckets finer than their age asks. Facts are looked through as a whole:
        an index by age would be a third of their writing."""
        old = self.latest_us - ORDER_US
        facts = max(old, before_us)
        self._file.execute("DELETE FROM kpi_transactions WHERE at_us < ?", (before_us,))
        self._file.execute("DELETE FROM kpi_facts WHERE latest_us < ?", (facts,))
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

    def _held(self, subjects: Iterable[str]) -> dict[str, SubjectFacts]:
        """The facts of those of these subjects of whom there are any."""
        rows = self._file.execute(_HELD, (json.dumps(list(subjects)),))
        return {subject: read_facts(body) for subject, body in rows}

    def _noted_orders(
        self, by_subject: Mapping[str, Sequence[tuple[int, Event]]]
    ) -> tuple[set[tuple[str, str]], dict[str, int]]:
        """Put down whose the orders among these events are. Returns (transaction, subject) of those
        that stood there before, and what offers take off those that were redeemed already."""
        orders = [
            (event.transaction_id, subject, at_us)
            for subject, theirs in by_subject.items()
            for at_us, event in theirs
            if event.event_name == "purchase" and event.transaction_id
        ]
        told = (json.dumps([transaction for transaction, *_ in orders]),)
        known = set(self._file.execute(_NOTED, told))
        self._file.executemany(_NOTE, orders)
        return known, dict(self._file.execute(_REDEEMED, told))

    def _add(self, counts: Counts) -> None:
        sums = self._fine_sums(counts)
        spans: dict[tuple[str, str], tuple[int, int]] = {}
        for (_, cut, value, start), row in list(sums.items()):
            first, last = spans.get((cut, value), (start, start))
            spans[cut, value] = min(first, start), max(last, start)
            counted = [(place, amount) for place, amount in enumerate(row) if amount]
            for grain in GRAINS[1:]:
                key = (grain, cut, value, start // grain * grain)
                held = sums.get(key)
                if held is None:
                    held = sums[key] = [0.0] * len(COUNTERS)
                for place, amount in counted:
                    held[place] += amount
        self._file.executemany(_ADD, [(*key, *_whole(row)) for key, row in sums.items()])
        self._file.executemany(_SEEN, [(*key, *span) for key, span in spans.items()])

    def _fine_sums(self, counts: Counts) -> dict[_Key, list[float]]:
        """Counters by 5 minutes and slice, of those slices that are admitted."""
        sums: dict[_Key, list[float]] = {}
        for (start, where, what), often in counts.items():
            if not often:
                continue
            for cut, value in where:
                key = (MINUTES_5, cut, value, start)
                row = sums.get(key)
                if row is None:
                    if not self._admitted(cut, value):
                        continue
                    row = sums[key] = [0.0] * len(COUNTERS)
                for place, amount in what:
                    row[place] += often * amount
        return sums

    def _admitted(self, cut: str, value: str) -> bool:
        """Whether that slice is counted: callers choose some of these names."""
        values = self._values.setdefault(cut, set())
        if value in values:
            return True
        if len(values) >= _MOST_SLICES:
            return False
        values.add(value)
        return True


def _decided(facts: SubjectFacts, event: Event, at_us: int, counts: Counts) -> bool:
    """Count the decision that `event` is; False where it was counted before, or is none."""
    name = event.event_id.hex[:16]
    if event.decision is None or name in facts.seen:
        return False
    facts.seen[name] = at_us
    merge(counts, decided(event, at_us, event.decision), 1)
    return True


def _settled(facts: SubjectFacts, event: Event) -> bool:
    """Whether `event` tells once more of an order that was counted and let go of."""
    return event.event_name == "purchase" and event.transaction_id not in facts.orders


def _row(subject: str, facts: SubjectFacts) -> tuple[str, int, bytes]:
    return subject, facts.latest_us, facts.as_json()


def _whole(row: Sequence[float]) -> list[float]:
    """As integers what is one: SQLite keeps 0 and 1 in no bytes at all."""
    return [0 if not one else int(one) if one.is_integer() else one for one in row]


assert BUCKET_US == MINUTES_5
