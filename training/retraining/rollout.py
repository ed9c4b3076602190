"""From a release on disk to the live one, by the files that gateways follow: `rollout.json` and
`current`. The gateways' guard judges the trial and takes back what does worse; here is only waited
for its word."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import ValidationError

from contract.clock import Clock
from contract.errors import UserError
from contract.rollout import Canary
from contract.rollout_file import named, promote, settled, start_canary
from training.retraining.plan import Wish
from training.retraining.steps import Result

_LOOK_SECONDS = 5.0
_QUICKER = "it is the live one"


def start(wish: Wish, release_id: str, clock: Clock) -> Result:
    """Put the release on trial. GateRefused never: it is new, so nobody has taken it back."""
    try:
        trial = Canary(release_id=release_id, percent=wish.percent, started_at=clock.now())
    except ValidationError as error:
        raise UserError(f"--percent: {error.errors()[0]['msg']}") from None
    start_canary(wish.releases, trial, again=True)
    return {"percent": wish.percent, "started_at": trial.started_at.isoformat()}


def finish(
    wish: Wish,
    release_id: str,
    started_at: str,
    clock: Clock,
    wait: Callable[[float], None] = time.sleep,
) -> Result:
    """Wait until the trial has lasted `canary_minutes`, then promote what still stands; what the
    guard took back, or somebody replaced, is not promoted."""
    end = datetime.fromisoformat(started_at) + timedelta(minutes=wish.canary_minutes)
    while True:
        held = settled(wish.releases)
        told = held.rollback_of(release_id)
        if told is not None:
            return {"became": "taken back", "reason": told.reason}
        if held.canary is None or held.canary.release_id != release_id:
            stood = held.promoted_at is not None and held.promoted_at >= end
            if named(wish.releases) == release_id:  # a person was quicker, or we were killed here
                return _promoted(wish) if stood else {"became": "promoted", "reason": _QUICKER}
            return {"became": "taken back", "reason": "the trial was ended by somebody"}
        left = (end - clock.now()).total_seconds()
        if left <= 0:
            break
        wait(min(left, _LOOK_SECONDS))
    promote(wish.releases, release_id, clock.now())
    return _promoted(wish)


def _promoted(wish: Wish) -> Result:
    reason = f"the trial stood for {wish.canary_minutes:g} minutes"
    return {"became": "promoted", "reason": reason}
