"""A model of Triton's Python backend that is served as ours are, by the `served.py` beside it, and
whose every answer is zeros that took no time."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class _Nothing(onnxruntime.InferenceSession):  # type: ignore[misc] # it is untyped
    def run(self, outputs: Any, inputs: Any, options: Any = None) -> list[Any]:
        size = len(next(iter(inputs.values())))
        shapes = {one.name: one.shape[1:] for one in self.get_outputs()}
        return [np.zeros((size, *shapes[name]), np.float32) for name in outputs]


onnxruntime.InferenceSession = _Nothing
TritonPythonModel = runpy.run_path(str(Path(__file__).with_name("served.py")))["TritonPythonModel"]
