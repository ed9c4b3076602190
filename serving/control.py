"""Which control store and which coupon ledger a gateway has, by its settings. Apart from the other
stores, so that small commands do not load what features are made with."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from contract.clock import Clock
from contract.errors import UserError
from serving.settings import Settings
from serving.state.secrets import Secrets, load_secrets
from serving.state.sql_control_store import SqlControlStore
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.sqlite_writer import copy_file
from serving.state.state_folder import CONTROL, COPIES, LEDGER

if TYPE_CHECKING:
    from serving.state.postgres_place import PostgresPlace
    from serving.state.sql_coupon_ledger import SqlCouponLedger

_NO_DRIVER = "PostgreSQL needs the extra: pip install 'tillwise[scale]'"


def secrets_of(settings: Settings) -> Secrets:
    """The master keys that the settings lead to; for a new store in the state folder one is made.
    Raises UserError."""
    shared = settings.control_store != "sqlite"
    return load_secrets(
        settings.state, settings.master_key, settings.master_key_file, shared=shared
    )


def require_control(settings: Settings, wanted: str = "control store") -> None:
    """Raises UserError when the state folder has not the control store that it should have; one in
    PostgreSQL says so itself when it is opened."""
    if settings.control_store == "sqlite" and not (settings.state / CONTROL).is_file():
        raise UserError(f"state folder {settings.state} does not exist or holds no {wanted}")


def open_control(
    settings: Settings,
    secrets: Secrets,
    clock: Clock | None = None,
    *,
    may_be_away: bool = False,
) -> SqlControlStore:
    """The control store, made if need be. `may_be_away`: one that this state folder was used with
    before need not be there yet. Raises UserError."""
    if settings.control_store == "sqlite":
        return SqliteControlStore(settings.state / CONTROL, secrets, clock)
    try:
        from serving.state.postgres_control_store import PostgresControlStore
    except ImportError:
        raise UserError(_NO_DRIVER) from None
    return PostgresControlStore(
        *(_postgres(settings), settings.state / COPIES, secrets, clock), may_be_away=may_be_away
    )


def open_ledger(settings: Settings, *, at_once: bool = True) -> "SqlCouponLedger":
    """The coupon ledger, in the database of the control store or in a file beside its file, made if
    need be; not `at_once`: a database is asked for when it is first used. Raises UserError,
    StoreError."""
    from serving.state.ledger_database import sqlite_ledger_database
    from serving.state.sql_coupon_ledger import SqlCouponLedger

    if settings.control_store == "sqlite":
        return SqlCouponLedger(sqlite_ledger_database(settings.state / LEDGER))
    try:
        from serving.state.postgres_ledger import postgres_ledger_database
    except ImportError:
        raise UserError(_NO_DRIVER) from None
    return SqlCouponLedger(postgres_ledger_database(_postgres(settings), at_once=at_once))


def save_ledger(settings: Settings, path: Path) -> None:
    """Write the coupon ledger as a new SQLite file, if there is one. Raises StoreError."""
    if settings.control_store == "sqlite":
        if (settings.state / LEDGER).is_file():
            copy_file(settings.state / LEDGER, path)
        return
    from serving.state import ledger_transfer
    from serving.state.postgres_ledger import postgres_ledger_database

    with closing(postgres_ledger_database(_postgres(settings))) as database:
        asyncio.run(ledger_transfer.save_ledger(database, path))


def load_ledger(settings: Settings, path: Path) -> None:
    """Take over a coupon ledger in PostgreSQL from a file. Raises UserError, StoreError."""
    from serving.state import ledger_transfer
    from serving.state.postgres_ledger import postgres_ledger_database

    with closing(postgres_ledger_database(_postgres(settings))) as database:
        asyncio.run(ledger_transfer.load_ledger(database, path))


def _postgres(settings: Settings) -> "PostgresPlace":
    from serving.state.postgres_place import postgres_place

    return postgres_place(
        settings.control_store,
        user=settings.postgres_user,
        password=settings.postgres_password,
        tls=settings.postgres_tls.postgresql(),
    )
