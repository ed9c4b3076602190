"""Item tower and query tower in one inner-product space.

Suffixes: B batch, U items, D space, F frequent items, C cart, T search words, S segments.
"""

from dataclasses import fields

import torch
from torch import Tensor, nn

from contract.encoding import CONTEXT_SIZES
from contract.segments import SEGMENTS
from training.models.embeddings import ItemColumns, item_features, tables

_RECENCY = 4


class ItemTower(nn.Module):
    """An item's id and content to a vector. Input: vocabulary indices [U]; output: [U, D]."""

    def __init__(self, columns: ItemColumns, dimension: int, id_dropout: float) -> None:
        super().__init__()
        # Buffers, so that they move to the device with the weights; they come from the catalogue
        # and need no place in a checkpoint.
        for field in fields(columns):
            self.register_buffer(field.name, getattr(columns, field.name), persistent=False)
        self.id_dropout = id_dropout
        self.tables = tables(len(columns), dimension)
        self.mix = nn.Sequential(
            nn.Linear(5 * dimension, 2 * dimension), nn.GELU(), nn.Linear(2 * dimension, dimension)
        )
        for table in self.tables.embedding_bags.values():
            nn.init.normal_(table.weight, std=0.05)
        # A search for a word that no product has must lead nowhere.
        nn.init.zeros_(self.word_vectors)

    @property
    def columns(self) -> ItemColumns:
        """What describes every item, on the device of the weights."""
        return ItemColumns(
            **{field.name: getattr(self, field.name) for field in fields(ItemColumns)}
        )

    @property
    def word_vectors(self) -> Tensor:
        """The table of product words, [NUM_TOKENS, D]."""
        weight: Tensor = self.tables.embedding_bags["text_table"].weight
        return weight

    def forward(self, item_U: Tensor) -> Tensor:
        drop_U = None
        if self.training and self.id_dropout > 0:
            drop_U = torch.rand(len(item_U), device=item_U.device) < self.id_dropout
        pooled = self.tables(item_features(item_U, self.columns, drop_U)).to_dict()
        parts = torch.cat(list(pooled.values()), dim=1)
        # The id's own vector is added untouched: what co-purchase taught is not squeezed through
        # the layers that must also explain content.
        own_UD: Tensor = pooled["item_id"]
        mixed_UD: Tensor = self.mix(parts)
        return own_UD + mixed_UD


class QueryTower(nn.Module):
    """History, recency, context, segments and search words to a vector [B, D].

    Item inputs are vectors of the item tower, search words rows of its table of product text.
    """

    def __init__(self, dimension: int, dropout: float) -> None:
        super().__init__()
        # At zero, what training never shows (a country, an hour) says as little at serving as what
        # is not said at all, which is code 0.
        codes = [nn.Embedding(size, 8, padding_idx=0) for size in CONTEXT_SIZES.values()]
        for table in codes:
            nn.init.zeros_(table.weight)
        self.contexts = nn.ModuleList(codes)
        width = 3 * dimension + 8 * len(CONTEXT_SIZES) + len(SEGMENTS) + _RECENCY + 2
        self.mix = nn.Sequential(
            nn.Linear(width, 4 * dimension),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dimension, dimension),
        )

    def forward(
        self,
        frequent_BFD: Tensor,
        frequent_weights_BF: Tensor,
        cart_BCD: Tensor,
        cart_mask_BC: Tensor,
        context: Tensor,
        segments_BS: Tensor,
        recency: Tensor,
        words_BTD: Tensor,
        words_mask_BT: Tensor,
    ) -> Tensor:
        history_BD = (frequent_BFD * frequent_weights_BF[..., None]).sum(dim=1)
        in_cart_B1 = cart_mask_BC.sum(dim=1, keepdim=True)
        cart_BD = (cart_BCD * cart_mask_BC[..., None]).sum(dim=1) / in_cart_B1.clamp(min=1.0)
        searched_B1 = words_mask_BT.sum(dim=1, keepdim=True)
        words_BD = (words_BTD * words_mask_BT[..., None]).sum(dim=1) / searched_B1.clamp(min=1.0)
        codes = [table(context[:, field]) for field, table in enumerate(self.contexts)]
        known = (frequent_weights_BF.sum(dim=1, keepdim=True) > 0).to(history_BD.dtype)
        inputs = [history_BD, cart_BD, words_BD, *codes, segments_BS, recency, known]
        query_BD: Tensor = self.mix(torch.cat([*inputs, torch.log1p(in_cart_B1)], dim=1))
        return query_BD
