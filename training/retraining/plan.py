"""The plan of a retraining: what is to be done, on which days, and from what. It is written down
before anything else, so that whoever goes on after a crash, on another day, does the same."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from contract.clock import Clock, from_us, to_us
from contract.errors import UserError
from contract.manifest import MANIFEST, OFFER_ARMS
from contract.rollout_file import named, settled
from contract.whole_file import replace
from training.data.storage import event_parts
from training.evaluation.network_chances import released_files
from training.evaluation.protocols import Window
from training.evaluation.released import read_manifest
from training.gates.limits import Limits
from training.recipes import Recipe
from training.retraining.steps import file_digest

Rollout = Literal["none", "canary", "promote"]
Latency = Literal["gateway", "process"]  # where decisions are timed
LIVE = "live"  # stands for whatever release is the live one


@dataclass(frozen=True)
class Wish:
    """What a person asks for."""

    data: Path
    champion: str
    releases: Path
    models: Path
    output: Path
    recipe: Recipe
    limits: Limits
    window_days: int = 14
    validation_days: int = 14
    until: date | None = None  # first day after the window; default: after the last event
    folds: int = 3
    cases: int = 3_000
    rollout: Rollout = "canary"
    percent: float = 5.0
    canary_minutes: float = 0.0
    segments: Path | None = None
    choices: Path | None = None
    uplift: Path | None = None
    demographics: str | None = None  # for the gate on fairness: a file, or a name
    latency: Latency = "gateway"


@dataclass(frozen=True)
class Plan:
    """A wish made definite. `key` stands for all of it: equal inputs give an equal key."""

    key: str
    champion: str
    champion_until: datetime
    window: Window
    created_at: datetime

    @property
    def days(self) -> int:
        """Days of the fresh window."""
        return (self.window.test_until - self.window.train_until).days


def planned(wish: Wish, last_event_us: int, clock: Clock) -> tuple[Plan, Path]:
    """The plan of `wish` and the folder of its steps: the one that was begun before with the very
    same inputs, or a new one. UserError on what can not be planned."""
    champion = champion_id(wish)
    manifest = read_manifest(wish.releases, champion)
    if wish.uplift is None and OFFER_ARMS in manifest.files:
        _goes_along(wish, champion)
    until = to_us_of(wish.until) if wish.until else _next_midnight(last_event_us)
    start = from_us(until) - timedelta(days=wish.window_days)
    window = Window(start - timedelta(days=wish.validation_days), start, from_us(until))
    key = _key(wish, champion, window)
    folder = wish.output / key[:12]
    written = folder / "plan.json"
    if written.exists():
        created_at = datetime.fromisoformat(json.loads(written.read_text())["created_at"])
    else:
        created_at = clock.now().replace(microsecond=0)
        told = {
            "key": key,
            "champion": champion,
            "window": {name: day.isoformat() for name, day in asdict(window).items()},
            "created_at": created_at.isoformat(),
        }
        replace(written, (json.dumps(told, indent=1) + "\n").encode())
    return Plan(key, champion, manifest.trained_until, window, created_at), folder


def _goes_along(wish: Wish, champion: str) -> None:
    """Raises UserError where the champion's uplift network can not, and nothing is fitted yet."""
    try:
        released_files(wish.releases, wish.models, champion)
    except UserError as error:
        raise UserError(
            f"{error}. No new network is named with --uplift, and without one the shop would lose "
            "its targeted offers"
        ) from None


def champion_id(wish: Wish) -> str:
    """The release that is to be beaten; `live` names the one that `current` does."""
    return live_release(wish.releases) if wish.champion == LIVE else wish.champion


def live_release(releases: Path) -> str:
    """The release that `current` names. UserError where there is none."""
    settled(releases)
    live = named(releases)
    if live is None:
        raise UserError(
            f"no release is live in {releases}; export and promote the first one by hand"
        )
    return live


def _key(wish: Wish, champion: str, window: Window) -> str:
    """A digest of everything that the outcome depends on, but for the moment."""
    told: dict[str, Any] = {
        "data": {path.name: file_digest(path) for path in event_parts(wish.data)},
        "beside it": {p.name: file_digest(p) for p in sorted(wish.data.glob("*.parquet"))},
        "settings": [file_digest(p) for p in sorted(wish.data.glob("*.json"))],
        "champion": file_digest(wish.releases / champion / MANIFEST),
        "window": {name: day.isoformat() for name, day in asdict(window).items()},
        "recipe": asdict(wish.recipe),
        "limits": asdict(wish.limits),
        "questions": [wish.folds, wish.cases, wish.latency],
        "rollout": [wish.rollout, wish.percent, wish.canary_minutes],
        "demographics": _said(wish.demographics),
        "places": [str(wish.releases.resolve()), str(wish.models.resolve())],
        "parts": [
            None if one is None else [file_digest(p) for p in sorted(one.iterdir()) if p.is_file()]
            for one in (wish.segments, wish.choices, wish.uplift)
        ],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def to_us_of(day: date) -> int:
    """Midnight of `day`, UTC."""
    return to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _next_midnight(occurred_us: int) -> int:
    return to_us_of(from_us(occurred_us).date() + timedelta(days=1))


def _said(demographics: str | None) -> str | None:
    """A file by its content, a data set by its name."""
    if demographics is None or not Path(demographics).is_file():
        return demographics
    return file_digest(Path(demographics))
