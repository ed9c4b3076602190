"""The releases on disk and the one that is live: verify before anything is used, swap while
running, keep the old one when the new one is refused."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from contract.assignment import takes_part
from contract.errors import UserError
from contract.rollout import Canary
from contract.rollout_file import live_release_id
from serving.inference.backend import InferenceBackend
from serving.inference.breaker import BreakerSettings
from serving.inference.embedded import EmbeddedBackend, Session
from serving.inference.loading import GiveWay, load_beside
from serving.inference.release import Release
from serving.inference.release_build import OnBatch, examine, what

# Makes the backend of a release that is complete but for it, given a session per model file.
Backends = Callable[[Release, Mapping[str, Session]], InferenceBackend]


def check_release(releases_dir: Path, models_dir: Path, release_id: str) -> list[str]:
    """Everything that is wrong with a release and with the `current` pointer, a line each that
    names the file; an empty list means that it can be served."""
    problems = []
    try:
        live_release_id(releases_dir)
    except UserError as error:
        problems.append(str(error))
    built, found = examine(releases_dir, models_dir, release_id, None, BreakerSettings())
    if built is not None:
        built.models.close()
    return problems + found


def load_release(
    releases_dir: Path,
    models_dir: Path,
    release_id: str,
    *,
    on_batch: OnBatch | None = None,
    breaker: BreakerSettings = BreakerSettings(),  # noqa: B008 - frozen
    backends: Backends | None = None,
) -> Release:
    """The verified, warmed-up release; UserError with one line that names what differs.

    Its models run in this process, or where `backends` runs them; the files are verified by running
    them here in both cases.
    """
    release, problems = examine(releases_dir, models_dir, release_id, on_batch, breaker)
    if release is None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"release {release_id} is refused: {problems[0]}{more}")
    return release if backends is None else _elsewhere(release, backends)


def _elsewhere(release: Release, backends: Backends) -> Release:
    """The release with other models behind it; those in this process end."""
    embedded = release.models
    assert isinstance(embedded, EmbeddedBackend)
    embedded.close()
    moved = replace(release, models=backends(release, embedded.sessions))
    moved.derive()
    return moved


class LiveRelease:
    """The release that decisions are made with and, beside it, one on trial. Used from one event
    loop. What neither is nor serves a decision any longer ends, and its memory comes back."""

    def __init__(
        self,
        releases_dir: Path,
        models_dir: Path,
        *,
        on_batch: OnBatch | None = None,
        breaker: BreakerSettings = BreakerSettings(),  # noqa: B008 - frozen
        backends: Backends | None = None,
    ) -> None:
        self.releases_dir = releases_dir
        self.models_dir = models_dir
        self._on_batch = on_batch
        self._backends = backends
        self._breaker = breaker
        self._current: Release | None = None
        self._candidate: Release | None = None
        self._canary: Canary | None = None
        self._users: dict[Release, int] = {}
        self._swapping = asyncio.Lock()
        self._loading: GiveWay | None = None
        # What the shop says of its items is laid over a release before it decides anything.
        self.overlay: Callable[[Release], None] = lambda release: None

    @property
    def current(self) -> Release:
        """The live release; UserError before the first one was loaded."""
        if self._current is None:
            raise UserError("no release is loaded")
        return self._current

    @property
    def candidate(self) -> Release | None:
        """The release on trial."""
        return self._candidate

    @property
    def canary(self) -> Canary | None:
        """How it is on trial."""
        return self._canary

    async def load_or_keep(self, release_id: str) -> None:
        """Make `release_id` live, or raise UserError and keep the one that is.

        It is verified, loaded and warmed up on another thread while the old one serves. A release
        on trial is all that already.
        """
        async with self._swapping:
            candidate = self._candidate
            if candidate is not None and candidate.release_id == release_id:
                self.use(candidate)
            else:
                self.use(await self._loaded(release_id))

    async def try_out(self, canary: Canary | None) -> None:
        """Put a release on trial, or end the trial. Raises UserError and has none on trial when it
        is refused."""
        async with self._swapping:
            held = self._candidate
            if canary is None or held is None or held.release_id != canary.release_id:
                self.end_trial()
                if canary is None:
                    return
                self._candidate = await self._loaded(canary.release_id)
            self._canary = canary

    def end_trial(self) -> None:
        """Send everybody to the live release, from this moment on."""
        held, self._candidate, self._canary = self._candidate, None, None
        if held is not None:
            self._let_go(held)

    def use(self, release: Release) -> None:
        """Make a loaded release live; the old one ends when its last decision has ended."""
        old, self._current = self._current, release
        if release is self._candidate:
            self._candidate, self._canary = None, None
        if old is not None:
            self._let_go(old)

    def lease(self, stable_id: str | None = None) -> AbstractContextManager[Release]:
        """The release for the shopper `stable_id` (None: the live one), kept running until the end
        of the block even if another one comes."""
        return _Lease(self, self._for(stable_id))

    def lease_candidate(self) -> AbstractContextManager[Release]:
        """The same for the release on trial; UserError when there is none."""
        if self._candidate is None:
            raise UserError("no release is on trial")
        return _Lease(self, self._candidate)

    def close(self) -> None:
        """End the models of all releases."""
        for release in (self._candidate, self._current):
            if release is not None:
                release.models.close(wait_s=1.0)
        self._current = self._candidate = self._canary = None

    def _for(self, stable_id: str | None) -> Release:
        canary, candidate = self._canary, self._candidate
        if canary is None or candidate is None or canary.shadow or stable_id is None:
            return self.current
        chosen = takes_part(canary.release_id, stable_id, canary.percent)
        return candidate if chosen else self.current

    def hold(self, release: Release) -> None:
        """One more decision needs it."""
        self._users[release] = self._users.get(release, 0) + 1

    def drop(self, release: Release) -> None:
        """A decision that needed it has ended."""
        self._users[release] -= 1
        if not self._users[release]:
            del self._users[release]
            self._let_go(release)
            if self._loading is not None and not self._users:
                self._loading.quiet()

    def _let_go(self, release: Release) -> None:
        """End it unless somebody needs it."""
        if release not in (self._current, self._candidate) and not self._users.get(release):
            release.models.close()

    async def _loaded(self, release_id: str) -> Release:
        def load() -> Release:
            release = load_release(
                self.releases_dir,
                self.models_dir,
                release_id,
                on_batch=self._on_batch,
                breaker=self._breaker,
                backends=self._backends,
            )
            self.overlay(release)
            return release

        self._loading = GiveWay(lambda: bool(self._users))
        try:
            release = await load_beside(load, self._loading)
            self.overlay(release)  # with what was said while it was loaded
            return release
        except UserError:
            raise
        except Exception as error:  # whatever it is, the release that serves goes on
            raise UserError(f"release {release_id} is refused: {what(error)}") from error
        finally:
            self._loading = None


class _Lease(AbstractContextManager[Release]):
    """A release that is held for the length of a block; a generator would take three times as
    long, for every decision."""

    __slots__ = ("_live", "_release")

    def __init__(self, live: LiveRelease, release: Release) -> None:
        self._live, self._release = live, release

    def __enter__(self) -> Release:
        self._live.hold(self._release)
        return self._release

    def __exit__(self, *raised: object) -> None:
        self._live.drop(self._release)


class TrialRelease:
    """The release on trial alone, for decisions that nobody is shown."""

    def __init__(self, live: LiveRelease) -> None:
        self._live = live

    def lease(self, stable_id: str | None = None) -> AbstractContextManager[Release]:
        """See LiveRelease; UserError when nothing is on trial."""
        return self._live.lease_candidate()
