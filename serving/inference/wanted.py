"""What the releases' folder wants to be served, and what to serve where that can not be."""

import logging
from pathlib import Path

from contract.errors import UserError
from contract.rollout import Rollout
from contract.rollout_file import live_release_id, settled
from serving.inference.releases import LiveRelease

log = logging.getLogger(__name__)


async def load_last_good(live: LiveRelease) -> str | None:
    """Load what `current` names or, where that can not be served, the last good release; what is
    wrong in that case. Raises UserError when nothing can be served."""
    try:
        rollout = settled(live.releases_dir)
    except UserError:  # the follower will say so
        rollout = Rollout()
    wanted = None
    try:
        wanted = live_release_id(live.releases_dir)
        refuse_taken(rollout, wanted)
        await live.load_or_keep(wanted)
        return None
    except UserError as error:
        first = error
    for release_id in rollout.last_good(wanted):
        try:
            await live.load_or_keep(release_id)
        except UserError as error:
            log.error("%s", error)
            continue
        problem = f"{first}; serving the last good release, {release_id}"
        log.error("%s", problem)
        return problem
    raise first


def refuse_taken(rollout: Rollout, release_id: str) -> None:
    """Raise UserError where `release_id` was taken away and nobody has promoted it since."""
    told = rollout.rollback_of(release_id)
    if told is not None:
        raise UserError(f"release {release_id} was rolled back: {told.reason}")


def read_wanted(releases: Path) -> tuple[Rollout | UserError, str | UserError]:
    """What the two files say, or what is wrong with each."""
    rollout: Rollout | UserError
    wanted: str | UserError
    try:
        rollout = settled(releases)
    except UserError as error:
        rollout = error
    try:
        wanted = live_release_id(releases)
    except UserError as error:
        wanted = error
    return rollout, wanted
