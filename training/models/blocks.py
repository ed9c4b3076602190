"""Causal blocks of a sequence model, each [B, L, D] to [B, L, D]: `attention` as in SASRec, `ligr`
with gated residuals, `hstu` with pointwise attention.

Suffixes: B batch, L length (left-padded), D dimension, H heads, K = D / H. Places are relative: a
prefix means the same wherever it stands, so that training on all prefixes at once is training on
what serving asks.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class RelativePlaces(nn.Module):
    """A learned bias for every distance between two positions, [H, L, L]."""

    def __init__(self, heads: int, length: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(heads, length))

    def forward(self, length: int) -> Tensor:
        place_L = torch.arange(length, device=self.bias.device)
        distance_LL = (place_L[:, None] - place_L[None, :]).clamp(min=0)
        return self.bias[:, distance_LL.clamp(max=self.bias.shape[1] - 1)]


class AttentionBlock(nn.Module):
    """Softmax attention and a feed-forward layer, both pre-normalised (Kang and McAuley,
    "Self-attentive sequential recommendation", ICDM 2018)."""

    def __init__(self, dimension: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.places = RelativePlaces(heads, length)
        self.norm_attention = nn.LayerNorm(dimension)
        self.qkv = nn.Linear(dimension, 3 * dimension)
        self.project = nn.Linear(dimension, dimension)
        self.norm_feed = nn.LayerNorm(dimension)
        self.expand = nn.Linear(dimension, 4 * dimension)
        self.contract = nn.Linear(4 * dimension, dimension)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, allowed_B1LL: Tensor) -> Tensor:
        x_BLD = x_BLD + self.dropout(self.attended(x_BLD, allowed_B1LL))
        fed_BLD: Tensor = self.dropout(self.fed(x_BLD))
        return x_BLD + fed_BLD

    def attended(self, x_BLD: Tensor, allowed_B1LL: Tensor) -> Tensor:
        """What each position takes from those it may see."""
        B, L, D = x_BLD.shape
        qkv = self.qkv(self.norm_attention(x_BLD)).view(B, L, 3, self.heads, D // self.heads)
        q_BHLK, k_BHLK, v_BHLK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias_BHLL = self.places(L)[None].masked_fill(~allowed_B1LL, float("-inf"))
        mixed_BHLK = functional.scaled_dot_product_attention(
            q_BHLK, k_BHLK, v_BHLK, attn_mask=bias_BHLL.to(q_BHLK.dtype)
        )
        mixed_BLD: Tensor = self.project(mixed_BHLK.transpose(1, 2).reshape(B, L, D))
        return mixed_BLD

    def fed(self, x_BLD: Tensor) -> Tensor:
        """The feed-forward layer's share."""
        hidden = self.dropout(functional.gelu(self.expand(self.norm_feed(x_BLD))))
        fed_BLD: Tensor = self.contract(hidden)
        return fed_BLD


class LigrBlock(AttentionBlock):
    """As `AttentionBlock`, each residual weighed by a learned gate of its input (LiGR: Borisyuk et
    al., "From features to transformers", arXiv 2502.03417)."""

    def __init__(self, dimension: int, heads: int, length: int, dropout: float) -> None:
        super().__init__(dimension, heads, length, dropout)
        self.gate_attention = nn.Linear(dimension, dimension)
        self.gate_feed = nn.Linear(dimension, dimension)

    def forward(self, x_BLD: Tensor, allowed_B1LL: Tensor) -> Tensor:
        taken_BLD = self.attended(x_BLD, allowed_B1LL) * torch.sigmoid(self.gate_attention(x_BLD))
        x_BLD = x_BLD + self.dropout(taken_BLD)
        fed_BLD: Tensor = self.dropout(self.fed(x_BLD) * torch.sigmoid(self.gate_feed(x_BLD)))
        return x_BLD + fed_BLD


class HstuBlock(nn.Module):
    """Pointwise attention: SiLU instead of a softmax, so that how often something happened is kept,
    and an elementwise gate instead of a feed-forward layer (HSTU: Zhai et al., "Actions speak
    louder than words", ICML 2024)."""

    def __init__(self, dimension: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.places = RelativePlaces(heads, length)
        self.norm = nn.LayerNorm(dimension)
        self.inputs = nn.Linear(dimension, 4 * dimension)
        self.norm_mixed = nn.LayerNorm(dimension)
        self.project = nn.Linear(dimension, dimension)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, allowed_B1LL: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        inputs = functional.silu(self.inputs(self.norm(x_BLD)))
        gate_BLD = inputs[..., :D]
        qkv = inputs[..., D:].view(B, L, 3, self.heads, D // self.heads)
        q_BHLK, k_BHLK, v_BHLK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores_BHLL = functional.silu(q_BHLK @ k_BHLK.transpose(-1, -2) + self.places(L))
        scores_BHLL = scores_BHLL.masked_fill(~allowed_B1LL, 0.0)
        seen_B1L1 = allowed_B1LL.sum(dim=-1, keepdim=True)
        mixed_BHLK = (scores_BHLL / seen_B1L1) @ v_BHLK
        mixed_BLD = self.norm_mixed(mixed_BHLK.transpose(1, 2).reshape(B, L, D))
        update_BLD: Tensor = self.dropout(self.project(mixed_BLD * gate_BLD))
        return x_BLD + update_BLD


BLOCKS: dict[str, Callable[[int, int, int, float], nn.Module]] = {
    "attention": AttentionBlock,
    "ligr": LigrBlock,
    "hstu": HstuBlock,
}
