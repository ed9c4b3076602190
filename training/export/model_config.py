"""`config.pbtxt` for Triton Inference Server, from one template.

A model has one folder for every server: `config.pbtxt` is what an image with the ONNX Runtime
backend reads, and a server started with `--model-config-name=NAME` reads `configs/NAME.pbtxt`
instead. All of them serve the same `model.onnx`.

The space's dimension is left open, so that the files are the same for every recipe and a release
can be rolled back without touching them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contract.manifest import Tensor, tensors

MAX_BATCH = 64
# Small ones as checkouts make them one by one, then doubling: a server's first run of a size is its
# slowest, and TensorRT builds an engine for it.
WARM_UP_BATCHES = (1, 2, 4, 8, 16, 32, 64)
# How long a batch waits for company. Measured: docs/lab.md, `python -m benchmarks.triton`.
QUEUE_DELAY_US = 0
# What the Python backend runs; export copies it into every version's folder.
PYTHON_BACKEND = Path(__file__).with_name("python_backend") / "model.py"
_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}


@dataclass(frozen=True)
class Variant:
    """One way to serve the models. `provider` is ONNX Runtime's name, for our own `model.py`."""

    backend: Literal["onnxruntime", "python"]
    kind: Literal["KIND_CPU", "KIND_GPU"]
    parameters: Mapping[str, str] = field(default_factory=dict)
    tensorrt: bool = False


_ONE_THREAD = {"intra_op_thread_count": "1", "inter_op_thread_count": "1"}
DEFAULT = "onnxruntime"
VARIANTS = {
    # One thread per instance: a server scales by instances, and threads of three models on the same
    # cores would only wait for one another.
    DEFAULT: Variant("onnxruntime", "KIND_CPU", _ONE_THREAD),
    "python": Variant("python", "KIND_CPU", {"execution_provider": "CPUExecutionProvider"}),
    "gpu": Variant("onnxruntime", "KIND_GPU", {"cudnn_conv_algo_search": "1"}),
    "tensorrt": Variant("onnxruntime", "KIND_GPU", tensorrt=True),
    "python-gpu": Variant("python", "KIND_GPU", {"execution_provider": "CUDAExecutionProvider"}),
}


def path_of(variant: str) -> str:
    """Where a variant's configuration lies inside the model's folder."""
    return "config.pbtxt" if variant == DEFAULT else f"configs/{variant}.pbtxt"


def render(
    name: str,
    variant: str = DEFAULT,
    *,
    queue_delay_us: int = QUEUE_DELAY_US,
    dynamic_batching: bool = True,
) -> str:
    """The configuration of the model `name`; the last two arguments are for measuring."""
    chosen = VARIANTS[variant]
    inputs, outputs = tensors(name, 1)
    opened = tuple(
        tensor.model_copy(update={"shape": (-1,)}) if tensor.shape == (1,) else tensor
        for tensor in outputs
    )
    delay = f"max_queue_delay_microseconds: {queue_delay_us} " if queue_delay_us else ""
    lines = [
        f'name: "{name}"',
        f'backend: "{chosen.backend}"',
        f'default_model_filename: "{"model.py" if chosen.backend == "python" else "model.onnx"}"',
        f"max_batch_size: {MAX_BATCH}",
        *(_tensor("input", tensor) for tensor in inputs),
        *(_tensor("output", tensor) for tensor in opened),
        # No queue policy: with one, batches were seen to stall for half a second.
        *([f"dynamic_batching {{ {delay}}}"] if dynamic_batching else []),
        # The live release and the one being warmed up beside it; gateways ask for others by number.
        "version_policy { latest { num_versions: 2 } }",
        f"instance_group [ {{ count: 1 kind: {chosen.kind} }} ]",
        *(_parameter(key, value) for key, value in chosen.parameters.items()),
        *(_TENSORRT if chosen.tensorrt else ()),
        *(_warm_up(size, inputs) for size in WARM_UP_BATCHES),
        "",
    ]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Every variant of a model's configuration into its `folder`, whose name is the model's."""
    for variant in VARIANTS:
        path = folder / path_of(variant)
        path.parent.mkdir(parents=True, exist_ok=True)
        config = render(folder.name, variant).encode()
        if not path.exists() or path.read_bytes() != config:
            draft = path.with_name(f".{path.name}")
            draft.write_bytes(config)
            os.replace(draft, path)


# Full precision, because what a GPU answers is held to the same parity as everything else.
_TENSORRT = (
    "optimization { execution_accelerators { gpu_execution_accelerator : [ {",
    '  name : "tensorrt"',
    '  parameters { key: "precision_mode" value: "FP32" }',
    '  parameters { key: "max_workspace_size_bytes" value: "1073741824" }',
    "} ] } }",
)


def _tensor(kind: str, tensor: Tensor) -> str:
    return (
        f'{kind} [ {{ name: "{tensor.name}" data_type: {_TYPES[tensor.dtype]} '
        f"dims: [ {_dims(tensor)} ] }} ]"
    )


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'


def _warm_up(size: int, inputs: tuple[Tensor, ...]) -> str:
    """Empty requests: zero is padding in every input."""
    held = [
        f'  inputs {{ key: "{tensor.name}" value: {{ data_type: {_TYPES[tensor.dtype]} '
        f"dims: [ {_dims(tensor)} ] zero_data: true }} }}"
        for tensor in inputs
    ]
    head = f'model_warmup [ {{ name: "batch of {size}" batch_size: {size}'
    return "\n".join([head, *held, "} ]"])


def _dims(tensor: Tensor) -> str:
    return ", ".join(str(size) for size in tensor.shape)
