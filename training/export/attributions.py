"""The graph that says in one pass what the ranker's scores owe to each kind of evidence, where
`contract.attribution.attributions` asks the ranker row by row. The ranker's first layer is linear,
so each group's part of it is computed once and added up for every coalition.

Suffixes: S shown items, F pair features, P parts (the groups, and what is shared), G groups,
L coalitions, K rows of background, H hidden units, R = K * S * L rows for the ranker.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from contract.attribution import WEIGHT, Background, attributions, members, part_of
from contract.errors import GateRefused
from contract.items import Floats
from contract.manifest import ATTRIBUTIONS, ATTRIBUTIONS_FILE
from training.export import graphs, parity
from training.models.ranker import Ranker


class Attributions(nn.Module):
    """Exact group Shapley values of a ranker's scores, [S, F] to [S, G]."""

    first: Tensor  # [F, P * H] the first layer, part by part
    taken: Tensor  # [L, P] which parts a coalition has
    usual: (
        Tensor  # [K, L * H] what those that it does not have add, of the background, and the bias
    )
    share: Tensor  # [K]
    weight: Tensor  # [L, G]

    def __init__(self, ranker: Ranker, background: Background) -> None:
        super().__init__()
        self.ranker = ranker
        first = ranker.layers[0]
        assert isinstance(first, nn.Linear)
        taken_LP = torch.from_numpy(members()).to(first.weight.dtype)
        part_FP = nn.functional.one_hot(torch.from_numpy(part_of())).to(first.weight.dtype)
        first_FPH = part_FP[:, :, None] * first.weight.detach().T[:, None, :]
        self.parts = first_FPH.shape[1:]
        self.register_buffer("first", first_FPH.flatten(1))
        self.register_buffer("taken", taken_LP)
        self.register_buffer("share", torch.from_numpy(background.weight))
        self.register_buffer("weight", torch.from_numpy(np.ascontiguousarray(WEIGHT.T)))
        with torch.no_grad():
            usual_KPH = self._parts(torch.from_numpy(background.rows))
            usual_KLH = torch.einsum("lp,kph->klh", 1.0 - taken_LP, usual_KPH) + first.bias
        self.register_buffer("usual", usual_KLH.flatten(1))

    def forward(self, pair_features_SF: Tensor) -> Tensor:
        # Background first and in rows: long runs are added up, and biases are part of the products.
        own_SLH = (self.taken @ self._parts(pair_features_SF)).flatten(1)
        hidden_KSLH = own_SLH + self.usual[:, None]
        scores_R1: Tensor = self.ranker.layers[1:](hidden_KSLH.reshape(-1, self.parts[-1]))
        value_SL = (self.share @ scores_R1.reshape(len(self.share), -1)).reshape(
            -1, len(self.taken)
        )
        return value_SL @ self.weight

    def _parts(self, rows_SF: Tensor) -> Tensor:
        """What each part of the features adds to the first layer, [S, P, H]."""
        parts: Tensor = self.ranker.standardised(rows_SF) @ self.first
        return parts.reshape(-1, *self.parts)


def attributions_graph(ranker: Ranker, usual: Path) -> dict[str, bytes]:
    """The file of a release for `ranker` and the background in the file `usual`; none where that
    does not exist, as in runs of earlier versions. Raises GateRefused when it says something else
    than the ranker does."""
    if not usual.exists():
        return {}
    with np.load(usual, allow_pickle=False) as arrays:
        background = Background.from_arrays(dict(arrays))
    content = graphs.to_onnx(
        ATTRIBUTIONS, Attributions(ranker, background).eval(), parity.example(ATTRIBUTIONS, 0), 0
    )
    difference = parity.difference(
        _Asked(ranker, background),
        content,
        parity.random_inputs(ATTRIBUTIONS, parity.PARITY_INPUTS, 0, np.random.default_rng(0)),
    )
    if not difference <= parity.TOLERANCE:
        raise GateRefused(f"parity: {ATTRIBUTIONS} differ from the ranker's by {difference:.2e}")
    return {ATTRIBUTIONS_FILE: content}


class _Asked(nn.Module):
    """The same by asking the ranker about every coalition."""

    def __init__(self, ranker: Ranker, background: Background) -> None:
        super().__init__()
        self.ranker, self.background = ranker, background

    def forward(self, pair_features_SF: Tensor) -> Tensor:
        return torch.from_numpy(
            attributions(pair_features_SF.numpy(), self.background, self._score)
        )

    def _score(self, rows: Floats) -> Floats:
        scores: Floats = self.ranker(torch.from_numpy(rows)).numpy()
        return scores
