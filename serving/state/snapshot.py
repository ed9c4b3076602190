"""Feature states of all subjects as one file, each sealed under its subject's own key and filed
under its `log_key`: what is left of an erased subject opens no more, in a backup too.

The file says which feature definitions it was made with and how far the event log had been applied.
"""

import hashlib
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.features import FEATURES, SubjectState, feature_hash, hashes_beside
from contract.whole_file import replacing
from serving.state.sealing import SubjectKeys, Tampered

_BOUND_TO = b"state"
_COUNT = np.dtype("<u4")
LOG_KEY_BYTES = 16
# A thread that seals gives the interpreter back to waiting checkouts after this many subjects.
_BREATH = 200

Position = int | tuple[int, ...]  # as `serving.state.event_log` has it


class SnapshotUnusableError(Exception):
    """The file can not be read here; the message says why in one line."""


class SnapshotMissingError(SnapshotUnusableError):
    """There is none: a first start."""


class SnapshotPlainError(SnapshotUnusableError):
    """An earlier version wrote it, unencrypted."""


@dataclass(frozen=True)
class Snapshot:
    """States by subject after every event up to `position` of the log."""

    states: dict[str, SubjectState]
    position: Position  # of the event log, one number per partition if it has them
    older: bool = False  # than some feature, of which the log may tell


def write_snapshot(
    path: Path, states: Mapping[str, SubjectState], position: Position, keys: SubjectKeys
) -> None:
    """Replace `path` at once: a reader sees the old file or the new one, whatever happens. States
    of subjects without a key are left out."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_keys: list[bytes] = []
    sealed: list[bytes] = []
    for held in keys.of_subjects(states):
        log_keys.append(held.log_key)
        sealed.append(held.seal(_packed(states[held.subject_id]), _BOUND_TO))
        if len(sealed) % _BREATH == 0:
            time.sleep(0)
    sizes = np.fromiter((len(one) for one in sealed), np.int64, len(sealed))
    with replacing(path) as file:
        np.savez(
            file,
            allow_pickle=False,
            feature_hash=np.array(feature_hash()),
            hash_beside=np.array(hashes_beside()[-1]),
            position=np.array(position, np.int64),
            log_keys=np.frombuffer(b"".join(log_keys), np.uint8).reshape(-1, LOG_KEY_BYTES),
            offsets=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            sealed=np.frombuffer(b"".join(sealed), np.uint8),
        )


def read_snapshot(path: Path, keys: SubjectKeys) -> Snapshot:
    """What `write_snapshot` wrote, without those whose keys are gone. Raises
    SnapshotUnusableError."""
    try:
        arrays = _arrays(path)
        if "subjects" in arrays:
            raise SnapshotPlainError(f"{path.name} was written unencrypted by an earlier version")
        states, position = _states(arrays, keys), _position(arrays["position"])
        return Snapshot(states, position, _beside(arrays) != hashes_beside()[-1])
    except FileNotFoundError:
        raise SnapshotMissingError(f"there is no {path.name}") from None
    except Tampered:
        raise SnapshotUnusableError(f"{path.name} was changed since it was written") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SnapshotUnusableError(f"{path.name} can not be read: {error}") from None


def is_readable(path: Path, keys: SubjectKeys) -> bool:
    """Whether `path` is a snapshot of these feature definitions."""
    try:
        read_snapshot(path, keys)
    except SnapshotUnusableError:
        return False
    return True


def name_of(path: Path) -> str:
    """A name that no other content has."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_plain(path: Path) -> bool:
    """Whether an earlier version wrote the file, unencrypted."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return "subjects" in archive.files
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def read_plain_snapshot(path: Path) -> Snapshot:
    """What an earlier version wrote. Raises SnapshotUnusableError."""
    try:
        arrays = _arrays(path)
        return Snapshot(_plain_states(arrays), _position(arrays["position"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SnapshotUnusableError(f"{path.name} can not be read: {error}") from None


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    known = _beside(arrays) in hashes_beside()
    if str(arrays["feature_hash"]) != feature_hash() or not known:
        raise SnapshotUnusableError(f"{path.name} was made for other feature definitions")
    return arrays


def _beside(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    # A snapshot of before there were other features than those of products says nothing of them.
    return str(arrays.get("hash_beside", hashes_beside()[0]))


def _packed(state: SubjectState) -> bytes:
    """The rows of every feature, one after another, each with their number before it."""
    parts: list[bytes] = []
    for feature in FEATURES:
        rows = state.get(feature.name)
        parts.append(np.array(0 if rows is None else len(rows), _COUNT).tobytes())
        if rows is not None:
            parts.append(rows.tobytes())
    return b"".join(parts)


def _unpacked(content: bytes) -> SubjectState:
    # A bytearray: compiled loops take no read-only rows.
    buffer, start = bytearray(content), 0
    state: SubjectState = {}
    for feature in FEATURES:
        if start == len(buffer) and not feature.of_products:
            break  # written before there was this one
        count = int.from_bytes(buffer[start : start + _COUNT.itemsize], "little")
        start += _COUNT.itemsize
        if count:
            state[feature.name] = np.frombuffer(buffer, feature.kind.dtype, count, start)
            start += count * feature.kind.dtype.itemsize
    if start != len(buffer):
        raise ValueError("a state has another form")
    return state


def _states(arrays: Mapping[str, npt.NDArray[Any]], keys: SubjectKeys) -> dict[str, SubjectState]:
    offsets, sealed = arrays["offsets"], arrays["sealed"].tobytes()
    log_keys = [one.tobytes() for one in arrays["log_keys"]]
    if len(offsets) != len(log_keys) + 1:
        raise ValueError("the subjects have another form")
    place = {log_key: number for number, log_key in enumerate(log_keys)}
    states: dict[str, SubjectState] = {}
    for held in keys.of_log_keys(log_keys):
        number = place[held.log_key]
        content = sealed[offsets[number] : offsets[number + 1]]
        states[held.subject_id] = _unpacked(held.open(content, _BOUND_TO))
    return states


def _position(array: npt.NDArray[Any]) -> Position:
    return tuple(array.tolist()) if array.ndim else int(array)


def _plain_states(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, SubjectState]:
    subjects = arrays["subjects"].tolist()
    states: dict[str, SubjectState] = {subject: {} for subject in subjects}
    for feature in (one for one in FEATURES if one.of_products):
        rows, offsets = arrays[f"{feature.name}.rows"], arrays[f"{feature.name}.offsets"].tolist()
        if rows.dtype != feature.kind.dtype or len(offsets) != len(subjects) + 1:
            raise ValueError(f"{feature.name} has another form")
        for subject, start, end in zip(subjects, offsets[:-1], offsets[1:], strict=True):
            if end > start:
                states[subject][feature.name] = rows[start:end]
    return states
