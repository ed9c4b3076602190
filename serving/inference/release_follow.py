"""Keeps the folders of one pod in step with the release store: pull what is needed, let the model
server load it, then switch, so that what `current` names can be served everywhere."""

import logging
import threading
import time
from pathlib import Path

from contract import rollout_file
from contract.clock import Clock
from contract.errors import UserError
from contract.manifest import MANIFEST, ReleaseManifest
from serving.inference import release_roles, release_transfer, triton_repository
from serving.inference.release_place import Fingerprint, Folders, fingerprint, local_manifest
from serving.inference.release_store import (
    Live,
    ReleaseStore,
    StoreUnreachable,
    parsed_manifest,
)
from serving.inference.triton_repository import LoadRefused, TritonAway

log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 300.0
# In a row, before a server is out of service; and then so many between two tries to mend it.
_FAILED_ROUNDS = 3
_MENDING_ROUNDS = 5


class NotInStep(UserError):  # noqa: N818 - it names what happened
    """Something that the switch waits for is not ready; it is asked again."""


class Puller:
    """`load_triton`: the server beside us, made to load what was pulled before `current` moves.
    `await_triton`: every server of this name must have loaded it before `current` moves."""

    def __init__(
        self,
        store: ReleaseStore,
        folders: Folders,
        clock: Clock,
        *,
        prune: bool = False,
        load_triton: str | None = None,
        await_triton: str | None = None,
        mark: Path | None = None,
    ) -> None:
        self._store = store
        self._folders = folders
        self._clock = clock
        self._prune = prune
        self._load_triton = load_triton
        self._await_triton = await_triton
        self._mark = mark
        self._said = ""
        self._refused: tuple[int, frozenset[str]] = (0, frozenset())
        self._whole: dict[str, Fingerprint] = {}  # what was pulled and verified, as it then was
        self._held: list[ReleaseManifest] = []  # what the server beside us was last made to hold
        self._failed = 0  # rounds in a row in which that server did not answer

    def once(self, *, or_keep: bool = False) -> str:
        """Be in step once; the release that is live here. Raises UserError, or OSError where this
        machine's own disk fails: nothing was moved.

        `or_keep`: be content with the release that `current` names if the store can not be reached,
        what it holds is refused, or it can not be written here.
        """
        able = or_keep and self._usable()
        try:
            if able:  # what waits for this pod must not wait for a store that says nothing
                ReleaseStore(self._store.url, hurried=True).live()
            self._step()
        except (UserError, OSError) as error:
            if not (able or (or_keep and self._usable())):
                raise
            kept = rollout_file.named(self._folders.releases)
            log.warning("%s; keeping release %s", error, kept)
        live = rollout_file.named(self._folders.releases)
        assert live is not None  # `_step` and the check above see to it
        return live

    def follow(self, every_s: float, ended: threading.Event) -> None:
        """Be in step again and again until `ended`; what fails is tried again, ever more slowly
        where trying costs a download."""
        wait_s = every_s
        while True:
            try:
                self._step()
                wait_s = every_s
                self._say(f"in step with {self._store.url}", logging.INFO)
            except (StoreUnreachable, TritonAway, NotInStep) as error:
                wait_s = every_s
                self._say(str(error), logging.WARNING)
            except (UserError, OSError) as error:
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                self._say(f"{error}; what is live here stays so", logging.ERROR)
            if self._usable():
                if self._load_triton is not None:
                    self._judge(self._load_triton)
                self._write_mark()
            if ended.wait(wait_s):
                return

    def _step(self) -> None:
        live = self._store.live()
        if live is None:
            raise StoreUnreachable(f"{self._store.url}: no release is live; push one first")
        began = time.perf_counter()
        held = [self._pulled(release_id, live) for release_id in live.needed]
        for name in release_transfer.configure(self._store, self._folders, live.current):
            log.info("%s is that of release %s now", name, live.current)
        manifests = [one for one in held if one is not None]
        if self._load_triton is not None:
            self._load(self._load_triton, live, manifests)
            self._held = manifests
        if self._await_triton is not None:
            self._await(live, manifests)
        if release_roles.follow(self._folders, live, self._clock.now()):
            spent = time.perf_counter() - began
            log.info("release %s is live here, after %.1f s", live.current, spent)
        if self._prune:
            self._pruned(live)
        self._write_mark()

    def _pulled(self, release_id: str, live: Live) -> ReleaseManifest | None:
        """The manifest of a release that is here now; None for one that we can do without."""
        whole = self._whole.pop(release_id, None)
        try:
            # Neither a store is asked nor a gigabyte read, every few seconds, for what is known.
            if whole == self._fingerprint(release_id):
                pass
            elif release_transfer.pull(self._store, self._folders, release_id):
                log.info("release %s was pulled", release_id)
        except StoreUnreachable:
            raise
        except UserError as error:
            if release_id == live.current:
                raise
            log.warning("%s; going on without it", error)
            return None
        self._whole[release_id] = self._fingerprint(release_id)
        content = (self._folders.releases / release_id / MANIFEST).read_bytes()
        return parsed_manifest(content, release_id)

    def _fingerprint(self, release_id: str) -> Fingerprint:
        return fingerprint(self._folders.releases, self._folders.models, release_id)

    def _load(self, url: str, live: Live, manifests: list[ReleaseManifest]) -> None:
        """Have the server beside us hold these releases: the live one, or LoadRefused; of the
        others those that it takes, each asked for once until the store says something new."""
        if self._refused[0] != live.generation:
            self._refused = live.generation, frozenset()
        wanted = [one for one in manifests if one.release_id not in self._refused[1]]
        try:
            names = triton_repository.load(url, wanted)
        except LoadRefused as error:
            # A server that refuses one version keeps what it has of the model.
            able = [one for one in wanted[1:] if not triton_repository.missing(url, one)]
            names = triton_repository.load(url, [wanted[0], *able])
            lost = frozenset(one.release_id for one in wanted[1:] if one not in able)
            self._refused = live.generation, self._refused[1] | lost
            log.warning("%s; going on without %s", error, ", ".join(sorted(lost)))
        for name in names:
            log.info("the model server has loaded %s anew", name)

    def _judge(self, url: str) -> None:
        """Whether the server beside us answers, which is more than that it says so. While it does
        not, `mark` is gone, with it the pod out of service, and its models are loaded anew."""
        live = rollout_file.named(self._folders.releases)
        assert live is not None  # asked for only where there is one
        try:
            manifest = local_manifest(self._folders, live)
            failing = triton_repository.failing(url, manifest)
        except UserError:  # the server is away: its own probe tells of that
            return
        if not failing:
            if self._failed >= _FAILED_ROUNDS:
                log.info("%s answers again", url)
            self._failed = 0
            return
        self._failed += 1
        beyond = self._failed - _FAILED_ROUNDS
        if beyond < 0:
            return
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)
        if beyond == 0:
            log.error("%s calls %s of %s ready and does not answer", url, ", ".join(failing), live)
        if beyond % _MENDING_ROUNDS == 0:
            try:
                for name in failing:
                    triton_repository.reload(url, name, self._held or [manifest])
            except UserError as error:
                log.warning("%s", error)

    def _await(self, live: Live, manifests: list[ReleaseManifest]) -> None:
        """NotInStep while a server lacks a model of the release that is about to be live."""
        if release_roles.followed(self._folders) >= live.generation:
            return
        assert self._await_triton is not None
        try:
            addresses = triton_repository.servers(self._await_triton)
            trial = None if live.canary is None else live.canary.release_id
            for manifest in (m for m in manifests if m.release_id in (live.current, trial)):
                for address in addresses:
                    lacking = triton_repository.missing(address, manifest)
                    if lacking:
                        raise NotInStep(
                            f"release {manifest.release_id} waits: {address} has no "
                            f"{', '.join(lacking)} of it"
                        )
        except TritonAway as error:
            raise NotInStep(f"release {live.current} waits: {error}") from None

    def _pruned(self, live: Live) -> None:
        found = release_roles.prune(self._folders, set(live.needed))
        for gone in found.removed:
            log.info("removed %s", gone)
        for left in found.left:
            log.warning("not removed: %s", left)

    def _usable(self) -> bool:
        named = rollout_file.named(self._folders.releases)
        return named is not None and (self._folders.releases / named).is_dir()

    def _write_mark(self) -> None:
        if self._mark is not None and not self._failed and not self._mark.exists():
            self._mark.touch()

    def _say(self, text: str, level: int) -> None:
        """Once, until there is something else to say."""
        if text != self._said:
            self._said = text
            log.log(level, "%s", text)
