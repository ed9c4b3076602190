"""A causal transformer over the latest interactions and the cart, into the item space.

Suffixes: B batch, L length (left-padded), Q positions asked for, D space, H heads, K = D / H.
"""

import torch
from torch import Tensor, nn

from contract.encoding import LENGTH, NUM_EVENT_TYPES, NUM_GAPS


class Block(nn.Module):
    """Pre-norm causal self-attention and a feed-forward layer, [B, L, D] to [B, Q, D], for the
    latest Q positions of which `allowed_B1QL` says what they may look at."""

    def __init__(self, dimension: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dimension)
        self.qkv = nn.Linear(dimension, 3 * dimension)
        self.project = nn.Linear(dimension, dimension)
        self.norm_feed = nn.LayerNorm(dimension)
        self.feed = nn.Sequential(
            nn.Linear(dimension, 4 * dimension), nn.GELU(), nn.Linear(4 * dimension, dimension)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, allowed_B1QL: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        asked = allowed_B1QL.shape[2]
        normed_BLD = self.norm_attention(x_BLD)
        weight, bias = self.qkv.weight, self.qkv.bias
        q_BQD = nn.functional.linear(normed_BLD[:, L - asked :], weight[:D], bias[:D])
        kv_BLE = nn.functional.linear(normed_BLD, weight[D:], bias[D:])
        q_BHQK = q_BQD.view(B, asked, self.heads, D // self.heads).transpose(1, 2)
        k_BHLK, v_BHLK = (
            kv_BLE.view(B, L, 2, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        mixed_BHQK = nn.functional.scaled_dot_product_attention(
            q_BHQK, k_BHLK, v_BHLK, attn_mask=allowed_B1QL
        )
        mixed_BQD = mixed_BHQK.transpose(1, 2).reshape(B, asked, D)
        x_BQD: Tensor = x_BLD[:, L - asked :] + self.dropout(self.project(mixed_BQD))
        fed_BQD: Tensor = self.dropout(self.feed(self.norm_feed(x_BQD)))
        return x_BQD + fed_BQD


class SequenceEncoder(nn.Module):
    """What comes next after each position, [B, L, D]; with `latest` after the last one, [B, 1, D].

    Inputs: item vectors [B, L, D], event types [B, L], time-gap buckets [B, L]; type 0 is padding.
    """

    def __init__(self, dimension: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.types = nn.Embedding(NUM_EVENT_TYPES, dimension)
        self.gaps = nn.Embedding(NUM_GAPS, dimension)
        # Counted from the end, so that "the latest" is the same position in short and long carts.
        self.positions = nn.Embedding(LENGTH, dimension)
        self.blocks = nn.ModuleList(Block(dimension, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dimension)
        self.project = nn.Linear(dimension, dimension)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.positions.weight, std=0.05)
        # At zero, an event type or a gap that training never shows says nothing at serving either.
        nn.init.zeros_(self.types.weight)
        nn.init.zeros_(self.gaps.weight)

    def forward(
        self, items_BLD: Tensor, types_BL: Tensor, gaps_BL: Tensor, *, latest: bool = False
    ) -> Tensor:
        length = types_BL.shape[1]
        place_L = torch.arange(length - 1, -1, -1, device=types_BL.device)
        x_BLD = items_BLD + self.types(types_BL) + self.gaps(gaps_BL) + self.positions(place_L)
        x_BLD = self.dropout(x_BLD)
        causal_LL = torch.ones(length, length, dtype=torch.bool, device=types_BL.device).tril()
        itself_LL = torch.eye(length, dtype=torch.bool, device=types_BL.device)
        # A padded position may look at itself, else its softmax would have nothing to sum.
        allowed_B1LL = (causal_LL & (types_BL > 0)[:, None, :] | itself_LL)[:, None]
        for number, block in enumerate(self.blocks, start=1):
            only = latest and number == len(self.blocks)  # the others feed every position of it
            x_BLD = block(x_BLD, allowed_B1LL[:, :, -1:] if only else allowed_B1LL)
        next_BQD: Tensor = self.project(self.norm(x_BLD))
        return next_BQD
