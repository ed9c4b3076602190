"""What waits to be told outside is told in turns, one message after the other."""

import ipaddress
from abc import ABC, abstractmethod
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from contract.errors import UserError

Message = TypeVar("Message")


class Delivery(ABC, Generic[Message]):
    """Delivers what waits, `most` of it in one turn; several gateways may do so from one store."""

    def __init__(self, client: httpx.AsyncClient, most: int) -> None:
        self._client, self._most = client, most

    @abstractmethod
    async def _take(self) -> Message | None:
        """The next message, which is ours for a while; None where there is none. Raises
        StoreError."""

    @abstractmethod
    async def _tell(self, message: Message) -> bool:
        """Tell it and note what came of that; whether it is done with. Raises StoreError."""

    async def deliver(self) -> int:
        """Tell what is due, some of it; how many messages were told. Raises StoreError."""
        told = 0
        for _ in range(self._most):
            message = await self._take()
            if message is None:
                break
            told += await self._tell(message)
        return told

    async def aclose(self) -> None:
        """End the connections."""
        await self._client.aclose()


def refuse_address(name: str, url: str) -> None:
    """Raises UserError, about the setting `name`, where secrets should not go to `url`: it is not
    https, unless it is of this machine, or has a password in it, which would be logged."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UserError(f"{name}: is not an address") from None
    if not host or parts.scheme not in ("https", "http"):
        raise UserError(f"{name}: send https://host/path")
    if parts.scheme == "http" and not _loopback(host):
        raise UserError(f"{name}: http goes to this machine only; use https")
    if parts.username is not None or parts.password is not None:
        raise UserError(f"{name}: must hold no password; it is logged")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
