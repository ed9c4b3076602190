"""`releases/current` and `releases/rollout.json` on disk: read as they are, changed under a lock,
each replaced at once, so that a reader never sees half of anything.

Of the two, `rollout.json` is written first. Whatever dies in between leaves a state that is safe: a
release that is said to be taken away is not served although `current` still names it.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from contract.errors import GateRefused, UserError
from contract.file_lock import SHARED, alone
from contract.manifest import RELEASE_ID
from contract.rollout import CURRENT, ROLLOUT, ROLLOUT_LOCK, Canary, Rollout
from contract.whole_file import replace


def read_rollout(releases: Path) -> Rollout:
    """What `rollout.json` says, nothing where there is none. UserError when it can not be read."""
    try:
        return Rollout.parse((releases / ROLLOUT).read_bytes())
    except FileNotFoundError:
        return Rollout()
    except ValueError as error:
        raise UserError(f"{error}; mend it, or remove it to start without a history") from None
    except OSError as error:
        raise UserError(f"{ROLLOUT}: cannot be read: {error.strerror}") from None


def promote(releases: Path, release_id: str, at: datetime) -> None:
    """Make `release_id` the live one. It must have been verified. Raises UserError, OSError."""
    with alone(releases / ROLLOUT_LOCK, SHARED):
        rollout = read_rollout(releases).promoted(named(releases), release_id, at)
        replace(releases / ROLLOUT, rollout.as_bytes())
        _point(releases, release_id)


def start_canary(releases: Path, canary: Canary, *, again: bool = False) -> None:
    """Put a verified release on trial. GateRefused when it was rolled back, unless `again`;
    UserError when it is the live one already."""
    with alone(releases / ROLLOUT_LOCK, SHARED):
        rollout = read_rollout(releases)
        if canary.release_id == named(releases):
            raise UserError(f"release {canary.release_id} is the live one already")
        told = rollout.rollback_of(canary.release_id)
        if told is not None and not again:
            raise GateRefused(
                f"release {canary.release_id} was rolled back at {told.at:%Y-%m-%d %H:%M} "
                f"({told.reason}); try it again with --again"
            )
        replace(releases / ROLLOUT, rollout.on_trial(canary).as_bytes())


def stop_canary(releases: Path) -> str:
    """End the canary; its release. UserError when there is none."""
    with alone(releases / ROLLOUT_LOCK, SHARED):
        rollout = read_rollout(releases)
        if rollout.canary is None:
            raise UserError("there is no canary to stop")
        replace(releases / ROLLOUT, rollout.without_canary().as_bytes())
        return rollout.canary.release_id


def roll_back(
    releases: Path,
    release_id: str,
    reason: str,
    at: datetime,
    *,
    verify: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Take `release_id` away, durably, with the reason, if it is still live or on trial. Where it
    is live, the latest one that was live before takes its place, if `verify` does not raise.

    The release that is live now; None where nothing was done, because somebody was quicker.
    UserError when there is nothing to go back to.
    """
    with alone(releases / ROLLOUT_LOCK, SHARED):
        rollout, live = read_rollout(releases), named(releases)
        canary = None if rollout.canary is None else rollout.canary.release_id
        if release_id not in (live, canary):
            return None
        target = live
        if release_id == live:
            standing = [one for one in rollout.previous(live) if (releases / one).is_dir()]
            if not standing:
                raise UserError(f"there is no release to go back to from {release_id}")
            target = standing[0]
            verify(target)
        taken = rollout.taken_back(release_id, reason, at, live)
        replace(releases / ROLLOUT, taken.as_bytes())
        if target is not None and target != live:
            _point(releases, target)
        return target


def record_healthy(releases: Path, release_id: str) -> None:
    """Remember that `release_id` was live and answered well, if it is live. Raises OSError."""
    with alone(releases / ROLLOUT_LOCK, SHARED):
        rollout = read_rollout(releases)
        if named(releases) == release_id and rollout.healthy[-1:] != (release_id,):
            replace(releases / ROLLOUT, rollout.found_healthy(release_id).as_bytes())


def named(releases: Path) -> str | None:
    """The release that `current` names, whether or not it exists; None where it names nothing."""
    try:
        text = (releases / CURRENT).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if RELEASE_ID.fullmatch(text) else None


def _point(releases: Path, release_id: str) -> None:
    replace(releases / CURRENT, f"{release_id}\n".encode())
