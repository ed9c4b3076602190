"""The tables of the control store and the numbered steps that made them, for both databases. A step
that was released is never changed: what comes later is a step of its own."""

from collections.abc import Callable

from serving.state import control_audit, review_items
from serving.state.control_keys import draw_service_keys, service_key
from serving.state.control_subjects import Writing, insert_keys
from serving.state.sql import Step, making

# A table has a primary key, which no statement changes: by it local copies are kept.
_TABLES = """
CREATE TABLE IF NOT EXISTS subjects (
    digest TEXT PRIMARY KEY,
    key_version TEXT NOT NULL,
    subject_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subjects_by_id ON subjects (subject_id);
CREATE TABLE IF NOT EXISTS links (
    visitor_subject TEXT PRIMARY KEY,
    user_subject TEXT NOT NULL,
    history_owner TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_owner ON links (history_owner);
CREATE TABLE IF NOT EXISTS consents (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_id TEXT NOT NULL,
    purposes TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    source TEXT NOT NULL,
    wording_version TEXT
);
CREATE INDEX IF NOT EXISTS consents_by_subject ON consents (subject_id, number);
CREATE TABLE IF NOT EXISTS subject_keys (
    subject_id TEXT PRIMARY KEY,
    log_key BLOB NOT NULL UNIQUE,
    audit_name TEXT NOT NULL,
    made_at TEXT NOT NULL,
    wrapped BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS catalogue_changes (
    item_id TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    said TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS catalogue_changes_by_number ON catalogue_changes (number);
CREATE TABLE IF NOT EXISTS service_keys (
    name TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS exports (
    export_id TEXT PRIMARY KEY,
    folder TEXT NOT NULL,
    made_at TEXT NOT NULL,
    wrapped BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    mac TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS audit_head (
    "only" INTEGER PRIMARY KEY CHECK ("only" = 1),
    base INTEGER NOT NULL,
    base_mac TEXT NOT NULL,
    number INTEGER NOT NULL,
    mac TEXT NOT NULL,
    seal TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS erasures (log_key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erasure_count (
    "only" INTEGER PRIMARY KEY CHECK ("only" = 1), number INTEGER
);
INSERT INTO erasure_count VALUES (1, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS api_keys (
    key_id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    created_at TEXT NOT NULL,
    revoked_at TEXT,
    sealed BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    scope TEXT PRIMARY KEY,
    body_digest TEXT NOT NULL,
    status INTEGER NOT NULL,
    answer BLOB NOT NULL,
    given_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (given_at);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (
    "only" INTEGER PRIMARY KEY CHECK ("only" = 1), number INTEGER
);
INSERT INTO version VALUES (1, 0) ON CONFLICT DO NOTHING;
"""
_DOCUMENTS = """
CREATE TABLE IF NOT EXISTS documents (
    version_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    key_id TEXT NOT NULL,
    role TEXT NOT NULL,
    written_at TEXT NOT NULL,
    note TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS documents_by_version ON documents (name, version);
"""
_ERASURE_RECORDS = """
CREATE TABLE IF NOT EXISTS erasure_records (
    erasure_id TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL,
    finished_at TEXT NOT NULL
) WITHOUT ROWID;
"""
_AUDIT_ENDS = """
CREATE INDEX IF NOT EXISTS audit_by_end ON audit (substr(text, length(text) - 15));
"""
# All at once, where nothing lies yet.
make_tables = making(_TABLES + _DOCUMENTS + _ERASURE_RECORDS + _AUDIT_ENDS + review_items.SCHEMA)

# What gateways read at every turn and therefore keep a copy of. The audit log is asked for rarely
# and grows for years: it is read where it lies.
COPIED = (
    *("subjects", "links", "consents", "subject_keys", "catalogue_changes", "service_keys"),
    *("exports", "erasures", "erasure_count", "api_keys", "answers", "notes", "version"),
    *("documents", "erasure_records", *review_items.TABLES),
)
TABLES = (*COPIED, "audit", "audit_head")
# What must stand nowhere in such a copy once somebody was erased, their key first of all.
TRACES = {"subject_keys": ("subject_id", "wrapped"), "subjects": ("digest", "subject_id")}


def _draw_keys(writing: Writing) -> None:
    """Version 1 had no data keys, and kept answers that anybody could read."""
    unkeyed = writing.connection.execute(
        "SELECT DISTINCT subject_id FROM subjects WHERE subject_id NOT IN "
        "(SELECT subject_id FROM subject_keys)"
    ).fetchall()
    insert_keys(writing, [subject_id for (subject_id,) in unkeyed])
    writing.connection.execute("DELETE FROM answers")


def _begin_audit(writing: Writing) -> None:
    """Up to version 4 a log in which nothing was written yet looked like one that was wiped."""
    draw_service_keys(writing.connection, writing.secrets)
    key = service_key(writing.connection, writing.secrets, "audit")
    control_audit.begin(writing.connection, writing.clock.now(), key)


def _making(schema: str) -> Callable[[Writing], None]:
    step = making(schema)
    return lambda writing: step(writing.connection)


STEPS: tuple[Callable[[Writing], None], ...] = (
    _making(_TABLES),
    _draw_keys,
    _making(_DOCUMENTS),
    _making(_ERASURE_RECORDS),
    _begin_audit,
    _making(_AUDIT_ENDS),
    _making(review_items.SCHEMA),
)


def steps(writing: Writing) -> tuple[Step, ...]:
    """The steps; `writing` is the transaction in which they are taken."""
    return tuple(lambda _, step=step: step(writing) for step in STEPS)
