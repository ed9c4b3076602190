"""The folder of everything that a gateway remembers, and the lock that keeps a second gateway out:
features live in the memory of one process, so two would disagree."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from contract.errors import UserError
from contract.file_lock import alone_if_free

EVENTS = "events.sqlite"
CONTROL = "control.sqlite"
LEDGER = "coupons.sqlite"
SNAPSHOT = "features.npz"
SEED = "seed.npz"  # what an import left; the log is replayed on top of it
COPIES = "copies"  # of a control store that lies elsewhere
CALLERS = "callers.sealed"  # whom it vouched for
_LOCK = "lock"


class StateFolder:
    """Holds `folder` for one process until the end of the block. Raises UserError when it is held
    already or can not be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = self._held.enter_context(alone_if_free(self._folder / _LOCK))
        except OSError as error:
            raise UserError(f"state folder {self._folder}: {error.strerror}") from None
        if not free:
            self._held.close()
            raise UserError(
                f"state folder {self._folder} is in use by another gateway; "
                "give this one a folder of its own with --state"
            )
        return self

    def __exit__(self, *raised: object) -> None:
        self._held.close()
