"""What export writes for a Triton server: configurations that mean the same for every platform, and
models that answer there as they do in the gateway."""

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.clock import FixedClock
from contract.manifest import (
    MODELS,
    OFFER_UPLIFT,
    QUERY_TOWER,
    RANKER,
    SEQUENCE_ENCODER,
    tensors,
)
from serving.inference.embedded import MAX_BATCH as EMBEDDED_BATCH
from serving.inference.embedded import EmbeddedBackend, ModelFile, Session
from serving.inference.triton_client import TritonClient
from serving.inference.triton_loading import KEPT
from serving.inference.triton_process import TritonProcess, running
from training.data.source import Source
from training.export import graphs, model_config
from training.export.parity import TOLERANCE, random_inputs
from training.export.release import Exported, Quantised, export
from training.run_folder import Run

INPUTS = 1_000 if os.environ.get("TILLWISE_PROVE") else 150
NOON = FixedClock(datetime(2024, 5, 1, 12, tzinfo=UTC))


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    root = tmp_path_factory.mktemp("triton")
    return root / "models", export(run, root / "models", root / "releases", NOON, {})


@pytest.fixture(scope="module")
def quantised(run: Run, source: Source, exported: tuple[Path, Exported]) -> Exported:
    """A release in int8 beside the first, in the same model repository."""
    models, _ = exported
    later = FixedClock(datetime(2024, 5, 2, 12, tzinfo=UTC))
    wish = Quantised(source, (QUERY_TOWER, SEQUENCE_ENCODER))
    return export(run, models, models.parent / "releases", later, {}, quantised=wish)


@pytest.fixture(scope="module")
def triton(exported: tuple[Path, Exported], quantised: Exported) -> Iterator[TritonProcess]:
    with running(exported[0]) as process:
        yield process


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("variant", model_config.VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_every_variant_says_what_the_contract_says(
    exported: tuple[Path, Exported], name: str, variant: str
) -> None:
    written = exported[0] / name / model_config.path_of(variant)
    config = parsed(written.read_text())
    inputs, outputs = tensors(name, 64)
    assert config.name == name
    assert [i.name for i in config.input] == [tensor.name for tensor in inputs]
    assert [tuple(i.dims) for i in config.input] == [tensor.shape for tensor in inputs]
    types = {"int64": model_config_pb2.TYPE_INT64, "float32": model_config_pb2.TYPE_FP32}
    assert [i.data_type for i in config.input] == [types[tensor.dtype] for tensor in inputs]
    assert [o.name for o in config.output] == [tensor.name for tensor in outputs]
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")
    assert config.max_batch_size >= EMBEDDED_BATCH
    assert config.version_policy.latest.num_versions == KEPT
    warmed = {one.batch_size: one for one in config.model_warmup}
    assert sorted(warmed)[0] == 1
    assert sorted(warmed)[-1] == config.max_batch_size
    for one in warmed.values():
        assert {key: tuple(held.dims) for key, held in one.inputs.items()} == {
            tensor.name: tensor.shape for tensor in inputs
        }


@pytest.mark.parametrize("name", [*MODELS, OFFER_UPLIFT])
def test_what_lies_in_the_repository_is_what_an_export_writes(name: str) -> None:
    committed = Path(__file__).parents[3] / "model_repository" / name
    for variant in model_config.VARIANTS:
        written = (committed / model_config.path_of(variant)).read_text()
        assert written == model_config.render(name, variant)


def test_variants_differ_in_backend_and_device_alone() -> None:
    expected = {
        "onnxruntime": ("onnxruntime", "KIND_CPU", "model.onnx"),
        "python": ("python", "KIND_CPU", "model.py"),
        "gpu": ("onnxruntime", "KIND_GPU", "model.onnx"),
        "tensorrt": ("onnxruntime", "KIND_GPU", "model.onnx"),
        "python-gpu": ("python", "KIND_GPU", "model.py"),
    }
    stripped = set()
    for variant in model_config.VARIANTS:
        config = parsed(model_config.render(RANKER, variant))
        (group,) = config.instance_group
        kind = model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind)
        assert expected[variant] == (config.backend, kind, config.default_model_filename)
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert [one.name for one in accelerators] == (["tensorrt"] if variant == "tensorrt" else [])
        for field in ("backend", "instance_group", "default_model_filename", "parameters"):
            config.ClearField(field)
        config.ClearField("optimization")
        stripped.add(config.SerializeToString(deterministic=True))
    assert len(stripped) == 1
    python = parsed(model_config.render(RANKER, "python-gpu"))
    assert python.parameters["execution_provider"].string_value == "CUDAExecutionProvider"


def test_what_is_written_twice_is_left_alone(tmp_path: Path) -> None:
    model_config.write(tmp_path / RANKER)
    path = tmp_path / RANKER / "configs" / "python.pbtxt"
    before = path.stat().st_mtime_ns
    (tmp_path / RANKER / "config.pbtxt").write_text("tuned")
    model_config.write(tmp_path / RANKER)
    assert path.stat().st_mtime_ns == before  # a server that polls must not load it again
    assert (tmp_path / RANKER / "config.pbtxt").read_text() == model_config.render(RANKER)
    assert not list((tmp_path / RANKER).rglob(".*"))


def test_models_are_of_a_form_that_the_image_of_the_manifests_reads(
    exported: tuple[Path, Exported], quantised: Exported
) -> None:
    """ONNX Runtime 1.19 knows opsets up to 21 and IR up to 10; in int8 as in floats."""
    files = list(exported[0].glob("*/*/model.onnx"))
    assert len(files) == 2 * len(MODELS)
    for path in files:
        model = onnx.load(path)
        assert {one.domain for one in model.opset_import} == {""}
        assert (model.opset_import[0].version, model.ir_version <= graphs.NEWEST_IR) == (20, True)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", MODELS)
async def test_parity_with_the_gateways_own_models(
    exported: tuple[Path, Exported],
    quantised: Exported,
    triton: TritonProcess,
    name: str,
    precision: str,
) -> None:
    """Singly, in batches that form by themselves, and in batches sent as such. In int8 the
    reference is the same: the very file, in the gateway."""
    models, result = exported
    if precision == "int8":
        result = quantised
        assert result.manifest.in_int8 == (QUERY_TOWER, SEQUENCE_ENCODER)
    entry = result.manifest.model(name)
    content = (models / name / str(entry.version) / "model.onnx").read_bytes()
    session = Session(ModelFile(name, content, entry.inputs, entry.outputs))
    embedded, client = EmbeddedBackend({name: session}), TritonClient(triton.address)
    num_items = result.manifest.index.count
    made: Any = random_inputs(name, INPUTS, num_items, np.random.default_rng(5))
    asked = [{key: array[n] for key, array in made.items()} for n in range(INPUTS)]
    output = entry.outputs[0].name

    async def there(one: dict[str, Any]) -> Any:
        batch = {key: array[None] for key, array in one.items()}
        return (await client.infer(entry, batch, 30.0))[output][0]

    here: Any = [(await embedded.run(name, one))[output] for one in asked]
    singly = [await there(one) for one in asked]
    together = [
        answer
        for start in range(0, INPUTS, 50)
        for answer in await asyncio.gather(*(there(one) for one in asked[start : start + 50]))
    ]
    for found in (singly, together):
        assert np.abs(np.stack(found) - np.stack(here)).max() <= TOLERANCE
    for start in range(0, INPUTS, model_config.MAX_BATCH):
        rows = slice(start, start + model_config.MAX_BATCH)
        part = {key: array[rows] for key, array in made.items()}
        answer = (await client.infer(entry, part, 30.0))[output]
        assert np.abs(answer - np.stack(here[rows])).max() <= TOLERANCE
    assert np.ptp(np.stack(here), axis=0).max() > 0  # the inputs did matter
    embedded.close()
    await client.close()
