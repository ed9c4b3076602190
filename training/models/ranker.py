"""The small ranker that blends the sources: pair features to one score per candidate.

Suffixes: M members, B checkouts, C candidates, F pair features.
"""

import torch
from torch import Tensor, nn


class Ranker(nn.Module):
    """The mean of a few multi-layer perceptrons on standardised pair features, [B, C, F] to [B, C].

    The members differ by where they began; each is trained on its own loss, so that their mean is
    steadier than any of them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int, hidden: int, dropout: float, members: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(num_features, hidden),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden // 2),
                nn.GELU(),
                nn.Linear(hidden // 2, 1),
            )
            for _ in range(members)
        )

    def standardise_on(self, features: Tensor) -> None:
        """Take mean and scale from `features` [rows, F]; they travel inside the exported graph."""
        self.mean = features.mean(dim=0)
        self.scale = features.std(dim=0).clamp(min=1e-3)

    def each(self, pair_features_BCF: Tensor) -> Tensor:
        """The score of every member, [M, B, C]."""
        scaled = ((pair_features_BCF - self.mean) / self.scale).clamp(-8.0, 8.0)
        return torch.stack([member(scaled).squeeze(-1) for member in self.members])

    def forward(self, pair_features_BCF: Tensor) -> Tensor:
        return self.each(pair_features_BCF).mean(dim=0)
