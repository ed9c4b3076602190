"""Files that are replaced whole: a reader sees the old one or the new one, whatever happens."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, draft: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write; at the end of the block it takes the place of `path`, at once and so that it
    is still there after a power cut. When the block fails nothing has changed.

    `draft`: where it lies until then, on the same file system. Without one each process has its
    own; with one, what a killed process left is written over.
    """
    draft = draft or path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a full or failing disk may only say so here
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Put `content` under `path`, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def sync(folder: Path) -> None:
    """What was renamed in `folder` survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
