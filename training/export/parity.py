"""Proof that the exported file answers like the trained model: random valid inputs through both."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from contract.encoding import CONTEXT_SIZES, FIRST_ITEM, NUM_EVENT_TYPES, NUM_GAPS
from contract.manifest import ATTRIBUTIONS, OFFER_UPLIFT, RANKER, tensors
from contract.text import NUM_TOKENS

PARITY_INPUTS = 1_000
TOLERANCE = 1e-4
_BATCH = 50


def random_inputs(
    name: str, count: int, num_items: int, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.generic]]:
    """`count` valid inputs of the model `name`: every length from empty to full occurs."""
    inputs, _ = tensors(name, 1)
    shapes = {tensor.name: (count, *tensor.shape) for tensor in inputs}
    if name in (ATTRIBUTIONS, RANKER):
        return {n: rng.normal(0, 3, s).astype(np.float32) for n, s in shapes.items()}
    if name == OFFER_UPLIFT:
        return {
            "offer_features": rng.normal(0, 3, shapes["offer_features"]).astype(np.float32),
            # The unit of the value scales the answer, so one is as good as any.
            "cart_value": rng.uniform(0, 1, shapes["cart_value"]).astype(np.float32),
        }
    made: dict[str, npt.NDArray[np.generic]] = {}
    for tensor, shape in shapes.items():
        if tensor.endswith("_items"):
            made[tensor] = rng.integers(1, num_items, shape)
        elif tensor == "frequent_weights":
            made[tensor] = rng.dirichlet(np.full(shape[1], 0.3), count).astype(np.float32)
        elif tensor == "context":
            sizes = np.array(list(CONTEXT_SIZES.values()))
            made[tensor] = rng.integers(0, sizes, shape)
        elif tensor == "segments":
            made[tensor] = rng.integers(0, 2, shape).astype(np.float32)
        elif tensor == "recency":
            made[tensor] = np.log1p(rng.exponential(20, shape)).astype(np.float32)
        else:
            limit = {"search_tokens": NUM_TOKENS, "sequence_types": NUM_EVENT_TYPES}
            made[tensor] = rng.integers(1, limit.get(tensor, NUM_GAPS), shape)
    _pad(made, rng)
    return made


def _pad(made: dict[str, npt.NDArray[np.generic]], rng: np.random.Generator) -> None:
    """Cut every row to a random length: sequences from the left, the rest from the right."""
    groups = [
        (("sequence_items", "sequence_types", "sequence_gaps"), True),
        (("frequent_items", "frequent_weights"), False),
        (("cart_items",), False),
        (("search_tokens",), False),
    ]
    for names, left in groups:
        if names[0] not in made:
            continue
        count, length = made[names[0]].shape
        kept = rng.integers(0, length + 1, (count, 1))
        place = np.arange(length)[None]
        mask = place < length - kept if left else place >= kept
        for name in names:
            made[name][mask] = 0


def largest_difference(
    name: str, graph: nn.Module, model: bytes, num_items: int, rng: np.random.Generator
) -> float:
    """The largest absolute difference of any output over PARITY_INPUTS random valid inputs.

    A value that is not finite on either side counts as infinite.
    """
    return difference(graph, model, random_inputs(name, PARITY_INPUTS, num_items, rng))


def difference(
    graph: nn.Module, model: bytes, inputs: Mapping[str, npt.NDArray[np.generic]]
) -> float:
    """The largest absolute difference of any output over `inputs`, which stand in the order in
    which `graph` takes them; infinite where a value is not finite."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    worst = 0.0
    for start in range(0, len(next(iter(inputs.values()))), _BATCH):
        part = {n: array[start : start + _BATCH] for n, array in inputs.items()}
        with torch.no_grad():
            expected = graph(*(torch.from_numpy(array) for array in part.values())).numpy()
        (answer,) = session.run(None, part)
        apart = np.abs(np.asarray(answer, np.float64) - expected)
        worst = max(worst, float(np.where(np.isfinite(apart), apart, np.inf).max()))
    return worst


def example(name: str, num_items: int) -> Sequence[Tensor]:
    """A small batch to trace `name` with."""
    made = random_inputs(name, 2, max(num_items, FIRST_ITEM + 1), np.random.default_rng(0))
    return [torch.from_numpy(array) for array in made.values()]
