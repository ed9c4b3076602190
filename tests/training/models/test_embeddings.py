"""The tables follow from the declared features, and TorchRec's answers are those of the exported
graph: for every item, and for search words."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from contract.encoding import FIRST_ITEM, OOV, PAD, QUERY_TOWER_INPUTS, TOKENS
from contract.manifest import QUERY_TOWER, SEQUENCE_ENCODER
from contract.text import NUM_TOKENS
from training.data.source import Source
from training.export import graphs, parity
from training.models.embeddings import (
    ITEM_FEATURES,
    SEARCH,
    SEARCHED,
    bags,
    gathered,
    item_columns,
    jagged,
    tables,
)
from training.recommender import Recommender
from training.run_folder import Run


def test_tables_columns_and_look_ups_are_those_of_the_declaration(source: Source) -> None:
    vocabulary = source.baskets.vocabulary(2**62, 1)
    columns = item_columns(source.catalogue, vocabulary)
    collection = tables(len(vocabulary), 8)
    assert list(columns) == [feature.name for feature in ITEM_FEATURES]
    configs = {config.name: config for config in collection.embedding_bag_configs()}
    assert list(configs) == [feature.table for feature in ITEM_FEATURES]
    assert configs["text_table"].feature_names == ["text", "search"]
    item = torch.arange(len(vocabulary))
    look_up = jagged(bags(item, columns), torch.zeros((3, TOKENS), dtype=torch.long))
    asked = [name for feature in ITEM_FEATURES for name in feature.feature_names]
    assert look_up.keys() == asked
    assert look_up.stride() == len(vocabulary) + 3
    for feature in ITEM_FEATURES:
        assert columns[feature.name].shape == (len(vocabulary), feature.width)
        assert int(columns[feature.name].max()) < configs[feature.table].num_embeddings
        assert not columns[feature.name][PAD].any()
    assert (columns["text"][FIRST_ITEM:] > 0).any(dim=1).all()
    assert configs["item_id_table"].num_embeddings == len(vocabulary)


def test_torchrec_pools_as_plain_tensors_do(fitted: tuple[object, Recommender]) -> None:
    """Every table, every item, and searches of every length."""
    tower = fitted[1].towers.item_tower
    item = torch.arange(tower.num_items)
    rng = np.random.default_rng(0)
    search = torch.from_numpy(rng.integers(1, NUM_TOKENS, (50, TOKENS)))
    search[torch.arange(TOKENS) >= torch.arange(50)[:, None] % (TOKENS + 1)] = PAD
    ids = bags(item, tower.columns)
    with torch.no_grad():
        pooled = tower.tables(jagged(ids, search)).to_dict()
        for feature in ITEM_FEATURES:
            weight = tower.tables.embedding_bags[feature.table].weight
            plain = gathered(feature, weight, ids[feature.name])
            assert torch.allclose(pooled[feature.name][: len(item)], plain, atol=1e-6)
            assert weight.abs().sum() > 0
        words = gathered(SEARCHED, tower.tables.embedding_bags[SEARCHED.table].weight, search)
    assert torch.allclose(pooled[SEARCH][len(item) :], words, atol=1e-6)
    assert not words[0].any()


def test_an_items_own_id_can_be_dropped_and_nothing_else(source: Source) -> None:
    columns = item_columns(source.catalogue, source.baskets.vocabulary(2**62, 1))
    item = torch.tensor([FIRST_ITEM, FIRST_ITEM + 1])
    found = bags(item, columns, torch.tensor([True, False]))
    assert found["item_id"].tolist() == [[OOV], [FIRST_ITEM + 1]]
    assert torch.equal(found["text"], columns["text"][item])


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    modules, _ = graphs.graphs(run.towers, run.ranker)
    folder, written = tmp_path_factory.mktemp("onnx"), {}
    for name in (QUERY_TOWER, SEQUENCE_ENCODER):
        example = parity.example(name, len(run.vocabulary))
        written[name] = folder / f"{name}.onnx"
        content = graphs.to_onnx(name, modules[name], example, run.recipe.dimension)
        written[name].write_bytes(content)
    return written


def test_the_exported_item_vectors_are_torchrecs(run: Run, exported: dict[str, Path]) -> None:
    import onnx

    with torch.no_grad():
        vectors_ND = run.towers.item_vectors().numpy()
    for path in exported.values():
        frozen = [
            numpy_helper.to_array(constant)
            for constant in onnx.load(path).graph.initializer
            if tuple(constant.dims) == vectors_ND.shape
        ]
        assert any(np.array_equal(found, vectors_ND) for found in frozen)


def test_the_exported_query_tower_reads_items_and_words_as_torchrec_does(
    run: Run, exported: dict[str, Path]
) -> None:
    """One query for every item in the cart, one for each of many searches: the exported graph
    against the model, whose search words go through TorchRec."""
    count = len(run.vocabulary)
    inputs = {
        name: np.zeros((count, *shape), dtype)
        for name, (shape, dtype) in QUERY_TOWER_INPUTS.items()
    }
    inputs["cart_items"][:, 0] = np.arange(count)
    inputs["search_tokens"][:, :3] = np.random.default_rng(1).integers(0, NUM_TOKENS, (count, 3))
    session = onnxruntime.InferenceSession(exported[QUERY_TOWER])
    (answer,) = session.run(None, inputs)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        vectors_ND = run.towers.item_vectors()
        expected = run.towers.query(tensors, vectors_ND).numpy()
        silent = run.towers.query(
            {**tensors, "search_tokens": tensors["search_tokens"] * 0}, vectors_ND
        )
    assert np.abs(np.asarray(answer) - expected).max() < 1e-5
    assert np.abs(expected - silent.numpy()).max() > 1e-3


def test_no_torchrec_module_is_part_of_an_exported_graph(exported: dict[str, Path]) -> None:
    import onnx

    for path in exported.values():
        model = onnx.load(path)
        assert {node.domain for node in model.graph.node} <= {"", "pkg.onnxscript.torch_lib"}
        kinds = {element.type.tensor_type.elem_type for element in model.graph.input}
        assert kinds <= {onnx.TensorProto.INT64, onnx.TensorProto.FLOAT}
