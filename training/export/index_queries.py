"""Query vectors to judge an index by: what both towers answer for carts that were really filled.

A run keeps no shopper, but its neighbourhood tables keep sessions. The first half of a session is a
cart, of a shopper nobody knows. These carts were trained on, and are shorter than what a known
shopper brings along: the recall measured with them is that of this kind of query.
"""

import numpy as np
import torch

from contract.clock import to_us
from contract.encoding import FIRST_ITEM, Situation
from contract.features import UNKNOWN
from contract.items import Floats
from contract.manifest import SESSION_KNN
from training.data.tower_examples import encode_all
from training.run_folder import Run

CARTS = 500
_CHUNK = 64


def tower_queries(run: Run, vectors_ND: torch.Tensor) -> Floats:
    """Both towers' vectors for at most CARTS carts, [2 * carts, D]: those of one cart are
    neighbours. `vectors_ND` are the item vectors, PAD and OOV included."""
    now_us = to_us(run.window.train_until)
    asked = [Situation(UNKNOWN, cart, now_us, rules=run.rules) for cart in _carts(run)]
    found = []
    with torch.no_grad():
        for start in range(0, len(asked), _CHUNK):
            tensors = encode_all(asked[start : start + _CHUNK], run.vocabulary)
            query_BD = run.towers.query(tensors, vectors_ND)
            sequence_BD = run.towers.sequence(tensors, vectors_ND)[:, -1]
            found.append(torch.stack((query_BD, sequence_BD), dim=1).flatten(0, 1))
    return np.ascontiguousarray(torch.cat(found).numpy(), np.float32)


def _carts(run: Run) -> list[list[str]]:
    """The first halves of sessions, evenly over their time; single items where there are none."""
    with np.load(run.folder / SESSION_KNN) as arrays:
        offsets, items = arrays["session_offsets"], arrays["session_items"]
    lengths = np.diff(offsets)
    usable = np.flatnonzero(lengths > 1)
    if not len(usable):
        every = np.arange(FIRST_ITEM, len(run.vocabulary))
        chosen = every[np.linspace(0, len(every) - 1, min(CARTS, len(every)), dtype=np.int64)]
        return [[run.vocabulary.item_id(int(item))] for item in chosen]
    chosen = usable[np.linspace(0, len(usable) - 1, min(CARTS, len(usable)), dtype=np.int64)]
    return [
        [
            run.vocabulary.item_id(int(item))
            for item in items[offsets[one] : offsets[one] + lengths[one] // 2]
        ]
        for one in chosen
    ]
