"""What went live in the time before a change: releases, and versions of what merchants write. The
files and the store know it; nothing here says that it was the cause."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from contract.errors import UserError
from contract.reviews import Before
from contract.rollout_file import named, read_rollout
from serving.state.control_store import ControlStore

Written = Literal["rules", "offers", "experiments"]
_WRITTEN: Final[tuple[Written, ...]] = ("rules", "offers", "experiments")  # names of documents
_LOOKED_BACK: Final = timedelta(hours=24)
_MOST: Final = 10


def went_live(
    control: ControlStore, releases: Path, since: datetime, seen_at: datetime, doubt: timedelta
) -> tuple[Before, ...]:
    """From a day before `since` until `doubt` after it (nobody knows that moment exactly), the
    latest first. Raises StoreError."""
    first, last = since - _LOOKED_BACK, min(since + doubt, seen_at)
    found = [*_releases(releases), *_documents(control, first)]
    within = [one for one in found if first <= one.at <= last]
    return tuple(sorted(within, key=lambda one: one.at, reverse=True)[:_MOST])


def _releases(releases: Path) -> Iterator[Before]:
    try:
        rollout, live = read_rollout(releases), named(releases)
    except UserError:
        return
    if rollout.promoted_at is not None and live is not None:
        yield Before(kind="release", name=live, at=rollout.promoted_at)
    if rollout.canary is not None:
        how = "shadow" if rollout.canary.shadow else f"{rollout.canary.percent:g} % of shoppers"
        canary = rollout.canary
        yield Before(kind="canary", name=canary.release_id, at=canary.started_at, note=how)
    for one in rollout.rolled_back:
        yield Before(kind="rollback", name=one.release_id, at=one.at, note=one.reason)


def _documents(control: ControlStore, first: datetime) -> Iterator[Before]:
    for name in _WRITTEN:
        for version in control.document_history(name, limit=_MOST):
            if version.written_at < first:
                break
            yield Before(
                kind=name,
                name=f"version {version.version}",
                at=version.written_at,
                by=version.by.key_id,
                note=version.note,
            )
