"""What a machine does with the releases that were pulled onto it: let the store say which is live
and which is on trial, and remove what nobody needs."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from contract import rollout_file
from contract.errors import UserError
from contract.rollout import CURRENT, Canary
from contract.whole_file import replace
from serving.inference.release_place import Folders, changing, local_manifest, manifest_files
from serving.inference.release_store import Live, files_of

_FOLLOWED = ".followed.json"


def follow(folders: Folders, live: Live, at: datetime) -> bool:
    """Do on this machine what was last changed in the store: switch, roll back, try out. False
    where that was done before.

    Only a change in the store moves anything: what the guard rolled back on this machine since then
    stays rolled back.
    """
    if followed(folders) >= live.generation and (folders.releases / CURRENT).exists():
        return False
    rollout_file.settled(folders.releases)
    gone = live.withdrawn
    if gone is not None and rollout_file.named(folders.releases) == gone.release_id:
        with suppress(UserError):  # nothing before it here: then it is promoted below
            rollout_file.roll_back(folders.releases, gone.release_id, gone.reason, at)
    if rollout_file.named(folders.releases) != live.current:
        rollout_file.promote(folders.releases, live.current, at)
    _follow_trial(folders, live.canary)
    replace(
        folders.releases / _FOLLOWED, json.dumps({"generation": live.generation}).encode() + b"\n"
    )
    return True


def _follow_trial(folders: Folders, canary: Canary | None) -> None:
    held = rollout_file.read_rollout(folders.releases).canary
    if canary is None:
        if held is not None:
            rollout_file.stop_canary(folders.releases)
    elif canary != held:
        # Asked for in the store, after whatever the guard of this machine had found.
        rollout_file.start_canary(folders.releases, canary, again=True)


def followed(folders: Folders) -> int:
    """The generation of the change that was followed last; 0 before the first."""
    try:
        return int(json.loads((folders.releases / _FOLLOWED).read_bytes())["generation"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


@dataclass(frozen=True)
class Pruned:
    """What was removed, and what was left that might have been removed, with the reason."""

    removed: list[str]
    left: list[str]


def prune(folders: Folders, keep: set[str]) -> Pruned:
    """Remove the releases that are neither in `keep` nor live, on trial or next to go back to on
    this machine, and the model versions that no release left needs.

    What can not be told to be without use stays: a release that serves may well be one whose files
    were damaged since, and a pod must go on following the store beside it.
    """
    with changing(folders.releases):
        held = {path.parent.name for path in manifest_files(folders)}
        try:
            kept = keep | _in_use(folders)
        except UserError as error:
            return Pruned([], [f"any release: {error}"])
        if not held & keep:  # nothing known to be good is here: touch nothing
            return Pruned([], [])
        found = Pruned([], [])
        for release_id in sorted(held - kept):
            _remove(folders.releases / release_id, release_id, found)
        try:
            needed = _needed(folders, sorted(kept))
        except UserError as error:
            found.left.append(f"versions of models: which ones are needed is not known, {error}")
            return found
        for folder in _versions(folders.models):
            place = str(folder.relative_to(folders.models))
            if not any(name.startswith(f"{place}/") for name in needed):
                _remove(folder, place, found)
        return found


def _needed(folders: Folders, releases: list[str]) -> set[str]:
    """The files of models of those of `releases` that are here. Raises UserError where one can not
    be read."""
    return {
        name
        for release_id in releases
        if (folders.releases / release_id).is_dir()
        for root, name, _ in files_of(local_manifest(folders, release_id))
        if root == "models"
    }


def _remove(folder: Path, name: str, found: Pruned) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        found.left.append(f"{name}: {error.strerror or error}")
    else:
        found.removed.append(name)


def _in_use(folders: Folders) -> set[str]:
    """Raises UserError where it can not be read."""
    live = rollout_file.named(folders.releases)
    rollout = rollout_file.read_rollout(folders.releases)
    trial = None if rollout.canary is None else rollout.canary.release_id
    return {one for one in (live, trial, *rollout.previous(live)[:1]) if one is not None}


def _versions(models: Path) -> Iterator[Path]:
    for folder in models.glob("*/*"):
        if folder.name.isdigit() and folder.is_dir():
            yield folder
