"""What Triton's Python backend runs for a model: the `model.onnx` beside this file.

Export copies it into every version's folder. It runs in a process of Triton's own and imports
nothing of Tillwise. Triton hands over the requests of a dynamic batch one by one: they are joined
here, or nothing would be gained by the batch.

Tensors come and go through DLPack: with NumPy 2 this backend's own `as_numpy()` and `Tensor(...)`
give wrong bytes without a word.
"""

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
_TAKEN = b"used_dltensor"  # a module's constant, because a capsule keeps only the address
# Beside any other provider, for what it cannot compute.
_CPU = "CPUExecutionProvider"
# On a CPU the fused bias and GELU takes longer than both apart, with the same numbers to the bit.
_NOT_FUSED = ["BiasGeluFusion"]


class TritonPythonModel:
    """One instance of a model; Triton calls the methods below by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version named in `args`."""
        config = json.loads(args["model_config"])
        told = config.get("parameters", {}).get("execution_provider", {}).get("string_value", _CPU)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        providers: list[Any] = list(dict.fromkeys((told, _CPU)))
        if told == "CUDAExecutionProvider":
            providers[0] = (told, {"device_id": int(args["model_instance_device_id"])})
        self._session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=providers,
            disabled_optimizers=_NOT_FUSED if told == _CPU else None,
        )
        if told not in self._session.get_providers():
            raise pb_utils.TritonModelException(f"ONNX Runtime has no {told} here")
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response per request, in order; one bad request does not fail its neighbours."""
        try:
            return self._run([self._feed(request) for request in requests])
        except Exception as error:
            if len(requests) == 1:
                failure = pb_utils.TritonError(str(error)[:500])
                return [pb_utils.InferenceResponse([], failure)]
            return [response for request in requests for response in self.execute([request])]

    def _feed(self, request: Any) -> dict[str, Any]:
        return {
            name: np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))
            for name in self._inputs
        }

    def _run(self, feeds: list[dict[str, Any]]) -> list[Any]:
        first = self._inputs[0]
        ends = np.cumsum([len(feed[first]) for feed in feeds])
        joined = feeds[0]
        if len(feeds) > 1:
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        found = self._session.run(self._outputs, joined)
        parts = [np.split(array, ends[:-1]) for array in found]
        return [
            pb_utils.InferenceResponse(
                [
                    _tensor(name, part[place])
                    for name, part in zip(self._outputs, parts, strict=True)
                ]
            )
            for place in range(len(feeds))
        ]


def _tensor(name: str, array: Any) -> Any:
    """The backend marks a capsule that it took with a name that NumPy does not know, and NumPy
    complains of it on the console for every answer."""
    capsule = np.ascontiguousarray(array).__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _rename(capsule, _TAKEN)
    return tensor
