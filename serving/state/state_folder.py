"""The folder of everything that a gateway remembers, and the lock that keeps a second gateway out:
features live in the memory of one process, so two would disagree."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.errors import UserError

EVENTS = "events.sqlite"
CONTROL = "control.sqlite"
LEDGER = "coupons.sqlite"
COPIES = "copies"  # of a control store that lies elsewhere
_LOCK = "lock"


class StateFolder:
    """Holds `folder` for one process until the end of the block; the operating system lets go of
    it when the process dies. Raises UserError when it is held already or can not be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(f"state folder {self._folder}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UserError(
                f"state folder {self._folder} is in use by another gateway; "
                "give this one a folder of its own with --state"
            ) from None
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
