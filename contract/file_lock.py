"""Being alone, of all threads and processes on a machine, by a lock on a file. The operating system
lets go of it when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SHARED: Final = 0o666  # for everybody whom the umask lets write in the folder


@contextmanager
def alone(path: Path, mode: int = 0o600) -> Iterator[None]:
    """Waits until nobody else holds `path`, which is made with `mode` if need be."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone_if_free(path: Path, mode: int = 0o600) -> Iterator[bool]:
    """The same without waiting: whether `path` is held by this block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(descriptor)
