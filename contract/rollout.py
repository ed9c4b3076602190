"""What is known of releases beyond which one is live: the canary, what was live before, what was
live and healthy, and what was rolled back and why.

It is kept as one small file beside `current`, so that every gateway that sees the releases follows
it. The functions here are pure; `contract.rollout_file` writes what they return.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from contract.manifest import ReleaseId

CURRENT: Final = "current"  # names the live release
ROLLOUT: Final = "rollout.json"
ROLLOUT_LOCK: Final = ".rollout.lock"  # held with flock by whoever changes `current` or the file
_KEPT = 20


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Canary(_Strict):
    """A release on trial: for `percent` of the shoppers, who are shown its answers, or, where
    `shadow` is set, whose decisions it makes too without anybody seeing them."""

    release_id: ReleaseId
    percent: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    shadow: bool = False
    started_at: datetime


class RolledBack(_Strict):
    """A release that was taken away; nothing serves it until somebody promotes it again."""

    release_id: ReleaseId
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    at: datetime


class Rollout(_Strict):
    """The content of `rollout.json`. Every list is oldest first and bounded."""

    format: Literal[1] = 1
    canary: Canary | None = None
    promoted_at: datetime | None = None  # when somebody made the live one live
    before: tuple[ReleaseId, ...] = ()  # what was live before the live one
    healthy: tuple[ReleaseId, ...] = ()  # what was live and answered well
    rolled_back: tuple[RolledBack, ...] = ()
    next_live: ReleaseId | None = None  # what `current` is about to name

    @classmethod
    def parse(cls, content: bytes) -> "Rollout":
        """ValueError with one line that names the field at fault."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "content"
            raise ValueError(f"{ROLLOUT}: {where}: {first['msg']}") from None

    def as_bytes(self) -> bytes:
        """How it is written."""
        held = self.model_dump(mode="json")
        if self.next_live is None:  # nearly always; versions before the field refuse it
            del held["next_live"]
        return (json.dumps(held, sort_keys=True, indent=1) + "\n").encode()

    def rollback_of(self, release_id: str) -> RolledBack | None:
        """Why and when `release_id` was taken away; None when it was not."""
        return next((one for one in self.rolled_back if one.release_id == release_id), None)

    def previous(self, live: str | None) -> tuple[str, ...]:
        """What a rollback of `live` may lead to, best first: what was live before and stands."""
        return self._standing(self.before, live)

    def last_good(self, live: str | None) -> tuple[str, ...]:
        """What to serve when `live` can not be, best first: what was healthy, then what was live,
        each the latest first."""
        return self._standing((*self.before, *self.healthy), live)

    def promoted(self, live: str | None, release_id: str, at: datetime) -> "Rollout":
        """After `release_id` was made live by hand in place of `live`: forgiven, no canary."""
        before = self.before if live in (None, release_id) else (*self.before, str(live))
        return self.model_copy(
            update={
                "canary": None,
                "promoted_at": at,
                "before": _latest(one for one in before if one != release_id),
                "rolled_back": tuple(o for o in self.rolled_back if o.release_id != release_id),
            }
        )

    def about_to_name(self, release_id: str | None) -> "Rollout":
        """While `current` does not name `release_id` yet; None: it names what it is to name."""
        return self.model_copy(update={"next_live": release_id})

    def on_trial(self, canary: Canary) -> "Rollout":
        """With this canary, in place of any other; forgiven if it was rolled back."""
        kept = tuple(o for o in self.rolled_back if o.release_id != canary.release_id)
        return self.model_copy(update={"canary": canary, "rolled_back": kept})

    def without_canary(self) -> "Rollout":
        """With no canary."""
        return self.model_copy(update={"canary": None})

    def taken_back(self, release_id: str, reason: str, at: datetime, live: str | None) -> "Rollout":
        """After `release_id` was taken away, be it `live` or a canary, which ends."""
        canary = self.canary
        if canary is not None and canary.release_id == release_id:
            canary = None
        others = [one for one in self.rolled_back if one.release_id != release_id]
        told = RolledBack(release_id=release_id, reason=reason[:500], at=at)
        return self.model_copy(
            update={
                "canary": canary,
                "promoted_at": None if release_id == live else self.promoted_at,
                "healthy": tuple(one for one in self.healthy if one != release_id),
                "rolled_back": (*others, told)[-_KEPT:],
            }
        )

    def found_healthy(self, release_id: str) -> "Rollout":
        """After `release_id` was live for a while and answered well."""
        return self.model_copy(update={"healthy": _latest((*self.healthy, release_id))})

    def _standing(self, ids: Iterable[str], live: str | None) -> tuple[str, ...]:
        """Those that were not taken away, `live` left out, the latest first, each once."""
        gone = {one.release_id for one in self.rolled_back} | {live}
        return tuple(dict.fromkeys(one for one in reversed(tuple(ids)) if one not in gone))


def _latest(ids: Iterable[str]) -> tuple[str, ...]:
    """Each id at its last place, as many as are kept."""
    return tuple(reversed(tuple(dict.fromkeys(reversed(tuple(ids))))))[-_KEPT:]
