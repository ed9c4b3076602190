"""The worker's duty of watching drift: what live decisions were made of, counted by release and day
in the bins of the release's own baseline, against that baseline. Only counts are kept, nothing of
anybody; features are logged under `personalization` alone, so they are of who agreed.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Gauge
from pydantic import JsonValue, ValidationError

from contract.clock import DAY_US, Clock, to_us
from contract.drift import Drifted, DriftLimits, DriftReport, drift
from contract.drift_profile import Profile, Values
from contract.encoding import FIRST_ITEM
from contract.errors import UserError
from contract.events import Event
from contract.manifest import DRIFT_BASELINE, MANIFEST, ReleaseManifest
from contract.reviews import Finding
from contract.rollout_file import named
from contract.served import CART_VECTOR, LEAD, SCORE, Served, added
from serving.inference import release_files
from serving.inference.release_files import ReleaseFiles
from serving.monitoring.alarms import WATCHER
from serving.monitoring.what_went_live import went_live
from serving.state.control_store import ControlStore
from serving.state.event_log import EventLog, Position
from serving.state.sqlite_writer import connect

log = logging.getLogger(__name__)

FILE: Final = "drift.sqlite"  # in the state folder
WINDOW: Final = timedelta(days=7)
_KEPT: Final = timedelta(days=60)
_BATCH: Final = 2_000
_GROUPS: Final = ("features", "scores", "vectors")
_TITLES: Final = {
    "features": "What the ranker is told of shoppers and items is not what it was trained on",
    "scores": "The ranker's scores are not what they were in training",
    "vectors": "Carts hold other items than in training",
}
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS progress (only INTEGER PRIMARY KEY CHECK (only = 1), log_id, position);
CREATE TABLE IF NOT EXISTS profiles (
    release TEXT, day_us INTEGER, body TEXT NOT NULL, PRIMARY KEY (release, day_us)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class _Baseline:
    """Of one release; None: it has none, or can not be read."""

    profile: Profile
    vectors: Mapping[str, Values]


class DriftWatch:
    """Reads decisions into the file at `path`, and tells what has drifted."""

    def __init__(
        self,
        path: Path,
        control: ControlStore,
        releases: Path,
        clock: Clock,
        registry: CollectorRegistry | None = None,
        limits: DriftLimits | None = None,
    ) -> None:
        self._limits = limits or DriftLimits()
        self._file = connect(path)
        self._file.executescript(_SCHEMA)
        self._control, self._releases, self._clock = control, releases, clock
        self._baselines: dict[str, _Baseline | None] = {}
        self._psi: Gauge | None = None
        self._shifted: Gauge | None = None
        if registry is not None:
            labels = ["kind"]
            self._psi = Gauge(
                *("tillwise_drift_psi", "Furthest PSI from the baseline", labels), registry=registry
            )
            self._shifted = Gauge(
                *("tillwise_drift_shifted", "Columns that have shifted", labels), registry=registry
            )

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def follow(self, event_log: EventLog, stopped: Callable[[], bool] = lambda: False) -> int:
        """Count the decisions that are new in the log; how many there were."""
        row = self._file.execute("SELECT log_id, position FROM progress").fetchone()
        position: Position = 0 if isinstance(event_log.last_position, int) else ()
        if row is not None and row[0] == event_log.log_id:
            said = json.loads(row[1])
            position = said if isinstance(said, int) else tuple(said)
        elif row is not None:
            self._file.execute("DELETE FROM profiles")
        count, waiting, here = 0, list[Event](), position
        for here, event in event_log.read_from(position):
            if event.event_name == "decision" and event.decision is not None:
                waiting.append(event)
                count += 1
            if len(waiting) >= _BATCH:
                self._take(waiting, event_log.log_id, here)
                waiting = []
                if stopped():
                    return count
        self._take(waiting, event_log.log_id, here)
        return count

    def report(self) -> tuple[str, DriftReport] | None:
        """Of the live release, its latest days against its baseline; None where there is no
        baseline."""
        live = named(self._releases)
        baseline = None if live is None else self._baseline(live)
        if live is None or baseline is None:
            return None
        since = to_us(self._clock.now() - WINDOW)
        rows = self._file.execute(
            "SELECT body FROM profiles WHERE release = ? AND day_us >= ?", (live, since)
        )
        profiles = [Profile.model_validate_json(body) for (body,) in rows.fetchall()]
        return live, self._compared(profiles, baseline.profile)

    def _compared(self, profiles: Sequence[Profile], baseline: Profile) -> DriftReport:
        return drift(baseline, added(profiles, baseline), self._limits)

    def look(self) -> list[Finding]:
        """One look; what has drifted. Raises StoreError and sqlite3.Error."""
        told = self.report()
        findings = [] if told is None else self.findings(*told)
        asyncio.run(self._control.note_findings("drift", findings, by=WATCHER))
        old = to_us(self._clock.now() - _KEPT)
        self._file.execute("DELETE FROM profiles WHERE day_us < ?", (old,))
        return findings

    def findings(self, release: str, report: DriftReport) -> list[Finding]:
        """What of a report a person should look at, one for each kind. Raises StoreError."""
        found, now = [], self._clock.now()
        for group in _GROUPS:
            columns = [one for one in report.columns if _group(one) == group]
            shifted = [one for one in columns if one.verdict == "shifted"]
            if self._psi is not None and self._shifted is not None:
                self._psi.labels(group).set(max((one.psi for one in columns), default=0.0))
                self._shifted.labels(group).set(len(shifted))
            if not shifted:
                continue
            since = now - WINDOW
            before = went_live(self._control, self._releases, since, now, WINDOW)
            found.append(
                Finding(
                    key=f"drift/{group}",
                    source="drift",
                    metric=f"drift_{group}",
                    title=_TITLES[group],
                    expected=0.0,
                    seen=round(shifted[0].psi, 4),
                    high=0.25,
                    since=since,
                    seen_at=now,
                    before=before,
                    detail={
                        "release": release,
                        "decisions": report.units,
                        "columns": _rows(shifted),
                    },
                )
            )
        return found

    def _take(self, events: Sequence[Event], log_id: str, position: Position) -> None:
        served: dict[tuple[str, int], Served] = {}
        for event in events:
            decision = event.decision or {}
            release = str(decision.get("release_id") or "")
            baseline = self._baseline(release)
            if baseline is None:
                continue
            key = (release, to_us(event.occurred_at) // DAY_US * DAY_US)
            served.setdefault(key, Served(baseline.vectors)).add(decision)
        self._file.execute("BEGIN IMMEDIATE")
        try:
            for (release, day_us), one in served.items():
                self._add(release, day_us, one)
            self._file.execute(
                "INSERT OR REPLACE INTO progress VALUES (1, ?, ?)", (log_id, json.dumps(position))
            )
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def _add(self, release: str, day_us: int, served: Served) -> None:
        baseline = self._baseline(release)
        if baseline is None or not served.decisions:
            return
        profile = served.profile(baseline.profile)
        row = self._file.execute(
            "SELECT body FROM profiles WHERE release = ? AND day_us = ?", (release, day_us)
        ).fetchone()
        if row is not None:
            profile = profile.plus(Profile.model_validate_json(row[0]))
        self._file.execute(
            "INSERT OR REPLACE INTO profiles VALUES (?, ?, ?)",
            (release, day_us, profile.model_dump_json()),
        )

    def _baseline(self, release: str) -> _Baseline | None:
        if release not in self._baselines:
            self._baselines[release] = _read(self._releases, release)
        return self._baselines[release]


def _read(releases: Path, release: str) -> _Baseline | None:
    """What the release says of its training window; None where it says nothing, or is gone."""
    if not release:
        return None
    files = ReleaseFiles(releases, releases, release)
    try:
        content = files.content("release", DRIFT_BASELINE)
        if content is None:
            return None
        manifest = ReleaseManifest.model_validate_json(files.part(MANIFEST))
        if manifest.files.get(DRIFT_BASELINE) != files.digest("release", DRIFT_BASELINE):
            raise UserError(f"{DRIFT_BASELINE} is not what the manifest says")
        profile = Profile.model_validate_json(content)
        ids = release_files.vocabulary(files, manifest).item_ids
        index = release_files.index(files, manifest, len(ids))
    except (UserError, ValidationError) as error:
        log.warning("release %s: drift is not watched: %s", release, error)
        return None
    vectors = np.asarray(index.vectors[FIRST_ITEM:], np.float64)
    return _Baseline(profile, dict(zip(ids, vectors, strict=True)))


def _group(one: Drifted) -> str:
    if one.kind == "vectors" or one.name == CART_VECTOR:
        return "vectors"
    return "scores" if one.name in (SCORE, LEAD) else "features"


def _rows(shifted: Sequence[Drifted]) -> list[JsonValue]:
    return [
        {
            "name": one.name,
            "psi": round(one.psi, 4),
            "ks": round(one.ks, 4),
            **({} if one.frechet is None else {"frechet": round(one.frechet, 4)}),
        }
        for one in shifted[:20]
    ]
