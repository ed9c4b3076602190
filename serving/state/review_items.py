"""Review items in tables: plain functions over a connection. What is to be told outside is written
in the same transaction as the step that it tells of, so that neither is there without the other."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from contract.reviews import Deed, Finding, Review, Source, State, Step
from serving.state.audit import Actor
from serving.state.control_records import ReviewMessage
from serving.state.control_subjects import Writing
from serving.state.sql import Sql

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS reviews (
    review_id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    source TEXT NOT NULL,
    state TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reviews_by_key ON reviews (key, opened_at);
CREATE INDEX IF NOT EXISTS reviews_by_state ON reviews (state, opened_at);
CREATE TABLE IF NOT EXISTS review_messages (
    message_id TEXT PRIMARY KEY,
    review_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    body TEXT NOT NULL,
    made_at TEXT NOT NULL,
    next_at TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    done_at TEXT,
    problem TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS review_messages_waiting ON review_messages (done_at, next_at)
"""
TABLES: Final = ("reviews", "review_messages")

# One that ended longer ago is another matter when it is found again, whoever did what about it.
REOPENS_WITHIN: Final = timedelta(days=14)
# A message that is being delivered belongs to whoever took it for so long; then others may try.
LEASE: Final = timedelta(seconds=30)
FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 900.0
GIVEN_UP_AFTER: Final = timedelta(hours=24)
MOST_LISTED: Final = 500
_TOLD: Final[frozenset[Deed]] = frozenset({"opened", "reopened", "acknowledged", "closed"})


def listed(connection: Sql, state: State | None, limit: int) -> list[Review]:
    """The items, the newest first."""
    rows = connection.execute(
        "SELECT body FROM reviews WHERE state = coalesce(?, state) "
        "ORDER BY opened_at DESC, review_id LIMIT ?",
        (state, limit),
    )
    return [Review.model_validate_json(body) for (body,) in rows.fetchall()]


def read(connection: Sql, review_id: str) -> Review | None:
    """The item with this id."""
    row = connection.execute(
        "SELECT body FROM reviews WHERE review_id = ?", (review_id,)
    ).fetchone()
    return None if row is None else Review.model_validate_json(row[0])


def note_findings(
    writing: Writing, source: Source, findings: Sequence[Finding], complete: bool, by: Actor
) -> list[Review]:
    """Take over what `source` finds now; the items that were opened or reopened by it. `complete`:
    whatever of this source is not among them has ended."""
    at, changed = writing.clock.now(), list[Review]()
    unique = {finding.key: finding for finding in findings}
    wrong = [finding.key for finding in findings if finding.source != source]
    if wrong:
        raise ValueError(f"{wrong[0]} is not a finding of {source}")
    for key, finding in unique.items():
        held = _latest(writing.connection, key)
        if held is None or _another_matter(held, at):
            step = Step(deed="opened", at=at, by=by.key_id)
            made = Review.opened(str(uuid4()), finding, step)
            _insert(writing, made, by)
            changed.append(made)
            continue
        now = held.again(finding, by.key_id, at)
        _replace(writing, held, now, by)
        if now.reopened > held.reopened:
            changed.append(now)
    if complete:
        _end_others(writing, source, unique, by, at)
    return changed


def move(
    writing: Writing, review_id: str, to: State, by: Actor, who: str, note: str
) -> Review | None:
    """Acknowledge or close an item; None: there is no such. ValueError where it can not be."""
    held = read(writing.connection, review_id)
    if held is None:
        return None
    if to == "open":
        raise ValueError("only a finding opens an item")
    step = Step(deed=to, at=writing.clock.now(), by=by.key_id, who=who, note=note)
    now = held.moved(to, step)
    _replace(writing, held, now, by)
    return now


def due(connection: Sql, at: datetime) -> bool:
    """Whether there is something to tell."""
    return (
        connection.execute(
            "SELECT 1 FROM review_messages WHERE done_at IS NULL AND next_at <= ? LIMIT 1",
            (at.isoformat(),),
        ).fetchone()
        is not None
    )


def take(connection: Sql, at: datetime) -> ReviewMessage | None:
    """The next message that is due, which is the caller's for the time of LEASE. What was done to
    an item earlier is always told first."""
    row = connection.execute(
        "SELECT m.message_id, m.review_id, m.body, m.made_at, m.attempts FROM review_messages AS m "
        "WHERE m.done_at IS NULL AND m.next_at <= ? AND NOT EXISTS (SELECT 1 FROM review_messages "
        "AS e WHERE e.review_id = m.review_id AND e.place < m.place AND e.done_at IS NULL) "
        "ORDER BY m.next_at, m.made_at, m.place LIMIT 1",
        (at.isoformat(),),
    ).fetchone()
    if row is None:
        return None
    message_id, review_id, body, made_at, attempts = row
    connection.execute(
        "UPDATE review_messages SET next_at = ?, attempts = attempts + 1 WHERE message_id = ?",
        ((at + LEASE).isoformat(), message_id),
    )
    made = datetime.fromisoformat(made_at)
    return ReviewMessage(message_id, review_id, body, made, int(attempts))


def settle(
    connection: Sql, message: ReviewMessage, at: datetime, problem: str | None, wait_s: float
) -> bool:
    """Note that it was told or, for a `problem`, is to be tried again after a while that doubles
    every time and is at least `wait_s`; whether it is done with, because it was told or given up
    for its age."""
    over = problem is None or at - message.made_at >= GIVEN_UP_AFTER
    doubled = min(FIRST_WAIT_S * 2.0 ** min(message.attempts, 30), LONGEST_WAIT_S)
    next_at = at + timedelta(seconds=max(doubled, min(wait_s, LONGEST_WAIT_S)))
    connection.execute(
        "UPDATE review_messages SET done_at = ?, next_at = ?, problem = ? WHERE message_id = ?",
        (at.isoformat() if over else None, next_at.isoformat(), problem, message.message_id),
    )
    return over


def let_go(connection: Sql, before: str) -> int:
    """Remove what was closed, and told, before the ISO time `before`; how many items."""
    connection.execute(
        "DELETE FROM review_messages WHERE made_at < ? AND (done_at IS NOT NULL OR review_id IN "
        "(SELECT review_id FROM reviews WHERE state = 'closed' AND changed_at < ?))",
        (before, before),
    )
    gone = connection.execute(
        "DELETE FROM reviews WHERE state = 'closed' AND changed_at < ?", (before,)
    )
    return int(gone.rowcount)


def _latest(connection: Sql, key: str) -> Review | None:
    row = connection.execute(
        "SELECT body FROM reviews WHERE key = ? ORDER BY opened_at DESC LIMIT 1", (key,)
    ).fetchone()
    return None if row is None else Review.model_validate_json(row[0])


def _another_matter(held: Review, at: datetime) -> bool:
    return held.ended_at is not None and at - held.ended_at > REOPENS_WITHIN


def _end_others(
    writing: Writing, source: Source, found: Iterable[str], by: Actor, at: datetime
) -> None:
    kept = set(found)
    rows = writing.connection.execute("SELECT body FROM reviews WHERE source = ?", (source,))
    for (body,) in rows.fetchall():
        held = Review.model_validate_json(body)
        if held.finding.key not in kept:
            _replace(writing, held, held.over(by.key_id, at), by)


def _insert(writing: Writing, review: Review, by: Actor) -> None:
    finding, at = review.finding, review.opened_at.isoformat()
    writing.connection.execute(
        "INSERT INTO reviews VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(review.review_id, finding.key, finding.source, review.state, at, at),
            review.model_dump_json(),
        ),
    )
    _told(writing, review, review.steps[-1], by)


def _replace(writing: Writing, held: Review, now: Review, by: Actor) -> None:
    if now == held:
        return
    writing.connection.execute(
        "UPDATE reviews SET state = ?, changed_at = ?, body = ? WHERE review_id = ?",
        (now.state, writing.clock.now().isoformat(), now.model_dump_json(), now.review_id),
    )
    if now.steps[-1] != held.steps[-1]:
        _told(writing, now, now.steps[-1], by)


def _told(writing: Writing, review: Review, step: Step, by: Actor) -> None:
    """What happened, on record and, where somebody outside is told of such, in the outbox."""
    detail = {"review_id": review.review_id, "key": review.finding.key}
    detail |= {name: said for name, said in (("who", step.who), ("note", step.note)) if said}
    writing.audit(f"review.{step.deed}", by, None, **detail)
    writing.changed()
    if step.deed not in _TOLD:
        return
    (before,) = writing.connection.execute(
        "SELECT count(*) FROM review_messages WHERE review_id = ?", (review.review_id,)
    ).fetchone()
    told = {
        "type": f"review.{step.deed}",
        "timestamp": step.at.isoformat(),
        "data": review.model_dump(mode="json"),
    }
    at = step.at.isoformat()
    writing.connection.execute(
        "INSERT INTO review_messages VALUES (?, ?, ?, ?, ?, ?, 0, NULL, NULL)",
        (f"msg_{uuid4().hex}", review.review_id, int(before), json.dumps(told), at, at),
    )
