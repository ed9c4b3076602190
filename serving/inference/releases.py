"""The releases on disk and the one that is live: verify before anything is used, swap while
running, keep the old one when the new one is refused."""

import asyncio
import gc
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from contract import manifest as contract_manifest
from contract.errors import UserError
from contract.manifest import MANIFEST, DigestOf, ReleaseManifest
from serving.inference import release_files
from serving.inference.backend import InferenceBackend, InferenceFailed
from serving.inference.breaker import Breaker, BreakerSettings
from serving.inference.embedded import EmbeddedBackend, ModelFile, Session
from serving.inference.probe import warm_up
from serving.inference.release import Release
from serving.inference.release_files import ReleaseFiles

CURRENT = "current"
_RELEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OnBatch = Callable[[str, int], None]
# Makes the backend of a release that is complete but for it, given a session per model file.
Backends = Callable[[Release, Mapping[str, Session]], InferenceBackend]
T = TypeVar("T")


def digest_of(releases_dir: Path, models_dir: Path, release_id: str) -> DigestOf:
    """The digests that contract.manifest.verify asks for."""
    return ReleaseFiles(releases_dir, models_dir, release_id).digest


def live_release_id(releases_dir: Path) -> str:
    """The release that `current` names; UserError when it names none that exists."""
    try:
        text = (releases_dir / CURRENT).read_bytes().decode().removesuffix("\n")
    except FileNotFoundError as error:
        raise UserError(
            f"{CURRENT}: missing, so no release is live; make one with `tillwise-train export` "
            "or choose one with `tillwise-serve release promote`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{CURRENT}: cannot be read") from error
    if not _RELEASE_ID.fullmatch(text):
        raise UserError(f"{CURRENT}: does not hold one release id")
    if not (releases_dir / text).is_dir():
        raise UserError(f"{CURRENT}: names release {text}, which does not exist")
    return text


def check_release(releases_dir: Path, models_dir: Path, release_id: str) -> list[str]:
    """Everything that is wrong with a release and with the `current` pointer, a line each that
    names the file; an empty list means that it can be served."""
    problems = []
    try:
        live_release_id(releases_dir)
    except UserError as error:
        problems.append(str(error))
    built, found = _examine(releases_dir, models_dir, release_id, None, BreakerSettings())
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
    release, problems = _examine(releases_dir, models_dir, release_id, on_batch, breaker)
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
    """The release that decisions are made with. Used from one event loop."""

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
        self._users: dict[Release, int] = {}
        self._swapping = asyncio.Lock()

    @property
    def current(self) -> Release:
        """The live release; UserError before the first one was loaded."""
        if self._current is None:
            raise UserError("no release is loaded")
        return self._current

    async def load_or_keep(self, release_id: str) -> None:
        """Make `release_id` live, or raise UserError and keep the one that is.

        It is verified, loaded and warmed up on another thread while the old one serves.
        """
        async with self._swapping:
            fresh = await asyncio.to_thread(
                load_release,
                self.releases_dir,
                self.models_dir,
                release_id,
                on_batch=self._on_batch,
                breaker=self._breaker,
                backends=self._backends,
            )
            self.use(fresh)
            # Its hundreds of thousands of small objects live as long as it is live: a collection
            # that walks over them stops every decision for 30 ms and finds nothing.
            gc.freeze()

    def use(self, release: Release) -> None:
        """Make a loaded release live; the old one ends when its last decision has ended."""
        old, self._current = self._current, release
        if old is not None and old is not release and not self._users.get(old):
            old.models.close()

    @contextmanager
    def lease(self) -> Iterator[Release]:
        """The live release, kept running until the end of the block even if another one comes."""
        release = self.current
        self._users[release] = self._users.get(release, 0) + 1
        try:
            yield release
        finally:
            self._users[release] -= 1
            if not self._users[release]:
                del self._users[release]
                if release is not self._current:
                    release.models.close()

    def close(self) -> None:
        """End the models of the live release."""
        if self._current is not None:
            self._current.models.close(wait_s=1.0)
            self._current = None


def _examine(
    releases_dir: Path,
    models_dir: Path,
    release_id: str,
    on_batch: OnBatch | None,
    breaker: BreakerSettings,
) -> tuple[Release | None, list[str]]:
    """The release, or everything that speaks against it."""
    if not _RELEASE_ID.fullmatch(release_id):
        return None, [f"{release_id!r} is no release id"]
    if not (releases_dir / release_id).is_dir():
        return None, [f"{release_id}: there is no such release; see `tillwise-serve release list`"]
    files = ReleaseFiles(releases_dir, models_dir, release_id)
    content = files.content("release", MANIFEST)
    if content is None:
        return None, [f"{MANIFEST}: missing"]
    problems = contract_manifest.verify(content, files.digest, release_id=release_id)
    if problems:
        return None, problems
    return _build(files, ReleaseManifest.model_validate_json(content), on_batch, breaker)


def _build(
    files: ReleaseFiles,
    manifest: ReleaseManifest,
    on_batch: OnBatch | None,
    breaker: BreakerSettings,
) -> tuple[Release | None, list[str]]:
    problems: list[str] = []

    def attempt(part: Callable[[], T]) -> T | None:
        try:
            return part()
        except UserError as error:
            problems.append(str(error))
            return None

    vocabulary = attempt(lambda: release_files.vocabulary(files, manifest))
    if vocabulary is None:
        return None, problems
    size = len(vocabulary)
    shop = attempt(lambda: release_files.catalogue(files, manifest, vocabulary))
    index = attempt(lambda: release_files.index(files, manifest, len(vocabulary.item_ids)))
    knn = attempt(lambda: release_files.session_knn(files, size))
    near = attempt(lambda: release_files.neighbours(files, size))
    popular = attempt(lambda: release_files.popular(files, vocabulary))
    sessions = {
        name: session
        for name in contract_manifest.MODELS
        if (session := attempt(lambda name=name: _session(files, manifest, name))) is not None  # type: ignore[misc]
    }
    if problems or not (shop and index and knn and near) or popular is None:
        return None, problems
    release = Release(
        manifest,
        vocabulary,
        shop[0],
        shop[1],
        near,
        knn,
        index.vectors,
        index,
        popular,
        EmbeddedBackend(sessions, on_batch),
        {name: Breaker(breaker) for name in sessions},
    )
    release.derive()
    problems = warm_up(release, sessions)
    if problems:
        release.models.close()
        return None, problems
    return release, []


def _session(files: ReleaseFiles, manifest: ReleaseManifest, name: str) -> Session:
    entry = manifest.model(name)
    path = f"{name}/{entry.version}/model.onnx"
    content = files.content("models", path)
    if path not in entry.files or content is None:
        raise UserError(f"{path}: missing")
    beside = {
        held.rpartition("/")[2]: files.content("models", held) or b""
        for held in entry.files
        # model.py is for Triton's Python backend.
        if held.startswith(f"{name}/{entry.version}/") and held != path and held[-3:] != ".py"
    }
    try:
        return Session(ModelFile(name, content, entry.inputs, entry.outputs, beside))
    except InferenceFailed as error:
        raise UserError(f"{path}: {error}") from error
