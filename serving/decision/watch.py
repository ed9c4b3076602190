"""What is learned from every decision about the release that made it: metrics by role and the
guard's windows."""

import math

from serving.decision.outcome import Decision
from serving.inference.guard import Guard
from serving.inference.release import Release
from serving.inference.releases import LiveRelease
from serving.monitoring.releases import CANARY, LIVE, ReleaseMetrics

# Callers with a tiny deadline get poor answers from any release; they say nothing about this one.
_FAIR_DEADLINE_MS = 50


class ReleaseWatch:
    """The DecisionWatch of a gateway."""

    def __init__(self, live: LiveRelease, guard: Guard, metrics: ReleaseMetrics) -> None:
        self._live = live
        self._guard = guard
        self._metrics = metrics

    def decided(self, release: Release, decision: Decision, seconds: float) -> None:
        """See DecisionWatch."""
        role = CANARY if release is self._live.candidate else LIVE
        failed = decision.failed
        self._metrics.decided(role, decision.rung, seconds, failed=failed)
        # One that was shed says how busy the gateway was, one without its model server how that
        # server was, and neither how good the release is.
        fair = decision.request.deadline_ms >= _FAIR_DEADLINE_MS and not decision.shed
        if fair and not release.models.away:
            self._guard.add(
                release.release_id,
                seconds,
                _lead(decision),
                failed=failed,
                full=decision.rung == "full",
            )

    def crashed(self, release: Release, seconds: float) -> None:
        """See DecisionWatch."""
        self._metrics.crashed(CANARY if release is self._live.candidate else LIVE)
        self._guard.add(release.release_id, seconds, math.nan, failed=True, full=False)


def _lead(decision: Decision) -> float:
    """By how much the best suggestion leads the mean of all that are shown. A ranker's scores mean
    nothing but their differences, so that their level may change from one fit to the next. Where
    rules chose what is shown, they say nothing of the release."""
    if decision.rung != "full" or len(decision.shown) < 2 or decision.response.applied_rules:
        return math.nan
    scores = [one.score for one in decision.shown]
    return scores[0] - sum(scores) / len(scores)
