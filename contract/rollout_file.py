"""`releases/current` and `releases/rollout.json` on disk: read as they are, changed under a lock,
each replaced at once, so that a reader never sees half of anything.

A switch writes `rollout.json` first, with what `current` is about to name, then `current`, then
`rollout.json` without it. So a switch whose process died is finished by whoever comes next: every
change here does so first, and so does `settled`, by which gateways and commands read. Until then
the state is safe: a release that is said to be taken away is not served although `current` still
names it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


def settled(releases: Path) -> Rollout:
    """What `rollout.json` says, after a switch whose process died in the middle was finished.
    UserError when the file can not be read, or such a switch not be finished."""
    rollout = read_rollout(releases)
    if rollout.next_live is None:
        return rollout
    try:
        with _changing(releases) as (rollout, _):
            return rollout
    except OSError as error:
        raise UserError(
            f"{ROLLOUT}: the switch to release {rollout.next_live} was left half done and can not "
            f"be finished: {error.strerror}"
        ) from None


def promote(releases: Path, release_id: str, at: datetime) -> None:
    """Make `release_id` the live one. It must have been verified. Raises UserError, OSError."""
    with _changing(releases) as (rollout, live):
        try:
            _switch(releases, rollout.promoted(live, release_id, at), release_id)
        except OSError:  # what is said to have failed must not come about later
            with suppress(OSError):
                replace(releases / ROLLOUT, rollout.as_bytes())
            raise


def start_canary(releases: Path, canary: Canary, *, again: bool = False) -> None:
    """Put a verified release on trial. GateRefused when it was rolled back, unless `again`;
    UserError when it is the live one already."""
    with _changing(releases) as (rollout, live):
        if canary.release_id == live:
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
    with _changing(releases) as (rollout, _):
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
    with _changing(releases) as (rollout, live):
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
        if target is not None and target != live:
            _switch(releases, taken, target)
        else:
            replace(releases / ROLLOUT, taken.as_bytes())
        return target


def record_healthy(releases: Path, release_id: str) -> None:
    """Remember that `release_id` was live and answered well, if it is live. Raises OSError."""
    with _changing(releases) as (rollout, live):
        if live == release_id and rollout.healthy[-1:] != (release_id,):
            replace(releases / ROLLOUT, rollout.found_healthy(release_id).as_bytes())


def named(releases: Path) -> str | None:
    """The release that `current` names, whether or not it exists; None where it names nothing."""
    try:
        text = (releases / CURRENT).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if RELEASE_ID.fullmatch(text) else None


def live_release_id(releases: Path) -> str:
    """The release that `current` names; UserError when it names none that exists."""
    try:
        text = (releases / CURRENT).read_bytes().decode().removesuffix("\n")
    except FileNotFoundError as error:
        raise UserError(
            f"{CURRENT}: missing, so no release is live; make one with `tillwise-train export` "
            "or choose one with `tillwise-serve release promote`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{CURRENT}: cannot be read") from error
    if not RELEASE_ID.fullmatch(text):
        raise UserError(f"{CURRENT}: does not hold one release id")
    if not (releases / text).is_dir():
        raise UserError(f"{CURRENT}: names release {text}, which does not exist")
    return text


@contextmanager
def _changing(releases: Path) -> Iterator[tuple[Rollout, str | None]]:
    """Alone with both files, and what they say; what somebody left half done is finished."""
    with alone(releases / ROLLOUT_LOCK, SHARED):
        rollout = read_rollout(releases)
        if rollout.next_live is not None:
            _point(releases, rollout.next_live)
            rollout = rollout.about_to_name(None)
            replace(releases / ROLLOUT, rollout.as_bytes())
        yield rollout, named(releases)


def _switch(releases: Path, rollout: Rollout, release_id: str) -> None:
    """Have `rollout` say, and `current` name, that `release_id` is live."""
    replace(releases / ROLLOUT, rollout.about_to_name(release_id).as_bytes())
    _point(releases, release_id)
    with suppress(OSError):  # it is done; whoever comes next takes the word away
        replace(releases / ROLLOUT, rollout.as_bytes())


def _point(releases: Path, release_id: str) -> None:
    replace(releases / CURRENT, f"{release_id}\n".encode())
