"""What lets others follow tables in PostgreSQL: every change of a row gets the next number, what is
deleted leaves its number behind and nothing else, and whoever listens is told.

All writers hold one lock for the length of their transaction (`LOCK`), so that numbers become
visible in their order: whoever has seen one has seen all before it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from serving.state.sql import Sql

CHANNEL = "tillwise_changes"
# By schema, as two shops in one database do not wait for each other.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('tillwise ' || current_setting('search_path')))"
_KEPT = "1 day"  # the numbers of deleted rows; who was away for longer begins again

_TRACKING = (
    "CREATE SEQUENCE IF NOT EXISTS change_numbers",
    "CREATE SEQUENCE IF NOT EXISTS row_numbers",
    """CREATE TABLE IF NOT EXISTS gone (
        number BIGINT PRIMARY KEY DEFAULT nextval('change_numbers'),
        at TIMESTAMPTZ NOT NULL DEFAULT now(),
        name VARCHAR NOT NULL,
        row_number BIGINT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS following (
        "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
        epoch VARCHAR NOT NULL,
        forgotten BIGINT NOT NULL
    )""",
    """CREATE OR REPLACE FUNCTION number_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            INSERT INTO gone (name, row_number) VALUES (TG_TABLE_NAME, OLD.row_number);
            RETURN OLD;
        END IF;
        NEW.changed := nextval('change_numbers');
        RETURN NEW;
    END $$""",
    f"""CREATE OR REPLACE FUNCTION tell_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{CHANNEL}', TG_TABLE_SCHEMA);
        RETURN NULL;
    END $$""",
)
_TRACKED = (
    """ALTER TABLE {name}
        ADD COLUMN IF NOT EXISTS changed BIGINT NOT NULL DEFAULT nextval('change_numbers'),
        ADD COLUMN IF NOT EXISTS row_number BIGINT NOT NULL DEFAULT nextval('row_numbers')""",
    "CREATE INDEX IF NOT EXISTS {name}_by_change ON {name} (changed)",
    """CREATE OR REPLACE TRIGGER number_change BEFORE INSERT OR UPDATE OR DELETE ON {name}
        FOR EACH ROW EXECUTE FUNCTION number_change()""",
    """CREATE OR REPLACE TRIGGER tell_change AFTER INSERT OR UPDATE OR DELETE ON {name}
        FOR EACH STATEMENT EXECUTE FUNCTION tell_change()""",
)


def track(raw: Any, tables: Sequence[str]) -> None:
    """Let `tables` be followed from now on, if they are not yet; in the transaction under way on
    the psycopg connection `raw`."""
    for one in _TRACKING:
        raw.execute(one)
    for name in tables:
        for one in _TRACKED:
            raw.execute(one.format(name=name))
    raw.execute("INSERT INTO following VALUES (1, %s, 0) ON CONFLICT DO NOTHING", (str(uuid4()),))


def begin_again(connection: Sql) -> None:
    """Have all copies made anew: the tables were put back to an earlier state."""
    connection.execute("UPDATE following SET epoch = ?", (str(uuid4()),))
    connection.execute(f"SELECT pg_notify('{CHANNEL}', current_schema())")


def forget_gone(connection: Sql) -> None:
    """Let go of the numbers of rows that were deleted long ago."""
    connection.execute(
        f"WITH old AS (DELETE FROM gone WHERE at < now() - interval '{_KEPT}' RETURNING number) "
        "UPDATE following SET forgotten = greatest(forgotten, (SELECT max(number) FROM old)) "
        "WHERE EXISTS (SELECT 1 FROM old)"
    )


def changes_since(tables: Sequence[str]) -> str:
    """A query of all that changed in `tables` after a number (`%(after)s`): number, name of the
    table, and the row as it is now, or the number of one that is gone; first of all the epoch, the
    latest number, and that up to which deletions are forgotten. One statement: as of one moment."""
    state = (
        "SELECT forgotten AS number, 'following' AS name, json_build_object('epoch', epoch, "
        "'latest', (SELECT last_value FROM change_numbers)) AS body FROM following"
    )
    gone = "SELECT number, 'gone ' || name, to_json(row_number) FROM gone WHERE number > %(after)s"
    rows = (
        f"SELECT changed, '{name}', row_to_json(t) FROM {name} AS t WHERE changed > %(after)s"
        for name in tables
    )
    return " UNION ALL ".join((state, gone, *rows))
