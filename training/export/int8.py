"""Models in int8: smaller files and, where a processor multiplies bytes quicker, less time.

Two forms, both with standard operators that ONNX Runtime runs on every platform: `whole` holds
tables and weights in bytes and multiplies in bytes, between ranges measured beforehand on real
checkouts; `tables` holds the embedding tables in bytes and computes in floats.

Ranges are measured beforehand because the alternative, a range taken from each batch, makes an
answer depend on whose requests happen to be in the same batch. Weights use seven of their eight
bits, because sums of products of full ones overflow on processors without VNNI.
"""

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

Form = Literal["whole", "tables"]
FORMS: Final[tuple[Form, ...]] = ("whole", "tables")
Inputs = Mapping[str, npt.NDArray[np.generic]]
BATCHES: Final = (1, 8)  # a lone checkout, and the largest batch that the gateway makes

_TABLES, _PRODUCTS = "Gather", ("MatMul", "Gemm")
_BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
_TURNS = 120
_WARM_UP = 10


def session(content: bytes) -> onnxruntime.InferenceSession:
    """`content` as the gateway runs it: on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def quantised(content: bytes, form: Form, calibration: Inputs) -> bytes | None:
    """The model `content` in int8, None where `form` finds nothing in it to quantise.

    `calibration`: inputs with a batch dimension, as real as they can be had.
    """
    operators = {"whole": (_TABLES, *_PRODUCTS), "tables": (_TABLES,)}[form]
    with tempfile.TemporaryDirectory() as folder, _quietly():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(content)
        if form == "tables":
            quantize_dynamic(source, target, op_types_to_quantize=list(operators))
        else:
            quantize_static(
                source,
                target,
                _Once(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Attention multiplies activations with one another; that stays in floats.
                extra_options={"MatMulConstBOnly": True},
            )
        made = target.read_bytes()
    return made if _holds_bytes(made) else None


def _holds_bytes(content: bytes) -> bool:
    held = onnx.load_from_string(content).graph.initializer
    return any(one.data_type in _BYTES and len(one.dims) == 2 for one in held)


class _Once(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Gives the calibration inputs as one batch."""

    def __init__(self, inputs: Inputs) -> None:
        self._left = [dict(inputs)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


@contextmanager
def _quietly() -> Iterator[None]:
    """It advises to optimise the graph first, which the exporter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class Speed:
    """Milliseconds of one call on one thread, by batch size of `BATCHES`."""

    ms: Mapping[int, float]


def speeds(one: bytes, other: bytes, inputs: Inputs) -> tuple[Speed, Speed]:
    """How long two models take for the first of `inputs`, called in turn, in CPU time of this
    thread. The lower quartile: what a neighbour on the machine adds is no property of a model."""
    both = session(one), session(other)
    found: list[dict[int, float]] = [{}, {}]
    for size in BATCHES:
        part = {name: array[:size] for name, array in inputs.items()}
        took: list[list[float]] = [[], []]
        for turn in range(_WARM_UP + _TURNS):
            for place, held in enumerate(both):
                began = time.thread_time()
                held.run(None, part)
                if turn >= _WARM_UP:
                    took[place].append(time.thread_time() - began)
        for place, each in enumerate(took):
            found[place][size] = float(np.quantile(each, 0.25)) * 1e3
    return Speed(found[0]), Speed(found[1])


def batch_difference(content: bytes, inputs: Inputs, batch: int = BATCHES[-1]) -> float:
    """The largest difference between answers given singly and in batches; infinite where one is
    not finite. Above the tolerance of parity, an answer would depend on who else is asking."""
    held = session(content)
    count = len(next(iter(inputs.values())))
    worst = 0.0
    for start in range(0, count, batch):
        rows = range(start, min(start + batch, count))
        (together,) = held.run(None, {n: a[start : start + batch] for n, a in inputs.items()})
        alone = [
            held.run(None, {n: a[row : row + 1] for n, a in inputs.items()})[0] for row in rows
        ]
        difference = np.abs(np.asarray(together, np.float64) - np.concatenate(alone))
        worst = max(worst, float(np.where(np.isfinite(difference), difference, np.inf).max()))
    return worst
