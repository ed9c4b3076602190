"""Which control store a gateway has, by its settings. Apart from the other stores, so that small
commands do not load what features are made with."""

from contract.clock import Clock
from contract.errors import UserError
from serving.settings import Settings
from serving.state.secrets import Secrets
from serving.state.sql_control_store import SqlControlStore
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL, COPIES


def require_control(settings: Settings, wanted: str = "control store") -> None:
    """Raises UserError when the state folder has not the control store that it should have; one in
    PostgreSQL says so itself when it is opened."""
    if settings.control_store == "sqlite" and not (settings.state / CONTROL).is_file():
        raise UserError(f"state folder {settings.state} does not exist or holds no {wanted}")


def open_control(
    settings: Settings, secrets: Secrets, clock: Clock | None = None
) -> SqlControlStore:
    """The control store, made if need be. Raises UserError."""
    if settings.control_store == "sqlite":
        return SqliteControlStore(settings.state / CONTROL, secrets, clock)
    try:
        from serving.state.postgres_control_store import PostgresControlStore
        from serving.state.postgres_place import postgres_place
    except ImportError:
        raise UserError("PostgreSQL needs the extra: pip install 'tillwise[scale]'") from None
    place = postgres_place(
        settings.control_store,
        user=settings.postgres_user,
        password=settings.postgres_password,
        tls=settings.postgres_tls.postgresql(),
    )
    return PostgresControlStore(place, settings.state / COPIES, secrets, clock)
