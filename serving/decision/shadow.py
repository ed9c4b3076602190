"""The shadow: a release on trial makes decisions a second time, after the answer went out, and
nobody sees them. No answer waits for it: it has threads of its own, makes one decision at a time,
begins only while nothing else is decided, and what there is no time for is dropped and counted."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from contract import feedback
from contract.assignment import takes_part
from contract.clock import Clock
from contract.errors import UserError
from contract.lists import ListSettings
from serving.decision.admission import Overloaded
from serving.decision.decide import Decider
from serving.decision.limits import DecisionSettings, RuleSource
from serving.decision.messages import DecideRequest
from serving.decision.outcome import Decision, SubjectContext, stable_id
from serving.decision.tokens import TokenSigner
from serving.inference.releases import LiveRelease, TrialRelease
from serving.monitoring.releases import SHADOW, ReleaseMetrics
from serving.state.feature_merge import ReadsMany

log = logging.getLogger(__name__)

_WAITING = 16
_PATIENCE_S = 2.0
_PAUSE_S = 0.005
# One decision at a time, and room for what a late one has left behind on a thread: with every place
# taken the lateness of a hanging model would be put down to the crowd, and its breaker never open.
_PLACES = 3


@dataclass(frozen=True)
class _Job:
    request: DecideRequest
    subject: SubjectContext
    shown: Decision
    offered: float  # monotonic


class Shadow:
    """Makes shown decisions again with the release on trial, one at a time."""

    def __init__(
        self,
        live: LiveRelease,
        feature_store: ReadsMany,
        clock: Clock,
        signer: TokenSigner,
        metrics: ReleaseMetrics,
        busy: Callable[[], bool],
        rules: RuleSource | None = None,
        lists: ListSettings = ListSettings(),  # noqa: B008 - frozen
        feedback_days: float = feedback.DAYS,
    ) -> None:
        """`busy`: whether decisions are under way that somebody waits for. A release on trial has
        to obey the merchant's `rules` too, and to make its `lists`: it is compared by them."""
        self._live = live
        self._metrics = metrics
        self._busy = busy
        settings = DecisionSettings(
            max_full=_PLACES,
            max_total=_PLACES,
            threads=1,
            lists=lists,
            feedback_days=feedback_days,
        )
        self._decider = Decider(
            TrialRelease(live), feature_store, clock, signer, settings, rules=rules
        )
        self._waiting: deque[_Job] = deque()
        self._task: asyncio.Task[None] | None = None

    def offer(self, decision: Decision) -> None:
        """A decision was answered; make it again if it is among those on trial."""
        canary = self._live.canary
        if canary is None or not canary.shadow:
            return
        who = stable_id(decision.request, decision.subject)
        if not takes_part(canary.release_id, who, canary.percent):
            return
        if len(self._waiting) >= _WAITING:
            self._metrics.dropped("full")
            return
        self._waiting.append(_Job(decision.request, decision.subject, decision, time.monotonic()))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="shadow")

    def forget(self) -> None:
        """Let go of all that was computed from anybody's behaviour, or waits to be."""
        self._waiting.clear()
        self._decider.query_vectors.clear()

    def close(self) -> None:
        """Drop what waits and end the threads."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        self._decider.close()

    async def drain(self) -> None:
        """Wait until all that was offered is compared or dropped."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            job = self._waiting.popleft()
            while self._busy() and time.monotonic() - job.offered < _PATIENCE_S:
                await asyncio.sleep(_PAUSE_S)
            if self._busy():
                self._metrics.dropped("busy")
                continue
            canary = self._live.canary
            if canary is None or not canary.shadow:
                self._metrics.dropped("ended")
                continue
            await self._again(job)

    async def _again(self, job: _Job) -> None:
        began = time.perf_counter()
        try:
            again = await self._decider.decide(job.request, job.subject)
        except Overloaded:  # by what earlier ones have left behind
            self._metrics.dropped("busy")
            return
        except UserError:  # the trial has ended in this moment
            self._metrics.dropped("ended")
            return
        except Exception as error:  # nobody waits for it: the next one may do better
            self._metrics.crashed(SHADOW)
            log.warning("the shadow release failed: %s", type(error).__name__)
            return
        seconds = time.perf_counter() - began
        self._metrics.decided(SHADOW, again.rung, seconds, failed=again.failed)
        shown = {one.item_id for one in job.shown.shown}
        overlap = None
        if shown:
            overlap = len(shown & {one.item_id for one in again.shown}) / len(shown)
        self._metrics.shadowed(overlap, job.shown.rung, again.rung)
