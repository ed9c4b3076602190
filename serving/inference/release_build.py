"""A release from its files: verified, every part of it checked and built, its models run. Whatever
is wrong is said in lines that name the file."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from contract import manifest as contract_manifest
from contract.attribution import Background
from contract.errors import UserError
from contract.manifest import MANIFEST, RELEASE_ID, ReleaseManifest, tensors
from contract.offer_features import OFFER_FEATURES
from contract.pieces import between_pieces
from serving.inference import release_files
from serving.inference.backend import InferenceFailed
from serving.inference.breaker import Breaker, BreakerSettings
from serving.inference.embedded import EmbeddedBackend, ModelFile, Session
from serving.inference.explainer import Explainer
from serving.inference.offer_judge import OfferJudge
from serving.inference.probe import warm_up
from serving.inference.release import STAGES, Release
from serving.inference.release_files import ReleaseFiles

log = logging.getLogger(__name__)

OnBatch = Callable[[str, int], None]
T = TypeVar("T")


def examine(
    releases_dir: Path,
    models_dir: Path,
    release_id: str,
    on_batch: OnBatch | None,
    breaker: BreakerSettings,
) -> tuple[Release | None, list[str]]:
    """The release, or everything that speaks against it, a line each."""
    if not RELEASE_ID.fullmatch(release_id):
        return None, [f"{release_id!r} is no release id"]
    if not (releases_dir / release_id).is_dir():
        return None, ["there is no such release; see `tillwise-serve release list`"]
    files = ReleaseFiles(releases_dir, models_dir, release_id)
    content = files.content("release", MANIFEST)
    if content is None:
        return None, [f"{MANIFEST}: missing"]
    problems = contract_manifest.verify(content, files.digest, release_id=release_id)
    if problems:
        return None, problems
    return _build(files, ReleaseManifest.model_validate_json(content), on_batch, breaker)


@dataclass(frozen=True)
class _Attempt:
    """Reads part by part, so that all that is wrong is told at once."""

    problems: list[str]

    def __call__(self, part: Callable[[], T]) -> T | None:
        between_pieces()
        try:
            return part()
        except UserError as error:
            self.problems.append(str(error))
        except Exception as error:  # sealed, yet of another form than anybody thought of
            self.problems.append(f"a part can not be used: {what(error)}")
        return None


def _build(
    files: ReleaseFiles,
    manifest: ReleaseManifest,
    on_batch: OnBatch | None,
    breaker: BreakerSettings,
) -> tuple[Release | None, list[str]]:
    problems: list[str] = []
    attempt = _Attempt(problems)
    vocabulary = attempt(lambda: release_files.vocabulary(files, manifest))
    if vocabulary is None:
        return None, problems
    size = len(vocabulary)
    shop = attempt(lambda: release_files.catalogue(files, manifest, vocabulary))
    index = attempt(lambda: release_files.index(files, manifest, len(vocabulary.item_ids)))
    knn = attempt(lambda: release_files.session_knn(files, size))
    near = attempt(lambda: release_files.neighbours(files, size))
    popular = attempt(lambda: release_files.popular(files, vocabulary))
    rules = attempt(lambda: release_files.segment_rules(files))
    learned = attempt(lambda: release_files.learned_segments(files, manifest))
    usual = attempt(lambda: release_files.usual_candidates(files, manifest))
    choices = attempt(lambda: release_files.choices(files, manifest))
    judge = attempt(lambda: _offer_judge(files, manifest))
    sessions = {
        name: session
        for name in contract_manifest.MODELS
        if (session := attempt(lambda name=name: _session(files, manifest, name))) is not None  # type: ignore[misc]
    }
    explainer = None
    if usual is not None and contract_manifest.RANKER in sessions:
        explainer = attempt(
            lambda: _explainer(files, manifest, sessions[contract_manifest.RANKER], usual)
        )
    if problems or not (shop and index and knn and near and rules) or popular is None:
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
        {name: Breaker(breaker) for name in (*sessions, *STAGES)},
        rules,
        learned,
        explainer,
        choices,
        judge,
    )
    between_pieces()
    release.derive()
    problems = warm_up(release, sessions)
    if problems:
        release.models.close()
        return None, problems
    return release, []


def what(error: Exception) -> str:
    """An error of a kind that nobody thought of, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _offer_judge(files: ReleaseFiles, manifest: ReleaseManifest) -> OfferJudge | None:
    """None in a release that says nothing of offers, or whose network was trained on features that
    this version does not compute: its models of products are as good without."""
    name = contract_manifest.OFFER_UPLIFT
    if all(entry.name != name for entry in manifest.models):
        return None
    if not manifest.model(name).usable:
        log.warning(
            "release %s: its uplift network was trained on other offer features than this version "
            "has, so nobody is offered anything by it; fit it again and export",
            manifest.release_id,
        )
        return None
    arms = release_files.offer_arms(files)
    judge = OfferJudge(_session(files, manifest, name), arms)
    try:
        (found,) = judge.chances([(np.zeros(len(OFFER_FEATURES), np.float32), 1)])
    except InferenceFailed as error:
        raise UserError(f"{name}: {error} on a probe input") from error
    if len(found) != 1 + len(arms.arms):
        raise UserError(f"{name}: answers for {len(found) - 1} arms, not {len(arms.arms)}")
    return judge


def _explainer(
    files: ReleaseFiles, manifest: ReleaseManifest, ranker: Session, usual: Background
) -> Explainer:
    """With the graph that computes attributions in one pass, where the release has it."""
    name = contract_manifest.ATTRIBUTIONS_FILE
    if name not in manifest.files:
        return Explainer(ranker, usual)
    inputs, outputs = tensors(contract_manifest.ATTRIBUTIONS, manifest.index.dimension)
    model = ModelFile(contract_manifest.ATTRIBUTIONS, files.part(name), inputs, outputs)
    try:
        return Explainer(ranker, usual, Session(model))
    except InferenceFailed as error:
        try:  # the graph is held against the ranker, which may be what fails
            Explainer(ranker, usual).attribute(usual.rows)
        except InferenceFailed:
            version = manifest.model(contract_manifest.RANKER).version
            name = f"{contract_manifest.RANKER}/{version}/model.onnx"
        raise UserError(f"{name}: {error}") from error


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
