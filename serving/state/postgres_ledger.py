"""The coupon ledger's database in PostgreSQL, shared by all gateways."""

from sqlalchemy import Connection, create_engine

from serving.state.ledger_database import LedgerDatabase
from serving.state.postgres_place import BoundConnection, PostgresPlace

# By schema: shops that share a database do not wait for each other.
LOCK = (
    "SELECT pg_advisory_xact_lock(hashtext('tillwise ledger ' || current_setting('search_path')))"
)
_LIMIT_SECONDS = 5.0
_THREADS = 8


def postgres_ledger_database(place: PostgresPlace, *, at_once: bool = True) -> LedgerDatabase:
    """The database at `place`; its schema is made if need be. Raises UserError, StoreError."""

    def open_one() -> BoundConnection:
        connection = place.connect(_LIMIT_SECONDS)
        connection.autocommit = False  # SQLAlchemy says when
        return connection

    engine = create_engine(
        "postgresql+psycopg://", creator=open_one, pool_size=_THREADS + 1, pool_pre_ping=True
    )

    def lock(connection: Connection) -> None:
        connection.exec_driver_sql(LOCK)
        if place.schema is not None:
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {place.schema}")

    return LedgerDatabase(engine, _THREADS, lock, at_once=at_once)
