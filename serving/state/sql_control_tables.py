"""How the parts of a control store in tables read and write them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from contract.clock import Clock, SystemClock
from serving.state.control_subjects import Writing
from serving.state.secrets import Secrets
from serving.state.sql import Sql

Result = TypeVar("Result")


class ControlTables(ABC):
    """What each part stands on; where the tables lie is up to the stores."""

    def __init__(self, secrets: Secrets, clock: Clock | None) -> None:
        self._secrets = secrets
        self._clock = clock or SystemClock()
        self._audit_key = b""

    @abstractmethod
    def _read(self, step: Callable[[Sql], Result]) -> Result:
        """`step` on what is committed, from any thread. Raises StoreError."""

    @abstractmethod
    def _read_beside(self) -> AbstractContextManager[Sql]:
        """A connection of its own for a long read on another thread. Raises StoreError."""

    @abstractmethod
    def _read_audit(self, step: Callable[[Sql], Result]) -> Result:
        """`step` on the audit log, as of one moment. Raises StoreError."""

    @abstractmethod
    async def _run(self, work: Callable[[Any], Result]) -> Result:
        """`work` as one transaction. Raises StoreError."""

    def _writing(self, connection: Sql) -> Writing:
        return Writing(connection, self._secrets, self._audit_key, self._clock)

    async def _write(self, step: Callable[[Writing], Result]) -> Result:
        """`step` as one transaction."""
        return await self._run(lambda connection: step(self._writing(connection)))

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._read(
            lambda connection: connection.execute(query, values).fetchone()
        )
        return row
