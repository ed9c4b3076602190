"""The uplift network on its way into a release, and a release that does without."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.errors import GateRefused, UserError
from contract.manifest import MANIFEST, MODELS, OFFER_ARMS, OFFER_UPLIFT, Root, sha256, verify
from contract.offer_arms import Arm, OfferArms, split_answer
from contract.offer_features import OFFER_FEATURES, offer_feature_hash
from contract.offers import AmountOff, Discount, FreeShipping, PercentOff
from tests.training.export.test_release import NOON
from tests.training.uplift.test_evidence import dear
from tests.training.uplift.test_uplift import planted
from training.data.offer_log import OfferLog
from training.export.release import export
from training.export.uplift import uplift_model
from training.run_folder import Run
from training.uplift.evidence import EVIDENCE, Evidence
from training.uplift.fit import UpliftRecipe, fit_uplift, predicted
from training.uplift.run_folder import read_uplift, write_uplift

ARMS = OfferArms(
    arms=(
        Arm(name="first", discount=PercentOff(percent=10)),
        Arm(name="second", discount=AmountOff(amount=300)),
    )
)  # as of a log: a network that is written says of which features it is
RECIPE = UpliftRecipe(members=2, most_epochs=2)


def with_features(narrow: OfferLog) -> OfferLog:
    """As many as a shop has; only the first few say anything."""
    wide = np.zeros((len(narrow), len(OFFER_FEATURES)), np.float32)
    wide[:, :4] = narrow.features
    return OfferLog(**{**vars(narrow), "features": wide, "feature_names": OFFER_FEATURES})


def fitted(log: OfferLog, path: Path) -> Path:
    """The folder of a network that was learned from `log`."""
    network = fit_uplift(log, RECIPE, 0)
    write_uplift(path, network.model, ARMS, RECIPE, Evidence.of(log, network.out_of_fold))
    return path


@pytest.fixture(scope="module")
def log() -> OfferLog:
    return with_features(planted(3_000)[0])


@pytest.fixture(scope="module")
def folder(log: OfferLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(log, tmp_path_factory.mktemp("uplift"))


def test_the_file_answers_like_the_network(folder: Path, log: OfferLog) -> None:
    model, _ = read_uplift(folder)
    session = onnxruntime.InferenceSession(
        uplift_model(folder).content, providers=["CPUExecutionProvider"]
    )
    value = log.value.astype(np.float32)[:, None]
    (answer,) = session.run(None, {"offer_features": log.features, "cart_value": value})
    chances, spends = predicted(model, log)
    for row in (0, 7, len(log) - 1):
        chance, spend = split_answer(answer[row].tolist())
        assert chance == pytest.approx(chances[row].tolist(), abs=1e-5)
        assert spend == pytest.approx(spends[row].tolist(), rel=1e-4)


def test_a_network_whose_offers_do_not_pay_stays_in_the_house(run: Run, tmp_path: Path) -> None:
    folder = fitted(with_features(dear()), tmp_path / "offers")
    releases = tmp_path / "releases"
    with pytest.raises(GateRefused, match="1,500 decisions of 125 people"):
        export(run, tmp_path / "models", releases, NOON, {}, uplift=folder)
    assert not releases.exists()
    assert not (tmp_path / "models").exists()
    (folder / EVIDENCE).unlink()
    with pytest.raises(UserError, match=r"evidence\.json: missing; fit again"):
        uplift_model(folder)


def test_a_release_carries_it_and_verifies(run: Run, folder: Path, tmp_path: Path) -> None:
    models, releases = tmp_path / "models", tmp_path / "releases"
    manifest = export(run, models, releases, NOON, {}, uplift=folder).manifest
    assert {entry.name for entry in manifest.models} == {*MODELS, OFFER_UPLIFT}
    assert manifest.model(OFFER_UPLIFT).outputs[0].shape == (6,)  # 3 arms, 2 figures
    place = releases / manifest.release_id

    def digest_of(root: Root, name: str) -> str | None:
        path = (place if root == "release" else models) / name
        return sha256(path.read_bytes()) if path.is_file() else None

    assert verify((place / MANIFEST).read_bytes(), digest_of) == []
    said = OfferArms.model_validate_json((place / OFFER_ARMS).read_bytes())
    assert said == ARMS.of_this_version()
    assert said.feature_hash == manifest.model(OFFER_UPLIFT).feature_hash == offer_feature_hash()
    assert all(manifest.model(name).feature_hash is None for name in MODELS)
    config = (models / OFFER_UPLIFT / "config.pbtxt").read_text()
    parsed = text_format.Parse(config, model_config_pb2.ModelConfig())
    assert list(parsed.output[0].dims) == [-1]  # as many as a release has arms
    (place / OFFER_ARMS).unlink()
    assert verify((place / MANIFEST).read_bytes(), digest_of) == [f"{OFFER_ARMS}: missing"]


@pytest.mark.parametrize(
    ("discount", "column"),
    [
        (PercentOff(percent=10), 1),
        (PercentOff(percent=19), 1),
        (PercentOff(percent=21), None),  # more than twice what was tried
        (AmountOff(amount=150), 2),
        (AmountOff(amount=100), None),
        (FreeShipping(), None),  # was not tried
    ],
)
def test_an_arm_speaks_for_offers_like_it(discount: Discount, column: int | None) -> None:
    assert ARMS.column(discount) == column


def test_a_folder_without_a_network_is_one_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"offer_arms\.json: missing"):
        read_uplift(tmp_path)
    older = ARMS.model_copy(update={"features_version": 0, "feature_hash": "0" * 64})
    for without in (older, ARMS):
        (tmp_path / OFFER_ARMS).write_text(without.model_dump_json())
        with pytest.raises(UserError, match="learned from offer features"):
            read_uplift(tmp_path)
    (tmp_path / OFFER_ARMS).write_text(ARMS.of_this_version().model_dump_json())
    with pytest.raises(UserError, match="make it with `tillwise-train uplift`"):
        read_uplift(tmp_path)
