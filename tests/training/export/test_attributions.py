"""The graph of attributions says what asking the ranker says, or goes out in no release."""

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from contract.attribution import GROUPS, SHARED, Background
from contract.errors import GateRefused
from contract.manifest import ATTRIBUTIONS, ATTRIBUTIONS_FILE, RANKER, tensors
from contract.pair_features import PAIR_FEATURES
from serving.inference.backend import InferenceFailed
from serving.inference.embedded import ModelFile, Session
from serving.inference.explainer import Explainer
from training.export import attributions, graphs, parity
from training.models.ranker import Ranker

FEATURES = len(PAIR_FEATURES)


def ranker(seed: int) -> Ranker:
    torch.manual_seed(seed)
    made = Ranker(FEATURES, 16, 0.2)
    made.standardise_on(torch.randn(100, FEATURES) * 3 + 1)
    return made.eval()


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    rows = np.random.default_rng(1).normal(0, 2, (3, FEATURES)).astype(np.float32)
    path = tmp_path / "usual_candidates.npz"
    path.write_bytes(Background(rows, np.array([0.5, 0.3, 0.2], np.float32)).as_bytes())
    return path


def test_they_add_up_to_the_score_less_that_of_the_background(usual: Path) -> None:
    model = ranker(0)
    content = attributions.attributions_graph(model, usual)[ATTRIBUTIONS_FILE]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with np.load(io.BytesIO(usual.read_bytes())) as arrays:
        background = Background.from_arrays(dict(arrays))
    rows = np.random.default_rng(2).normal(0, 2, (7, FEATURES)).astype(np.float32)
    (told,) = session.run(None, {"pair_features": rows})
    assert told.shape == (7, len(GROUPS))
    with torch.no_grad():
        scores = model(torch.from_numpy(rows)).numpy()
    # The shared features keep their values, so the background has those of the item.
    kept = np.array([name in SHARED for name in PAIR_FEATURES])
    for row, score, own in zip(rows, scores, told, strict=True):
        asked = np.where(kept, row, background.rows).astype(np.float32)
        with torch.no_grad():
            base = model(torch.from_numpy(asked)).numpy() @ background.weight
        assert own.sum() == pytest.approx(score - base, abs=1e-4)


def test_a_graph_that_says_something_else_is_no_release(
    usual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, other = attributions.Attributions, ranker(9)
    monkeypatch.setattr(attributions, "Attributions", lambda _, usual: graph(other, usual))
    with pytest.raises(GateRefused, match="parity: attributions"):
        attributions.attributions_graph(ranker(0), usual)


def test_a_run_without_a_background_has_none(tmp_path: Path) -> None:
    assert attributions.attributions_graph(ranker(0), tmp_path / "absent.npz") == {}


def test_the_gateway_refuses_the_graph_of_another_ranker(usual: Path) -> None:
    with np.load(usual) as arrays:
        background = Background.from_arrays(dict(arrays))
    content = attributions.attributions_graph(ranker(0), usual)[ATTRIBUTIONS_FILE]
    graph = Session(ModelFile(ATTRIBUTIONS, content, *tensors(ATTRIBUTIONS, 0)))

    def session(seed: int) -> Session:
        model = graphs.to_onnx(RANKER, ranker(seed), parity.example(RANKER, 0), 0)
        return Session(ModelFile(RANKER, model, *tensors(RANKER, 0)))

    own = Explainer(session(0), background, graph)
    rows = np.random.default_rng(3).normal(0, 2, (4, FEATURES)).astype(np.float32)
    asked = Explainer(session(0), background).attribute(rows)
    np.testing.assert_allclose(own.attribute(rows), asked, atol=1e-4)
    with pytest.raises(InferenceFailed, match="not what the ranker's scores say"):
        Explainer(session(9), background, graph)


def test_biases_are_part_of_the_products(usual: Path) -> None:
    model = ranker(0)
    asked = graphs.to_onnx(RANKER, graphs.RankerGraph(model).eval(), parity.example(RANKER, 0), 0)
    told = attributions.attributions_graph(model, usual)[ATTRIBUTIONS_FILE]
    for content, layers, sums in ((asked, 3, 0), (told, 2, 1)):
        nodes = [node.op_type for node in onnx.load_from_string(content).graph.node]
        assert nodes.count("Gemm") == layers
        assert nodes.count("Add") == sums  # of an item's own part and the background's
