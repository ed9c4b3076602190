"""The exported graphs: plain tensors in and out, every item vector in one frozen table."""

import logging
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contract.encoding import QUERY_TOWER_INPUTS, SEQUENCE_INPUTS
from contract.manifest import (
    ATTRIBUTIONS,
    OFFER_UPLIFT,
    QUERY_TOWER,
    RANKER,
    SEQUENCE_ENCODER,
    tensors,
)
from training.models.embeddings import SEARCHED, gathered
from training.models.ranker import Ranker
from training.models.retrieval import RetrievalModel

# What ONNX Runtime 1.19 reads, that of the Triton image in k8s/base/triton.yaml, and not whatever
# the exporter of the day takes: a server does not load a model of a later form.
OPSET = 20
NEWEST_IR = 10


class _Frozen(nn.Module):
    """A model beside the item vectors it was trained with, frozen into the graph."""

    vectors: Tensor

    def __init__(self, model: RetrievalModel, vectors_ND: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("vectors", vectors_ND)


class QueryTowerGraph(_Frozen):
    """Vocabulary indices and search tokens to query vectors. Search words are gathered from the
    frozen table of product text: no TorchRec module is part of the graph."""

    words: Tensor

    def __init__(self, model: RetrievalModel, vectors_ND: Tensor) -> None:
        super().__init__(model, vectors_ND)
        table = model.item_tower.tables.embedding_bags[SEARCHED.table]
        self.register_buffer("words", table.weight.detach())

    def forward(self, *inputs: Tensor) -> Tensor:
        named = dict(zip(QUERY_TOWER_INPUTS, inputs, strict=True))
        words_BD = gathered(SEARCHED, self.words, named["search_tokens"])
        return self.model.query(named, self.vectors, words_BD)


class SequenceGraph(_Frozen):
    """Vocabulary indices to the vector of what comes after the last position."""

    def forward(self, *inputs: Tensor) -> Tensor:
        named = dict(zip(SEQUENCE_INPUTS, inputs, strict=True))
        return self.model.sequence(named, self.vectors, latest=True)[:, 0]


class RankerGraph(nn.Module):
    """The ranker with all candidates of a batch in one table of rows: then the biases are part of
    the products, which in ONNX Runtime are passes of their own otherwise."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, pair_features_BCF: Tensor) -> Tensor:
        scores_R: Tensor = self.ranker(pair_features_BCF.flatten(0, 1))
        return scores_R.reshape(-1, pair_features_BCF.shape[1])


def graphs(model: RetrievalModel, ranker: Ranker) -> tuple[dict[str, nn.Module], Tensor]:
    """The graph of every model of a release, and the item vectors [N, D] inside them."""
    with torch.no_grad():
        vectors_ND = model.eval().item_vectors()
    return {
        QUERY_TOWER: QueryTowerGraph(model, vectors_ND).eval(),
        SEQUENCE_ENCODER: SequenceGraph(model, vectors_ND).eval(),
        RANKER: RankerGraph(ranker).eval(),
    }, vectors_ND


def to_onnx(name: str, graph: nn.Module, example: Sequence[Tensor], dimension: int) -> bytes:
    """`graph` as an ONNX file with a dynamic batch and the contract's tensor names."""
    inputs, outputs = tensors(name, dimension)
    batch = torch.export.Dim("batch", min=1, max=1_024)
    shapes = tuple({0: batch} for _ in example)
    # The exporter reports its progress through the logger and warns of its own deprecations.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            tuple(example),
            input_names=[tensor.name for tensor in inputs],
            output_names=[tensor.name for tensor in outputs],
            dynamic_shapes=shapes if name in (ATTRIBUTIONS, RANKER, OFFER_UPLIFT) else (shapes,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"{name}: the exporter returned nothing")
    made = program.model_proto
    if made.ir_version > NEWEST_IR:
        raise RuntimeError(f"{name}: made in IR {made.ir_version}, later than {NEWEST_IR}")
    return bytes(made.SerializeToString())
