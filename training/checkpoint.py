"""Weights in files that are replaced whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from contract.errors import UserError
from contract.whole_file import replacing


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` under `path`. UserError on a full disk; what was there before is untouched."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, path.with_name(f"{path.name}.partial")) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        raise UserError(
            f"{path}: could not be written, what stood there is untouched: {reason}"
        ) from None


def _reason(error: BaseException) -> str:
    """What the operating system said; torch's writer covers it with a complaint of its own."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__context__
    return str(error).splitlines()[0]


def read(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU. UserError where it is torn or something else."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise UserError(
            f"{path.name}: not a readable checkpoint; remove it to start over"
        ) from error
    return state
