"""A shop's segment rules and its learned segments, from the imported folder to the release: what
the models have learned from is what serving reads."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from contract.behaviour import BEHAVIOUR, LearnedSegments
from contract.clock import FixedClock
from contract.encoding import encode
from contract.errors import UserError
from contract.manifest import LEARNED_SEGMENTS, SEGMENT_CONFIG, sha256
from contract.segment_config import DEFAULT, RULES, SegmentConfig
from serving.decision.checkout import Checkout
from serving.inference.releases import check_release, load_release
from tests.serving.decision.setting import known, request
from training.data.source import Source, read_source
from training.data.tower_examples import encode_all
from training.evaluation.protocols import completion_cases, situation
from training.export.release import export
from training.fit import Fit
from training.recommender import Recommender
from training.run_folder import Run, read_run, write_run

NOON = FixedClock(datetime(2024, 5, 1, 12, tzinfo=UTC))
OWN = {"lapsing": {"days": 3}, "contextual": [{"name": "utc", "title": "", "weekdays": ["monday"]}]}


def two_segments() -> LearnedSegments:
    width = len(BEHAVIOUR)
    centroids = np.zeros((2, width))
    centroids[1] = 1.0
    return LearnedSegments(("one", "two"), np.zeros(width), np.ones(width), centroids)


def learned_in(folder: Path, **changed: np.ndarray) -> Path:
    folder.mkdir()
    np.savez(folder / LEARNED_SEGMENTS, **(two_segments().arrays() | changed))  # type: ignore[arg-type]
    return folder


def test_a_release_carries_learned_segments_and_its_rules(run: Run, tmp_path: Path) -> None:
    models, releases = tmp_path / "models", tmp_path / "releases"
    made = export(run, models, releases, NOON, {}, segments=learned_in(tmp_path / "learned"))
    folder = releases / made.manifest.release_id
    for name in (LEARNED_SEGMENTS, SEGMENT_CONFIG):
        assert made.manifest.files[name] == sha256((folder / name).read_bytes())
    release = load_release(releases, models, made.manifest.release_id)
    assert release.learned is not None
    assert release.learned.names == ("one", "two")
    assert (release.learned.centroids == two_segments().centroids).all()
    assert release.rules == DEFAULT
    release.models.close()
    content = bytearray((folder / LEARNED_SEGMENTS).read_bytes())
    content[-1] ^= 1
    (folder / LEARNED_SEGMENTS).write_bytes(content)
    found = check_release(releases, models, made.manifest.release_id)
    assert [line.split(":")[0] for line in found] == [LEARNED_SEGMENTS]


def test_a_release_may_do_without(run: Run, tmp_path: Path) -> None:
    made = export(run, tmp_path / "models", tmp_path / "releases", NOON, {})
    release = load_release(tmp_path / "releases", tmp_path / "models", made.manifest.release_id)
    assert release.learned is None
    release.models.close()


@pytest.mark.parametrize("harm", ["absent", "no archive", "other behaviour", "array is missing"])
def test_learned_segments_that_do_not_fit_are_refused(run: Run, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "learned"
    if harm == "other behaviour":
        learned_in(folder, behaviour_version=np.array(99))
    else:
        learned_in(folder)
    if harm == "absent":
        (folder / LEARNED_SEGMENTS).unlink()
    elif harm == "no archive":
        (folder / LEARNED_SEGMENTS).write_bytes(b"nonsense")
    elif harm == "array is missing":
        np.savez(folder / LEARNED_SEGMENTS, behaviour_version=np.array(1), behaviour=BEHAVIOUR)
    with pytest.raises(UserError) as refused:
        export(run, tmp_path / "models", tmp_path / "releases", NOON, {}, segments=folder)
    assert LEARNED_SEGMENTS in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "releases").exists()


def test_the_shop_s_own_rules_reach_models_and_gateway_alike(
    shop_folder: Path, source: Source, fitted: tuple[Fit, Recommender], run: Run, tmp_path: Path
) -> None:
    """From the imported folder through run and release; both sides encode a checkout alike, and
    otherwise than under the defaults."""
    own = tmp_path / "data"
    own.mkdir()
    for path in shop_folder.iterdir():
        (own / path.name).symlink_to(path)
    (own / SEGMENT_CONFIG).write_text(json.dumps(OWN | {"contextual": []}))
    ours = read_source(own)
    assert ours.timelines.rules.lapsing.days == 3
    assert source.timelines.rules == DEFAULT
    fit, recommender = fitted
    write_run(tmp_path / "run", recommender, fit.recipe, ours, fit.report, NOON)
    models, releases = tmp_path / "models", tmp_path / "releases"
    made = export(read_run(tmp_path / "run"), models, releases, NOON, {})
    release = load_release(releases, models, made.manifest.release_id)
    assert release.rules == ours.timelines.rules
    assert made.manifest.feature_hash == run_hash(run)

    lapsing = RULES.index("lapsing")
    differ = 0
    cases = completion_cases(ours.baskets, ours.window, recommender.vocabulary)[:60]
    for case in cases:
        trained = situation(case, ours.baskets, ours.timelines, fit.cut_us)
        inputs = encode_all([trained], recommender.vocabulary)["segments"][0].tolist()
        state = ours.timelines.state(case.subject, min(fit.cut_us, case.now_us))
        place = request(*case.cart)
        checkout = Checkout(place, known(), release, None, None, case.now_us)  # type: ignore[arg-type]
        served = checkout.encoded(state)[1]["segments"].tolist()
        assert served == inputs
        usual = situation(case, source.baskets, source.timelines, fit.cut_us)
        differ += encode(usual, recommender.vocabulary)["segments"][lapsing] != inputs[lapsing]
    assert differ > 0
    release.models.close()


def run_hash(run: Run) -> str:
    told: str = json.loads((run.folder / "run.json").read_text())["feature_hash"]
    return told


def test_rules_that_do_not_fit_are_named_before_anything_is_fitted(
    shop_folder: Path, tmp_path: Path
) -> None:
    for path in shop_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / SEGMENT_CONFIG).write_text(json.dumps(OWN))
    with pytest.raises(UserError, match=r"^segment_config.json: contextual.0.title: "):
        read_source(tmp_path)
    assert SegmentConfig.model_validate(OWN | {"contextual": []}).lapsing.days == 3
