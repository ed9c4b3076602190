"""From a run to a release that verifies, and the ways in which it must not."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import onnxruntime
import pytest
import torch

from contract.clock import FixedClock
from contract.encoding import FIRST_ITEM, encode, stack
from contract.errors import GateRefused, UserError
from contract.item_index import opened
from contract.manifest import (
    INDEX,
    MANIFEST,
    MODELS,
    QUERY_TOWER,
    RANKER,
    SEQUENCE_ENCODER,
    ReleaseManifest,
    Root,
    sha256,
    tensors,
    verify,
)
from contract.rollout import ROLLOUT, Rollout
from contract.rollout_file import promote
from training.data.source import Source
from training.evaluation.protocols import completion_cases, situation
from training.export import graphs, parity
from training.export.index import CANDIDATES
from training.export.index_queries import CARTS, tower_queries
from training.export.release import Exported, export
from training.fit import Fit
from training.recommender import Recommender, neural_side
from training.run_folder import Run, read_run

NOON = FixedClock(datetime(2024, 5, 1, 12, tzinfo=UTC))


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    root = tmp_path_factory.mktemp("export")
    return root, export(run, root / "models", root / "releases", NOON, {"NDCG@5": 0.25})


def _problems(root: Path) -> list[str]:
    folder = next(p for p in (root / "releases").iterdir() if p.is_dir())

    def digest_of(where: Root, name: str) -> str | None:
        path = (folder if where == "release" else root / "models") / name
        return sha256(path.read_bytes()) if path.is_file() else None

    return verify((folder / MANIFEST).read_bytes(), digest_of, release_id=folder.name)


def test_a_release_verifies_and_the_first_one_is_live(exported: tuple[Path, Exported]) -> None:
    root, result = exported
    assert _problems(root) == []
    assert (root / "releases/current").read_text() == "20240501T120000Z-demo\n"
    assert result.manifest.metrics == {"NDCG@5": 0.25}
    assert result.manifest.synthetic
    assert {entry.name for entry in result.manifest.models} == set(MODELS)
    assert all(entry.parity <= parity.TOLERANCE for entry in result.manifest.models)
    for entry in result.manifest.models:
        version = f"{entry.name}/{entry.version}"
        assert set(entry.files) == {f"{version}/model.onnx", f"{version}/model.py"}


def test_the_files_answer_like_the_models_on_real_checkouts(
    exported: tuple[Path, Exported], source: Source, fitted: tuple[Fit, Recommender]
) -> None:
    root, _ = exported
    fit, recommender = fitted
    cases = completion_cases(source.baskets, source.window, recommender.vocabulary)[:40]
    asked = [situation(c, source.baskets, source.timelines, fit.cut_us) for c in cases]
    expected = neural_side(recommender.towers, asked, recommender.vocabulary)
    batch = stack([encode(one, recommender.vocabulary) for one in asked])
    for name, vectors in (
        (QUERY_TOWER, expected.query_vectors),
        (SEQUENCE_ENCODER, expected.sequence_vectors),
    ):
        session = onnxruntime.InferenceSession(root / f"models/{name}/1/model.onnx")
        names = [tensor.name for tensor in tensors(name, 1)[0]]
        (answer,) = session.run(None, {n: batch[n] for n in names})
        assert np.abs(answer - vectors).max() <= 1e-4
    folder = next(p for p in (root / "releases").iterdir() if p.is_dir())
    index = faiss.read_index(str(folder / INDEX))
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    _, found = index.search(expected.query_vectors, 5)
    assert (found + FIRST_ITEM == expected.query_nearest[:, :5]).mean() > 0.99


def test_a_catalogue_that_is_large_enough_goes_through_the_gate(run: Run, tmp_path: Path) -> None:
    """The queries are both towers' for carts of the run, and the release loads as it says."""
    models, releases = tmp_path / "models", tmp_path / "releases"
    result = export(run, models, releases, NOON, {}, flat_below=1)
    assert result.index.tried[0].kind == "flat"
    assert {one.kind for one in result.index.tried} == {"flat", *CANDIDATES}
    assert all(0 <= r.value <= 1 for one in result.index.tried for r in one.recall)
    vectors_ND = graphs.graphs(run.towers, run.ranker)[1]
    queries = tower_queries(run, vectors_ND)
    assert queries.shape == (2 * CARTS, run.recipe.dimension)
    assert np.isfinite(queries).all()
    assert len(np.unique(queries.round(4), axis=0)) > CARTS / 2
    entry = result.manifest.index
    folder = releases / result.manifest.release_id
    index = opened(faiss.read_index(str(folder / INDEX)), entry)
    assert np.array_equal(index.vectors[FIRST_ITEM:], vectors_ND[FIRST_ITEM:].numpy())
    assert (index.approximate is None) == (entry.kind == "flat")


def test_a_second_export_is_a_new_version_and_does_not_go_live_by_itself(
    run: Run, tmp_path: Path
) -> None:
    models, releases = tmp_path / "models", tmp_path / "releases"
    first = export(run, models, releases, NOON, {})
    later = FixedClock(datetime(2024, 5, 2, tzinfo=UTC))
    second = export(run, models, releases, later, {})
    assert [e.version for e in first.manifest.models] == [1, 1, 1]
    assert [e.version for e in second.manifest.models] == [2, 2, 2]
    assert (releases / "current").read_text().strip() == first.manifest.release_id
    promote(releases, second.manifest.release_id, later.at)
    rollout = Rollout.parse((releases / ROLLOUT).read_bytes())
    assert rollout.previous(second.manifest.release_id) == (first.manifest.release_id,)
    assert (releases / "current").read_text().strip() == second.manifest.release_id
    with pytest.raises(UserError, match="exists already"):
        export(run, models, releases, later, {})


def test_parity_refuses_a_model_that_answers_differently(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exported ranker is made from other weights than the one it is compared to."""
    honest = graphs.to_onnx

    def wrong(name: str, graph: torch.nn.Module, example: list[torch.Tensor], size: int) -> bytes:
        if name != RANKER:
            return honest(name, graph, example, size)
        bias = run.ranker.layers[-1].bias
        assert isinstance(bias, torch.Tensor)
        with torch.no_grad():
            bias += 0.01
            content = honest(name, graph, example, size)
            bias -= 0.01
        return content

    monkeypatch.setattr(graphs, "to_onnx", wrong)
    with pytest.raises(GateRefused, match=r"parity: ranker differs from torch by 1\.0.e-02"):
        export(run, tmp_path / "models", tmp_path / "releases", NOON, {})
    assert not (tmp_path / "releases").exists()


def test_random_inputs_are_valid_and_reach_every_length() -> None:
    made = parity.random_inputs(SEQUENCE_ENCODER, 400, 50, np.random.default_rng(0))
    used = (made["sequence_types"] != 0).sum(axis=1)
    assert used.min() == 0
    assert used.max() == made["sequence_types"].shape[1]
    # Left padding: once a row has begun it does not stop.
    began = np.cumsum(made["sequence_types"] != 0, axis=1) > 0
    assert ((made["sequence_types"] != 0) == began).all()
    assert made["sequence_items"].max() < 50


def test_a_run_of_other_features_is_refused(run: Run, tmp_path: Path) -> None:
    for path in run.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    described = json.loads((tmp_path / "run.json").read_text())
    described["feature_hash"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="other features"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["weights.pt", "vocabulary.parquet", "catalogue.parquet"])
def test_a_torn_run_is_refused_naming_the_file(run: Run, tmp_path: Path, name: str) -> None:
    for path in run.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(UserError, match=name):
        read_run(tmp_path)


def test_a_run_reads_back_as_it_was(run: Run, fitted: tuple[Fit, Recommender]) -> None:
    fit, recommender = fitted
    assert run.recipe == fit.recipe
    assert run.vocabulary == recommender.vocabulary
    for name, weight in recommender.towers.state_dict().items():
        assert torch.equal(weight, run.towers.state_dict()[name])
    assert replace(run.window) == fit.source.window


def test_the_manifest_on_disk_is_canonical(exported: tuple[Path, Exported]) -> None:
    root, result = exported
    content = (root / "releases" / result.manifest.release_id / MANIFEST).read_bytes()
    assert ReleaseManifest.model_validate_json(content).as_bytes() == content
