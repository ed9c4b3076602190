"""`config.pbtxt` for Triton Inference Server, from one template.

The space's dimension is left open, so that the file is the same for every recipe and a release can
be rolled back without touching it.
"""

from contract.manifest import Tensor, tensors

MAX_BATCH = 64
_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}


def render(name: str) -> str:
    """The configuration of the model `name`."""
    inputs, outputs = tensors(name, 1)
    opened = tuple(
        tensor.model_copy(update={"shape": (-1,)}) if tensor.shape == (1,) else tensor
        for tensor in outputs
    )
    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "onnxruntime"',
            'default_model_filename: "model.onnx"',
            f"max_batch_size: {MAX_BATCH}",
            *(_tensor("input", tensor) for tensor in inputs),
            *(_tensor("output", tensor) for tensor in opened),
            # No queue policy: with one, batches were seen to stall for half a second.
            "dynamic_batching { }",
            # The live release and the one being warmed up beside it.
            "version_policy { latest { num_versions: 2 } }",
            "instance_group [ { count: 1 } ]",
            "",
        ]
    )


def _tensor(kind: str, tensor: Tensor) -> str:
    dims = ", ".join(str(size) for size in tensor.shape)
    return (
        f'{kind} [ {{ name: "{tensor.name}" data_type: {_TYPES[tensor.dtype]} dims: [ {dims} ] }} ]'
    )
