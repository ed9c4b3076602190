"""Follows what the releases' folder says: which release is live, which is on trial, which were
taken away. Every gateway does, so that all of them agree without knowing one another.

Whatever is wrong there, the release that serves goes on; `problems` says what it is.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from contract import rollout_file
from contract.clock import Clock, SystemClock
from contract.errors import UserError
from contract.rollout import Canary, Rollout
from contract.rollout_file import live_release_id
from serving.inference.backend import InferenceFailed, ServerNotReady
from serving.inference.guard import Comparison, Guard
from serving.inference.loading import give_back_memory
from serving.inference.probe import probe
from serving.inference.release_place import Fingerprint, fingerprint
from serving.inference.releases import LiveRelease
from serving.inference.wanted import read_wanted, refuse_taken
from serving.monitoring.releases import CANARY, LIVE, SHADOW, ReleaseMetrics

log = logging.getLogger(__name__)
_JUDGE_EVERY_S = 1.0
_LIVE, _TRIAL, _ROLLOUT, _GUARD = "live", "trial", "rollout", "guard"


class Follower:
    """Looks again and again. A refused release is tried again only when its files have changed."""

    def __init__(
        self,
        live: LiveRelease,
        guard: Guard,
        metrics: ReleaseMetrics,
        *,
        healthy_after_s: float = 60.0,
        guarding: bool = True,
        problem: str | None = None,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`problem`: what was wrong when the live release was loaded."""
        self._live = live
        self._guard = guard
        self._metrics = metrics
        self._healthy_after_s = healthy_after_s
        self._guarding = guarding
        self._clock = clock or SystemClock()
        self._monotonic = monotonic
        self._rollout = Rollout()
        self._refused: dict[
            str, tuple[Fingerprint, Fingerprint]
        ] = {}  # files then, and when last looked at
        # By this gateway, also where it could not be written down; as what it was on trial.
        self._taken: dict[str, Canary | None] = {}
        self._live_since = self._judged = monotonic()
        self._recorded: str | None = None
        self._untidy = False  # something was loaded or ended at the last look
        self._problems: dict[str, str] = {}
        if problem is not None:
            self._problems[_LIVE] = problem
        self._publish()

    @property
    def problems(self) -> list[str]:
        """What keeps this gateway from serving what is wanted, a line each."""
        return list(self._problems.values())

    async def note_refused(self) -> None:
        """The start refused what `current` names: that is not to be tried again half a second
        later."""
        try:
            wanted = await asyncio.to_thread(live_release_id, self._live.releases_dir)
        except UserError:
            return
        await self._refuse(wanted)

    async def look(self) -> None:
        """Follow what has changed, judge what is new, remember what is healthy."""
        # On a thread: the folder may lie on a network, and every checkout would wait for it.
        rollout, wanted = await asyncio.to_thread(read_wanted, self._live.releases_dir)
        if isinstance(rollout, Rollout):
            self._rollout = rollout
            self._say(_ROLLOUT, None)
        else:  # what it said last goes on
            self._say(_ROLLOUT, str(rollout))
        held = {self._live.current, self._live.candidate}
        await self._follow_live(wanted)
        await self._follow_trial()
        self._publish()
        if self._untidy:  # by now nobody decides with what ended at the last look
            self._untidy = False
            await asyncio.to_thread(give_back_memory)
        self._untidy = held != {self._live.current, self._live.candidate}
        if self._guarding and self._monotonic() - self._judged >= _JUDGE_EVERY_S:
            self._judged = self._monotonic()
            await self.judge()
        await self._remember_healthy()

    async def judge(self) -> None:
        """Take away what does worse than what it replaces."""
        live, candidate = self._live.current.release_id, self._live.candidate
        canary = self._live.canary
        if candidate is not None and canary is not None and not canary.shadow:
            found = self._guard.about_candidate(live, candidate.release_id)
            await self._act_on(candidate.release_id, found)
        await self._act_on(live, self._guard.about_live(live))

    async def _act_on(self, release_id: str, found: list[Comparison]) -> None:
        for one in found:
            self._metrics.compared(one.measure, one.base, one.trial)
        bad = [one for one in found if one.bad]
        if not bad or release_id in self._taken:
            return
        reason = "guard: " + "; ".join(one.reason for one in bad)
        candidate, self._taken[release_id] = self._live.candidate, self._live.canary
        if candidate is not None and candidate.release_id == release_id:
            self._live.end_trial()  # at once, whatever the disk says
        self._metrics.rolled_back(bad[0].measure)
        log.error(
            "release %s is rolled back: %s",
            release_id,
            reason,
            extra={"fields": {"release_id": release_id, "cause": bad[0].measure}},
        )
        try:
            await asyncio.to_thread(
                rollout_file.roll_back,
                self._live.releases_dir,
                release_id,
                reason,
                self._clock.now(),
            )
        except (UserError, OSError) as error:
            self._say(_GUARD, f"release {release_id} could not be rolled back: {error}; {reason}")

    async def _follow_live(self, wanted: str | UserError) -> None:
        current = self._live.current.release_id
        try:
            if isinstance(wanted, UserError):
                raise wanted
            refuse_taken(self._rollout, wanted)
        except UserError as error:
            self._say(_LIVE, f"{error}; keeping release {current}")
            return
        if wanted == current:
            self._say(_LIVE, None)
        elif await self._may_try(wanted):
            self._taken.pop(wanted, None)
            await self._swap(current, wanted)

    async def _swap(self, current: str, wanted: str) -> None:
        began = self._monotonic()
        try:
            await self._live.load_or_keep(wanted)
        except UserError as error:
            if not isinstance(error, ServerNotReady):  # that is looked at again the next time
                await self._refuse(wanted)
                await self._leave_taken(current, wanted)
            self._say(_LIVE, f"{error}; keeping release {self._live.current.release_id}")
            return
        went_back = self._rollout.rollback_of(current) is not None
        if not went_back:  # what is gone back to has proven itself
            self._guard.promoted(current, wanted)
        self._live_since, self._recorded = self._monotonic(), None
        self._metrics.load_seconds.set(self._live_since - began)
        self._metrics.swaps.inc()
        self._say(_LIVE, None)
        log.info("release %s is live, after %s", wanted, current)

    async def _leave_taken(self, current: str, wanted: str) -> None:
        """What was taken away does not stay because what it was to give way to is broken: the last
        good release that can be served takes its place."""
        if self._rollout.rollback_of(current) is None:
            return
        for release_id in self._rollout.last_good(wanted):
            try:
                await self._live.load_or_keep(release_id)
            except UserError as error:
                log.error("%s", error)
                continue
            self._live_since, self._recorded = self._monotonic(), None
            self._metrics.swaps.inc()
            log.warning("release %s is live, after %s, for want of %s", release_id, current, wanted)
            return

    async def _follow_trial(self) -> None:
        canary = self._rollout.canary
        if canary is None or canary.release_id == self._live.current.release_id:
            self._live.end_trial()
            self._say(_TRIAL, None)
            return
        if canary in (self._live.canary, self._taken.get(canary.release_id)):
            return
        held = self._live.candidate
        loaded = held is not None and held.release_id == canary.release_id
        if not loaded and not await self._may_try(canary.release_id):
            return
        self._taken.pop(canary.release_id, None)
        try:
            await self._live.try_out(canary)
        except UserError as error:
            if not isinstance(error, ServerNotReady):
                await self._refuse(canary.release_id)
            self._say(_TRIAL, f"{error}; nobody is on trial")
            return
        self._say(_TRIAL, None)
        how = "in the shadow of" if canary.shadow else "shown for"
        log.info("release %s is on trial, %s %g %%", canary.release_id, how, canary.percent)

    async def _remember_healthy(self) -> None:
        """Write down that the live release is good, once, so that a start can fall back on it."""
        live = self._live.current.release_id
        settled = self._monotonic() - self._live_since >= self._healthy_after_s
        if live == self._recorded or not settled or live in self._taken or _LIVE in self._problems:
            return
        self._recorded = live
        try:
            with self._live.lease() as release:
                await probe(release)
            await asyncio.to_thread(rollout_file.record_healthy, self._live.releases_dir, live)
        except (InferenceFailed, UserError, OSError) as error:
            log.warning("release %s is not remembered as healthy: %s", live, error)

    async def _may_try(self, release_id: str) -> bool:
        """Whether this release was never refused, or is whole files later another one: while
        somebody still copies it, its files differ from one look to the next."""
        refused = self._refused.get(release_id)
        if refused is None:
            return True
        files, seen = refused
        now = await self._fingerprint(release_id)
        self._refused[release_id] = files, now
        return now != files and now == seen

    async def _refuse(self, release_id: str) -> None:
        found = await self._fingerprint(release_id)
        self._refused[release_id] = found, found
        self._metrics.refused.inc()

    async def _fingerprint(self, release_id: str) -> Fingerprint:
        """On a thread: it looks at every file, and the disk may be slow."""
        folders = self._live.releases_dir, self._live.models_dir
        return await asyncio.to_thread(fingerprint, *folders, release_id)

    def _say(self, what: str, problem: str | None) -> None:
        """Remember the problem, or that there is none; log it when it is new."""
        if problem is None:
            self._problems.pop(what, None)
        elif self._problems.get(what) != problem:
            self._problems[what] = problem
            log.error("%s", problem)

    def _publish(self) -> None:
        live, candidate, canary = self._live.current, self._live.candidate, self._live.canary
        held = {LIVE: live.release_id}
        if candidate is not None and canary is not None:
            held[SHADOW if canary.shadow else CANARY] = candidate.release_id
        self._guard.follow(live.release_id, None if candidate is None else candidate.release_id)
        self._metrics.roles(held, 0.0 if canary is None else canary.percent)
        self._metrics.as_wanted.set(0 if _LIVE in self._problems else 1)
