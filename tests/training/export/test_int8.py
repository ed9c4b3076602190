"""Models in int8: what is made, what lets it out, what keeps it in."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from contract.clock import FixedClock
from contract.encoding import FIRST_ITEM, Situation, encode
from contract.errors import GateRefused, UserError
from contract.features import UNKNOWN
from contract.manifest import MODELS, QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from serving.inference.backend import finite
from serving.inference.releases import load_release
from tests.training.shop import build_shop, item_id
from training.__main__ import main
from training.data.source import Source, read_source
from training.export import graphs, int8, int8_gate, parity
from training.export.exported_decisions import Answers, Questions
from training.export.int8 import Inputs, Speed
from training.export.int8_gate import Change, Tried, choose
from training.export.release import Exported, Quantised, export
from training.recommender import Recommender
from training.run_folder import Run

NOON = FixedClock(datetime(2024, 5, 1, 12, tzinfo=UTC))
TOWERS = (QUERY_TOWER, SEQUENCE_ENCODER)


@pytest.fixture(scope="module")
def modules(run: Run) -> tuple[dict[str, torch.nn.Module], torch.Tensor]:
    return graphs.graphs(run.towers, run.ranker)


@pytest.fixture(scope="module")
def files(run: Run, modules: tuple[dict[str, torch.nn.Module], torch.Tensor]) -> dict[str, bytes]:
    size = len(run.vocabulary)
    return {
        name: graphs.to_onnx(name, one, parity.example(name, size), run.recipe.dimension)
        for name, one in modules[0].items()
    }


@pytest.fixture(scope="module", autouse=True)
def exported_once(files: dict[str, bytes]) -> Iterator[None]:
    """The models of the one run are traced once, which takes most of an export's time."""
    traced = graphs.to_onnx
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "to_onnx", lambda name, *told: files.get(name) or traced(name, *told))
        yield


@pytest.fixture(scope="module")
def questions(
    run: Run, source: Source, modules: tuple[dict[str, torch.nn.Module], torch.Tensor]
) -> Questions:
    return Questions.of(run, source, modules[1])


@pytest.fixture(scope="module")
def calibration(questions: Questions, files: dict[str, bytes]) -> dict[str, Inputs]:
    return questions.calibration(files)


@pytest.fixture(scope="module")
def quantised(
    run: Run, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Exported]:
    root = tmp_path_factory.mktemp("int8")
    wish = Quantised(source, TOWERS)
    return root, export(run, root / "models", root / "releases", NOON, {}, quantised=wish)


def test_the_float_files_decide_as_the_models_do(
    questions: Questions, files: dict[str, bytes], run: Run
) -> None:
    """What int8 is compared with is the evaluation's own answer."""
    found = questions.answers(files)
    same = Recommender(run.vocabulary, questions.tables, run.towers, run.ranker)
    expected = same.rank(questions.situations, 5, label="torch")["ranker"]
    assert (found.ranked == expected).mean() > 0.999
    assert found.ndcg["known"] > found.ndcg["unknown"] > 0
    half = len(questions.situations) // 2
    assert all(one.view.known for one in questions.situations[: half // 2])
    assert all(one.view is UNKNOWN for one in questions.situations[half:])


def test_no_question_is_of_the_test_days(questions: Questions, run: Run) -> None:
    last = max(one.now_us for one in questions.situations)
    first = min(one.now_us for one in questions.situations)
    began, ended = (
        int(day.timestamp() * 1e6) for day in (run.window.validate_from, run.window.train_until)
    )
    assert began <= first <= last < ended
    assert max(one.now_us for one in questions.earlier) < began


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", int8.FORMS)
def test_what_is_held_in_bytes(
    files: dict[str, bytes], calibration: dict[str, Inputs], name: str, form: int8.Form
) -> None:
    made = int8.quantised(files[name], form, calibration[name])
    if (name, form) == (RANKER, "tables"):
        assert made is None  # it has none
        return
    assert made is not None
    kinds = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}

    def held(content: bytes) -> dict[str, int]:
        """Numbers of each kind in the matrices of a model."""
        counts = {"bytes": 0, "floats": 0}
        for one in onnx.load_from_string(content).graph.initializer:
            if len(one.dims) == 2:
                size = int(np.prod(one.dims))
                if one.data_type in kinds:
                    counts["bytes"] += size
                elif one.data_type == onnx.TensorProto.FLOAT:
                    counts["floats"] += size
        return counts

    before, after = held(files[name]), held(made)
    assert before["bytes"] == 0
    if form == "whole":
        assert after["bytes"] > 3 * after["floats"]
    assert after["bytes"] + after["floats"] == pytest.approx(before["floats"], rel=0.05)
    assert after["bytes"] > 0


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_does_not_depend_on_its_batch(
    files: dict[str, bytes], calibration: dict[str, Inputs], name: str
) -> None:
    made = int8.quantised(files[name], "whole", calibration[name])
    assert made is not None
    assert int8.batch_difference(made, calibration[name]) <= parity.TOLERANCE


def test_ranges_taken_from_each_batch_are_refused(
    files: dict[str, bytes], calibration: dict[str, Inputs], tmp_path: Path
) -> None:
    """The usual dynamic form, which would answer differently with different neighbours."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    (tmp_path / "float.onnx").write_bytes(files[RANKER])
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "d.onnx", weight_type=QuantType.QInt8)
    made = (tmp_path / "d.onnx").read_bytes()
    apart = int8.batch_difference(made, calibration[RANKER])
    assert apart > parity.TOLERANCE
    still = Speed({1: 1.0, 8: 1.0})
    refused = Tried(RANKER, "whole", made, len(files[RANKER]), 0.0, apart, still, still).refused
    assert refused is not None
    assert "between a batch and alone" in refused


def test_a_release_says_what_is_in_int8(quantised: tuple[Path, Exported]) -> None:
    root, result = quantised
    assert result.int8 is not None
    assert set(result.int8.chosen) == set(TOWERS)
    assert result.manifest.in_int8 == TOWERS
    assert result.int8.change.passed
    folder = root / "releases" / result.manifest.release_id
    held = json.loads((folder / "manifest.json").read_bytes())
    assert {m["name"]: m.get("precision") for m in held["models"]} == {
        **dict.fromkeys(TOWERS, "int8"),
        RANKER: None,
    }
    assert set(held["metrics"]) == {"int8 NDCG@5 loss, known", "int8 NDCG@5 loss, unknown"}
    for name in TOWERS:
        entry = result.manifest.model(name)
        content = (root / f"models/{name}/{entry.version}/model.onnx").read_bytes()
        assert content == result.int8.chosen[name].content
        assert entry.parity == result.int8.chosen[name].drift > parity.TOLERANCE


def test_a_gateway_loads_it_and_answers(quantised: tuple[Path, Exported]) -> None:
    """Through the very code that loads any release."""
    root, result = quantised
    release = load_release(root / "releases", root / "models", result.manifest.release_id)
    try:
        cart = (item_id(0), item_id(1))
        encoded = encode(Situation(UNKNOWN, cart, 0), release.vocabulary)
        (found,) = release.models.infer(QUERY_TOWER, [encoded])  # type: ignore[attr-defined]
        nearest = release.index.search(finite(found, "query_vector")[None], 10)
        assert nearest.shape == (1, 10)
        assert (nearest >= FIRST_ITEM).all()
    finally:
        release.models.close()


class Spoilt:
    """The same questions, but ranges measured on inputs a thousand times too small."""

    def __init__(self, honest: Questions, name: str) -> None:
        self._honest, self._name = honest, name

    def answers(self, files: Mapping[str, bytes]) -> Answers:
        return self._honest.answers(files)

    def calibration(self, files: Mapping[str, bytes]) -> dict[str, Inputs]:
        found = self._honest.calibration(files)
        small: dict[str, npt.NDArray[np.generic]] = {
            key: np.multiply(array, 1e-3).astype(array.dtype)  # numbers of items become 0
            for key, array in found[self._name].items()
        }
        return found | {self._name: small}


def test_the_gate_refuses_a_spoilt_quantisation(
    questions: Questions,
    files: dict[str, bytes],
    modules: tuple[dict[str, torch.nn.Module], torch.Tensor],
    run: Run,
) -> None:
    spoilt = Spoilt(questions, RANKER)
    with pytest.raises(GateRefused, match=r"int8: ranker: whole loses \d\d\.\d\d% of NDCG@5"):
        choose(files, modules[0], spoilt, len(run.vocabulary), (RANKER,))


def test_nothing_is_published_when_the_gate_refuses(
    run: Run, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Questions.of

    def spoilt(run: Run, source: Source, vectors: torch.Tensor) -> Spoilt:
        return Spoilt(honest(run, source, vectors), RANKER)

    monkeypatch.setattr(Questions, "of", spoilt)
    wish = Quantised(source, (RANKER,))
    with pytest.raises(GateRefused, match="int8: ranker"):
        export(run, tmp_path / "models", tmp_path / "releases", NOON, {}, quantised=wish)
    assert not list(tmp_path.rglob("*"))


class Told:
    """Decisions that lose what they are told to, by the models whose files are not the float's."""

    def __init__(self, honest: Questions, files: Mapping[str, bytes], loss: dict[str, float]):
        self._honest, self._files, self._loss = honest, files, loss
        self._answer = honest.answers(files)

    def answers(self, files: Mapping[str, bytes]) -> Answers:
        lost = sum(self._loss.get(n, 0.0) for n, c in files.items() if c != self._files[n])
        ndcg = {who: value * (1 - lost) for who, value in self._answer.ndcg.items()}
        return Answers(self._answer.ranked, self._answer.nearest, ndcg)

    def calibration(self, files: Mapping[str, bytes]) -> dict[str, Inputs]:
        return self._honest.calibration(files)


def test_each_passes_alone_and_all_together_do_not(
    questions: Questions,
    files: dict[str, bytes],
    modules: tuple[dict[str, torch.nn.Module], torch.Tensor],
    run: Run,
) -> None:
    size = len(run.vocabulary)
    told = Told(questions, files, dict.fromkeys(MODELS, 0.004))
    with pytest.raises(GateRefused, match=r"together lose 1\.20% of NDCG@5"):
        choose(files, modules[0], told, size, MODELS)
    passed = choose(files, modules[0], told, size, TOWERS)
    assert passed.change.loss == pytest.approx({"known": 0.008, "unknown": 0.008})
    assert {one.form for one in passed.chosen.values()} == {"whole"}


def _tried(
    saved: int,
    ms: float,
    change: Change | None = None,
    *,
    apart: float = 0.0,
    batch_ms: float = 0.5,
) -> Tried:
    """A form whose float takes .1 ms alone and .5 ms in a batch."""
    was, now = Speed({1: 0.1, 8: 0.5}), Speed({1: ms, 8: batch_ms})
    return Tried(QUERY_TOWER, "whole", b"12345", 5 + saved, 0.1, apart, was, now, change)


@pytest.mark.parametrize(
    ("saved", "ms", "batch_ms", "pays", "verdict"),
    [
        (int8_gate.SAVED_BYTES, 0.1, 0.5, True, None),
        (int8_gate.SAVED_BYTES, 0.114, 0.574, True, None),
        (int8_gate.SAVED_BYTES, 0.116, 0.4, False, "slower than float"),
        (int8_gate.SAVED_BYTES, 0.09, 0.576, False, "slower than float"),
        (int8_gate.SAVED_BYTES - 1, 0.1, 0.46, False, "saves too little"),
        (100, 0.1, 0.44, True, None),
        (100, 0.08, 0.5, True, None),
        (-100, 0.1, 0.5, False, "saves too little"),
    ],
)
def test_when_it_pays(
    saved: int, ms: float, batch_ms: float, pays: bool, verdict: str | None
) -> None:
    one = _tried(saved, ms, batch_ms=batch_ms)
    assert one.pays == pays
    assert verdict is None or int8_gate.verdict(one, {}) == verdict


def test_what_is_refused_in_any_case() -> None:
    assert _tried(50, 0.1, apart=float("nan")).refused
    lossy = Change({"known": 0.0, "unknown": 0.0101}, 0.5, {})
    assert _tried(50, 0.1, lossy).refused == "loses 1.01% of NDCG@5"
    assert not Change({"known": float("nan"), "unknown": 0.0}, 0.5, {}).passed
    assert Change({"known": 0.01, "unknown": -0.3}, 0.5, {}).passed
    taken = _tried(50, 0.1, Change({"known": 0.0}, 1.0, {"query_tower": 1.0}))
    assert int8_gate.verdict(taken, {QUERY_TOWER: taken}) == "taken"


def test_nothing_that_pays_is_said_and_refused(
    questions: Questions,
    files: dict[str, bytes],
    modules: tuple[dict[str, torch.nn.Module], torch.Tensor],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a processor is slow with bytes."""
    monkeypatch.setattr(int8_gate, "SLOWEST", 0.0)
    monkeypatch.setattr(int8_gate, "NOTICEABLE_MS", -1.0)
    with pytest.raises(GateRefused, match=r"no model gains .*ranker whole: slower than float"):
        choose(files, modules[0], questions, len(run.vocabulary))


def test_the_change_of_the_answers_is_counted() -> None:
    before = Answers(
        np.array([[2, 3], [4, 5]]), {"query_tower": np.array([[2], [3]])}, {"known": 0.5}
    )
    after = Answers(
        np.array([[3, 2], [4, 6]]), {"query_tower": np.array([[2], [9]])}, {"known": 0.4}
    )
    found = int8_gate.change(before, after)
    assert found.loss["known"] == pytest.approx(0.2)
    assert (found.top5, found.top100["query_tower"]) == (3 / 4, 1 / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8"], "--int8 needs --data"),
        (["--int8", "towers"], "no model 'towers'; there are query_tower, sequence_encoder"),
        (["--int8", "--data", "nowhere"], "no such folder"),
    ],
)
def test_wrong_wishes_are_said(
    run: Run, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run.folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_other_data_is_refused(run: Run, tmp_path: Path) -> None:
    other = read_source(build_shop(tmp_path / "other", seed=9))
    with pytest.raises(UserError, match="other items than"):
        Questions.of(run, other, torch.zeros(2, 2))


def test_the_command_reports_what_it_measured(
    run: Run, shop_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--models", str(tmp_path / "models"), "--releases", str(tmp_path / "releases")]
    asked = ["--int8", QUERY_TOWER, "--data", str(shop_folder), "--json"]
    assert main(["export", str(run.folder), *where, *asked]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["name"]: set(row["metrics"]) for row in told["rows"]}
    assert rows["int8/query_tower/whole"] >= {
        *("float_MiB", "MiB", "float_batch1_ms", "batch1_ms", "float_batch8_ms", "batch8_ms"),
        *("drift", "overlap@5", "overlap@100_query_tower", "NDCG@5_loss_known"),
    }
    assert rows["int8"] >= {"NDCG@5_loss_known", "NDCG@5_loss_unknown", "overlap@5"}
    assert "query_tower: in int8" in told["notes"]
    assert "ranker: in int8" not in told["notes"]
