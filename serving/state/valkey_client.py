"""Connections to Valkey: from a URL, with times that a checkout can live with."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from valkey.asyncio import Valkey, ValkeyCluster
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.exceptions import ValkeyError

from contract.errors import UserError

# Whatever can go wrong on the way to the store.
FAILURES = (ValkeyError, OSError, TimeoutError)

_SCHEMES = {
    "valkey": ("valkey", False),
    "valkeys": ("valkeys", False),
    "valkey+cluster": ("valkey", True),
    "valkeys+cluster": ("valkeys", True),
}


class Client(Protocol):
    """What we use of valkey-py's two clients."""

    async def execute_command(self, *words: Any) -> Any:
        """The answer to one command."""
        ...

    def pipeline(self, transaction: bool) -> Any:
        """Commands that are sent together."""
        ...

    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:
        """The keys that match, `count` or so in a round trip, of all nodes."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True)
class ValkeyPlace:
    """A server or a cluster; `tls` is valkey-py's own `ssl_*`."""

    url: str = field(repr=False)
    cluster: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] = field(default_factory=dict, repr=False)

    def client(self, connect_s: float, connections: int) -> Client:
        """A client of its own. It never tries again by itself: how long to wait, and whether to
        ask again, is for the caller to say."""
        options: dict[str, Any] = {
            "socket_connect_timeout": connect_s,
            "socket_timeout": None,
            "max_connections": connections,
            "username": self.user,
            "password": self.password,
            **{name: said for name, said in self.tls.items() if name != "ssl"},  # the URL says it
        }
        if self.cluster:
            made: Any = ValkeyCluster.from_url(self.url, cluster_error_retry_attempts=1, **options)
        else:
            # Without the library's name and version, which cost two more round trips at first.
            plain: dict[str, Any] = {
                "lib_name": None,
                "lib_version": None,
                "retry": Retry(NoBackoff(), 0),
            }
            made = Valkey.from_url(self.url, **plain, **options)
        return cast(Client, made)


def valkey_place(
    url: str,
    *,
    user: str | None = None,
    password: str | None = None,
    tls: dict[str, Any] | None = None,
) -> ValkeyPlace:
    """valkey://host:6379/0, valkey+cluster://host:6379, and valkeys over TLS.

    Raises UserError when it is no such URL.
    """
    parts = urlsplit(url)
    try:
        scheme, cluster = _SCHEMES[parts.scheme]
        wrong = not parts.hostname or parts.query or "@" in parts.netloc or parts.port == 0
        database = int(parts.path.strip("/") or 0)
    except (KeyError, ValueError):
        wrong, scheme, cluster, database = True, "", False, 0
    if wrong or (cluster and database):
        raise UserError(
            "feature store: write `memory`, valkey://host:6379/0 or valkey+cluster://host:6379 "
            "(valkeys for TLS); user and password have settings of their own"
        )
    plain = f"{scheme}://{parts.netloc}" + ("" if cluster else f"/{database}")
    encrypted = dict(tls or {}) if scheme == "valkeys" else {}
    return ValkeyPlace(plain, cluster, user, password, encrypted)


async def together(client: Client, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The answers to `commands`, each of one key, in one round trip (to each node of a cluster)."""
    if not commands:
        return []
    if len(commands) == 1:
        return [await client.execute_command(*commands[0])]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[Any] = await pipeline.execute()
    return answers
