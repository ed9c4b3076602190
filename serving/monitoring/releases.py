"""Prometheus metrics of releases. Labels are roles (live, canary, shadow), never release ids, but
for one gauge that says which release has which role and forgets those that have none."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.monitoring.decisions import RUNGS, SECONDS
from serving.monitoring.tally import Counts, Tally

LIVE, CANARY, SHADOW = "live", "canary", "shadow"
ROLES = (LIVE, CANARY, SHADOW)
CAUSES = ("errors", "latency", "rung", "score")
DROPS = ("full", "busy", "late", "ended")
SAME, BETTER, WORSE = "same", "better", "worse"


class ReleaseMetrics:
    """The metrics of one gateway process, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tillwise_release_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tillwise_{name}", text, labels, registry=registry)

        self._info = gauge("info", "Which release has which role", "role", "release_id")
        self.as_wanted = gauge("as_wanted", "1 while the live release is the one that is wanted")
        self.percent = gauge("trial_percent", "Share of the shoppers on trial, in percent")
        self.load_seconds = gauge("load_seconds", "How long the latest load took")
        self.swaps = counter("release_swaps", "Releases that became live")
        self.refused = counter("releases_refused", "Releases that did not verify")
        rolled_back = counter("release_rollbacks", "Rolled back by the guard", "cause")
        self._decisions = Counts(
            *("tillwise_release_decisions", "Decisions by role and rung", ("role", "rung")),
            *([(role, rung) for role in ROLES for rung in RUNGS], registry),
        )
        failed = counter("release_failed_decisions", "Decisions with a failed stage", "role")
        self._spent = Tally(
            *("tillwise_release_decision_seconds", "Time per decision, by role", "role", ROLES),
            *(SECONDS, registry),
        )
        self._compared = gauge("guard", "What the guard last compared", "measure", "side")
        self.shadow_overlap = Histogram(
            "tillwise_shadow_overlap",
            "Share of the shown items that the shadow release would have shown too",
            buckets=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
            registry=registry,
        )
        rungs = counter("shadow_rungs", "The shadow's rung beside the shown one's", "outcome")
        dropped = counter("shadow_dropped", "Decisions that were not made a second time", "why")
        self._rolled_back = {cause: rolled_back.labels(cause) for cause in CAUSES}
        self._failed = {role: failed.labels(role) for role in ROLES}
        self._rungs = {name: rungs.labels(name) for name in (SAME, BETTER, WORSE)}
        self._dropped = {why: dropped.labels(why) for why in DROPS}
        self._place = {rung: place for place, rung in enumerate(RUNGS)}

    def roles(self, held: Mapping[str, str], percent: float) -> None:
        """Which release has which role now, and how many percent are on trial."""
        self._info.clear()
        for role, release_id in held.items():
            self._info.labels(role, release_id).set(1)
        self.percent.set(percent)

    def decided(self, role: str, rung: str, seconds: float, *, failed: bool) -> None:
        """A decision was made by the release in `role`."""
        self._decisions.add(role, rung)
        self._spent.observe(role, seconds)
        if failed:
            self._failed[role].inc()

    def crashed(self, role: str) -> None:
        """A decision ended in an error."""
        self._failed[role].inc()

    def compared(self, measure: str, base: float, trial: float) -> None:
        """The guard compared the two."""
        self._compared.labels(measure, "base").set(base)
        self._compared.labels(measure, "trial").set(trial)

    def rolled_back(self, cause: str) -> None:
        """The guard took a release away."""
        self._rolled_back[cause].inc()

    def shadowed(self, overlap: float | None, shown: str, shadow: str) -> None:
        """A decision was made a second time; `overlap` None where nothing was shown."""
        if overlap is not None:
            self.shadow_overlap.observe(overlap)
        better = self._place[shown] - self._place[shadow]
        self._rungs[SAME if better == 0 else BETTER if better > 0 else WORSE].inc()

    def dropped(self, why: str) -> None:
        """A decision was not made a second time."""
        self._dropped[why].inc()
