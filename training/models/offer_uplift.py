"""The uplift network: one trunk, one head per arm, what each arm would lead to.

Suffixes: B checkouts, F features, A arms (0 is no offer), H hidden. The head of no offer is the
level; those of the other arms say what they add to its log-odds, and start from no difference
between people, so that differences must be earned.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.models.layers import Layers


class OfferUplift(nn.Module):
    """Features [B, F] and the cart's value [B, 1] to what every arm leads to, [B, A, 2]: the
    chance of the outcome, and the spend expected of it (0 included) in the unit of the value."""

    mean: Tensor
    scale: Tensor
    spend_ratio: Tensor  # mean spend over value where it comes to the outcome

    def __init__(self, num_features: int, num_arms: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("spend_ratio", torch.ones(()))
        self.trunk = Layers(
            nn.Linear(num_features, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.level = nn.Linear(hidden, 1)
        self.effects = nn.Linear(hidden, num_arms - 1)
        self.spend = nn.Linear(hidden, num_arms)
        for head in (self.level, self.effects, self.spend):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def standardise_on(self, features: Tensor) -> None:
        """Take mean and scale from `features` [rows, F]; they travel inside the exported graph."""
        self.mean = features.mean(dim=0)
        self.scale = features.std(dim=0).clamp(min=1e-3)

    def logits(self, offer_features_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds of the outcome [B, A], and the logarithm of spend where it comes to it, over
        `spend_ratio` times the value [B, A]."""
        scaled = ((offer_features_BF - self.mean) / self.scale).clamp(-5.0, 5.0)
        trunk_BH = self.trunk(scaled)
        level_B1 = self.level(trunk_BH)
        logits_BA = torch.cat([level_B1, level_B1 + self.effects(trunk_BH)], dim=1)
        return logits_BA, self.spend(trunk_BH)

    def forward(self, offer_features_BF: Tensor, cart_value_B1: Tensor) -> Tensor:
        logits_BA, ratio_BA = self.logits(offer_features_BF)
        chance_BA = torch.sigmoid(logits_BA)
        spend_BA = chance_BA * torch.exp(ratio_BA) * self.spend_ratio * cart_value_B1
        return torch.stack([chance_BA, spend_BA], dim=2)


class Members(nn.Module):
    """The mean of several networks, each of which learned without another part of the people."""

    def __init__(self, members: list[OfferUplift]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, offer_features_BF: Tensor, cart_value_B1: Tensor) -> Tensor:
        answers = [member(offer_features_BF, cart_value_B1) for member in self.members]
        return torch.stack(answers).mean(dim=0)


class OfferUpliftGraph(nn.Module):
    """What is exported: the answer as [B, 2 * A], the chances of all arms, then their spends. The
    members (M) are computed side by side, with the level in the head of every arm: a fifth of the
    steps, each of which a decision finds out of the caches."""

    mean: Tensor
    scale: Tensor
    spend_ratio: Tensor

    def __init__(self, members: Members) -> None:
        super().__init__()
        networks = [one for one in members.members if isinstance(one, OfferUplift)]
        self.num_arms = networks[0].spend.out_features
        for name in ("mean", "scale", "spend_ratio"):
            told = torch.stack([getattr(one, name).reshape(1, -1) for one in networks])
            self.register_buffer(name, told)
        self.trunk = Layers()
        for layers in zip(*(one.trunk for one in networks), strict=True):
            same = [one for one in layers if isinstance(one, nn.Linear)]
            weights, biases = [one.weight for one in same], [one.bias for one in same]
            self.trunk.append(_SideBySide(weights, biases) if same else layers[0])
        self.heads = _SideBySide(
            [_heads(one.level.weight, one.effects.weight, one.spend.weight) for one in networks],
            [_heads(one.level.bias, one.effects.bias, one.spend.bias) for one in networks],
        )

    def forward(self, offer_features_BF: Tensor, cart_value_B1: Tensor) -> Tensor:
        scaled_MBF = ((offer_features_BF - self.mean) / self.scale).clamp(-5.0, 5.0)
        told_MBA2 = self.heads(self.trunk(scaled_MBF))
        logits_MBA, ratio_MBA = told_MBA2.split(self.num_arms, dim=2)
        chance_MBA = torch.sigmoid(logits_MBA)
        spend_MBA = chance_MBA * torch.exp(ratio_MBA) * (self.spend_ratio * cart_value_B1)
        return torch.cat([chance_MBA, spend_MBA], dim=2).mean(dim=0)


class _SideBySide(nn.Module):
    """Linear layers of one shape, each for its own rows of [M, B, in]."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([one.T for one in weights]), requires_grad=False)
        self.bias = nn.Parameter(
            torch.stack([one.reshape(1, -1) for one in biases]), requires_grad=False
        )

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.weight + self.bias


def _heads(level: Tensor, effects: Tensor, spend: Tensor) -> Tensor:
    """Weights or biases of one head for the log-odds of every arm, then for its spend."""
    return torch.cat([level, level + effects, spend]).detach()
