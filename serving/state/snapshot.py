"""Feature states of all subjects as one file: the rows of each feature end to end, with offsets.

The file says which feature definitions it was made with and how far the event log had been applied.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.features import FEATURES, SubjectState, feature_hash
from serving.whole_file import replacing

Position = int | tuple[int, ...]  # as `serving.state.event_log` has it


class SnapshotUnusableError(Exception):
    """The file can not be read here; the message says why in one line."""


class SnapshotMissingError(SnapshotUnusableError):
    """There is none: a first start."""


@dataclass(frozen=True)
class Snapshot:
    """States by subject after every event up to `position` of the log."""

    states: dict[str, SubjectState]
    position: Position  # of the event log, one number per partition if it has them


def write_snapshot(path: Path, states: Mapping[str, SubjectState], position: Position) -> None:
    """Replace `path` at once: a reader sees the old file or the new one, whatever happens."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **_arrays(states, position))


def _arrays(states: Mapping[str, SubjectState], position: Position) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {
        "feature_hash": np.array(feature_hash()),
        "position": np.array(position, np.int64),
        "subjects": np.array(list(states), "U36"),
    }
    for feature in FEATURES:
        rows = [state.get(feature.name, feature.empty()) for state in states.values()]
        arrays[f"{feature.name}.offsets"] = np.cumsum([0, *(len(r) for r in rows)], dtype=np.int64)
        arrays[f"{feature.name}.rows"] = np.concatenate([feature.empty(), *rows])
    return arrays


def read_snapshot(path: Path) -> Snapshot:
    """What `write_snapshot` wrote. Raises SnapshotUnusableError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if str(arrays["feature_hash"]) != feature_hash():
            raise SnapshotUnusableError(f"{path.name} was made for other feature definitions")
        return Snapshot(_states(arrays), _position(arrays["position"]))
    except FileNotFoundError:
        raise SnapshotMissingError(f"there is no {path.name}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SnapshotUnusableError(f"{path.name} can not be read: {error}") from None


def _position(array: npt.NDArray[Any]) -> Position:
    return tuple(array.tolist()) if array.ndim else int(array)


def _states(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, SubjectState]:
    subjects = arrays["subjects"].tolist()
    states: dict[str, SubjectState] = {subject: {} for subject in subjects}
    for feature in FEATURES:
        rows, offsets = arrays[f"{feature.name}.rows"], arrays[f"{feature.name}.offsets"].tolist()
        if rows.dtype != feature.kind.dtype or len(offsets) != len(subjects) + 1:
            raise ValueError(f"{feature.name} has another form")
        for subject, start, end in zip(subjects, offsets[:-1], offsets[1:], strict=True):
            if end > start:
                states[subject][feature.name] = rows[start:end]
    return states
