"""What is dear to make is made by one of the processes that run the tests; the others wait."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.file_lock import alone


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all of its processes know."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, if nobody has done it yet."""
    folder = shared_folder(factory) / name
    done = folder.with_suffix(".done")
    with alone(folder.with_suffix(".lock")):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
