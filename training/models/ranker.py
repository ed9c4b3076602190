"""The small ranker that blends the sources: pair features to one score per candidate.

Suffixes: B checkouts, C candidates, F pair features.
"""

import torch
from torch import Tensor, nn

from training.models.layers import Layers


class Ranker(nn.Module):
    """A multi-layer perceptron on standardised pair features, [B, C, F] to [B, C]."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.layers = Layers(
            nn.Linear(num_features, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden // 2),
            nn.GELU(),
            nn.Linear(hidden // 2, 1),
        )

    def standardise_on(self, features: Tensor) -> None:
        """Take mean and scale from `features` [rows, F]; they travel inside the exported graph."""
        self.mean = features.mean(dim=0)
        self.scale = features.std(dim=0).clamp(min=1e-3)

    def dense_parts(self) -> list[nn.Module]:
        """What may be compiled."""
        return [self.layers]

    def forward(self, pair_features_BCF: Tensor) -> Tensor:
        scores_BC1: Tensor = self.layers(self.standardised(pair_features_BCF))
        return scores_BC1.squeeze(-1)

    def standardised(self, features: Tensor) -> Tensor:
        """What the first layer reads, for `features` [..., F]."""
        return ((features - self.mean) / self.scale).clamp(-8.0, 8.0)
