"""What waits to be told outside is told in turns, one message after the other."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import httpx

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
