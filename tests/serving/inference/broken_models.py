"""Real ONNX models that go wrong in the ways real ones do."""

from typing import Any

import numpy as np
from onnx import helper

from contract import manifest, pair_features
from contract.manifest import tensors
from serving.inference.embedded import ModelFile, Session
from tests.serving.release_factory import onnx_model, usual_model


def failing(name: str, dimension: int) -> bytes:
    """Loads, and fails on every run: it looks up a row that its table does not have."""
    inputs, outputs = tensors(name, dimension)
    first, output = inputs[0], outputs[0]
    nodes = [
        helper.make_node("Cast", [first.name], ["whole"], to=7),
        helper.make_node("Add", ["whole", "far"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], [output.name], keepdims=0),
    ]
    if name == manifest.RANKER:
        constants = {"table": np.zeros(4, np.float32), "axes": np.array([2])}
    else:
        constants = {"table": np.zeros((4, dimension), np.float32), "axes": np.array([1])}
    return onnx_model(name, nodes, constants | {"far": np.array([1_000_000])}, dimension)


def not_a_number(dimension: int) -> bytes:
    """A ranker whose scores are NaN: zero divided by zero."""
    width = len(pair_features.PAIR_FEATURES)
    nodes = [
        helper.make_node("MatMul", ["pair_features", "weight"], ["wide"]),
        helper.make_node("Squeeze", ["wide", "last"], ["flat"]),
        helper.make_node("Sub", ["flat", "flat"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["scores"]),
    ]
    constants: dict[str, Any] = {
        "weight": np.ones((width, 1), np.float32),
        "last": np.array([2]),
    }
    return onnx_model(manifest.RANKER, nodes, constants, dimension)


def session(name: str, content: bytes, dimension: int) -> Session:
    inputs, outputs = tensors(name, dimension)
    return Session(ModelFile(name, content, inputs, outputs))


def usual_session(name: str, vectors: Any) -> Session:
    return session(name, usual_model(name, vectors, 7), vectors.shape[1])
