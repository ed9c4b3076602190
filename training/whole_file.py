"""Small files that are whole or not there, also after a power cut; for weights see `checkpoint`."""

import os
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Put `content` under `path`, at once for every reader."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
