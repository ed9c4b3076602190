"""Item tower and query tower in one inner-product space.

Suffixes: B batch, U items, Q searches, D space, F frequent items, C cart, S segments, T words.
"""

import torch
from torch import Tensor, nn

from contract.encoding import CONTEXT_SIZES, TOKENS
from contract.segments import NUM_SEGMENTS
from training.data.item_text import TEXT_DIMENSION
from training.models.embeddings import (
    ITEM_FEATURES,
    ITEM_ID,
    SEARCH,
    SEARCHED,
    ItemColumns,
    bags,
    jagged,
    tables,
)
from training.models.layers import Layers

_RECENCY = 4
# How far apart the rows of a table begin: so that sharing a category counts for about as much as
# likeness of the texts, and sharing a word for less.
_SPREAD = {ITEM_ID: 0.1, "brand": 0.15, "category": 0.25, "text": 0.3, "wording": 0.3}
_TEXT_SCALE = 2.0


class ItemTower(nn.Module):
    """Items' ids and content to vectors, and search words to the space of product text.

    Input: vocabulary indices [U] and search tokens [Q, T]; output: [U, D] and [Q, D].
    """

    text_vectors: Tensor
    unseen: Tensor

    def __init__(
        self,
        columns: ItemColumns,
        dimension: int,
        id_dropout: float,
        text_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        # Buffers, so that they move to the device with the weights; they come from the catalogue
        # and need no place in a checkpoint.
        for name, ids in columns.items():
            self.register_buffer(f"column_{name}", ids, persistent=False)
        self.num_items = len(next(iter(columns.values())))
        # These do travel with the weights: a run is read without the text model and the baskets.
        if text_vectors is None:
            text_vectors = torch.zeros(self.num_items, TEXT_DIMENSION)
        self.register_buffer("text_vectors", text_vectors)
        self.register_buffer("unseen", torch.zeros(self.num_items, dtype=torch.bool))
        self.id_dropout = id_dropout
        self.tables = tables(self.num_items, dimension)
        # Everything but the id: what an item nobody has bought is known by.
        self.mix = Layers(
            nn.Linear((len(ITEM_FEATURES) - 1) * dimension + TEXT_DIMENSION, 2 * dimension),
            nn.GELU(),
            nn.Linear(2 * dimension, dimension),
        )
        self.text = nn.Linear(TEXT_DIMENSION, dimension, bias=False)
        nn.init.eye_(self.text.weight)
        with torch.no_grad():
            self.text.weight *= _TEXT_SCALE
        for feature in ITEM_FEATURES:
            weight = self.tables.embedding_bags[feature.table].weight
            nn.init.normal_(weight, std=_SPREAD.get(feature.name, 0.05))
        self._silence(columns[SEARCHED.name])

    @torch.no_grad()
    def _silence(self, words: Tensor) -> None:
        """A search for a word that no product has must lead nowhere: such a word begins at zero,
        and training never moves it."""
        weight = self.tables.embedding_bags[SEARCHED.table].weight
        had = torch.zeros(len(weight), dtype=torch.bool)
        had[words[words > 0]] = True
        weight[~had] = 0.0

    @property
    def columns(self) -> ItemColumns:
        """What describes every item, on the device of the weights."""
        return {f.name: getattr(self, f"column_{f.name}") for f in ITEM_FEATURES}

    def dropped(self, item_U: Tensor) -> Tensor:
        """Which of `item_U` go without their id, [U]: those that nobody has bought, and in
        training a share of the others."""
        drop_U = self.unseen[item_U]
        if self.training and self.id_dropout > 0:
            drop_U = drop_U | (torch.rand(len(item_U), device=item_U.device) < self.id_dropout)
        return drop_U

    def forward(
        self, item_U: Tensor, search_QT: Tensor, drop_U: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [U, D], searches [Q, D], and the content's part of the vectors [U, D]."""
        look_up = jagged(bags(item_U, self.columns, drop_U), search_QT)
        pooled = self.tables(look_up).to_dict()
        items = {f.name: pooled[f.name][: len(item_U)] for f in ITEM_FEATURES}
        content_UD = self.described(items, self.text_vectors[item_U])
        # The id's own vector is added untouched: what co-purchase taught is not squeezed through
        # the layers that must explain content, and content alone is the same without it.
        return items[ITEM_ID] + content_UD, pooled[SEARCH][len(item_U) :], content_UD

    def items(self, item_U: Tensor) -> Tensor:
        """The vectors of `item_U` alone, [U, D]."""
        drop_U = self.dropped(item_U)
        vectors_UD: Tensor = self(item_U, item_U.new_zeros((0, TOKENS)), drop_U)[0]
        return vectors_UD

    def words(self, search_QT: Tensor) -> Tensor:
        """What searches mean, [Q, D]; zero without words."""
        words_QD: Tensor = self(search_QT.new_zeros(0), search_QT)[1]
        return words_QD

    def described(self, pooled: dict[str, Tensor], text_UX: Tensor) -> Tensor:
        """Pooled embeddings [U, D] by feature and text vectors [U, X] to what content says of the
        items, [U, D]."""
        parts = [pooled[f.name] for f in ITEM_FEATURES if f.column is not None]
        mixed_UD: Tensor = self.mix(torch.cat([*parts, text_UX], dim=1))
        # The sum makes items that share a category, a brand or words alike from the first step.
        described_UD: Tensor = mixed_UD + self.text(text_UX) + torch.stack(parts).sum(dim=0)
        return described_UD


class QueryTower(nn.Module):
    """History, recency, context, segments and search words to a vector [B, D].

    Item inputs are vectors of the item tower; the words of a search are its mean of them, and zero
    where nothing was searched for.
    """

    def __init__(self, dimension: int, dropout: float) -> None:
        super().__init__()
        # At zero, what training never shows (a country, an hour) says as little at serving as what
        # is not said at all, which is code 0.
        codes = [nn.Embedding(size, 8, padding_idx=0) for size in CONTEXT_SIZES.values()]
        for table in codes:
            nn.init.zeros_(table.weight)
        self.contexts = nn.ModuleList(codes)
        width = 3 * dimension + 8 * len(CONTEXT_SIZES) + NUM_SEGMENTS + _RECENCY + 2
        self.mix = Layers(
            nn.Linear(width, 4 * dimension),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dimension, dimension),
        )
        # Straight from what the shopper has to what lies near it, past the layers: likeness to the
        # history and to the cart is there from the first step, for items never bought as well.
        self.near_history = nn.Linear(dimension, dimension, bias=False)
        self.near_cart = nn.Linear(dimension, dimension, bias=False)
        self.near_words = nn.Linear(dimension, dimension, bias=False)
        for layer in (self.near_history, self.near_cart, self.near_words):
            nn.init.eye_(layer.weight)

    def forward(
        self,
        frequent_BFD: Tensor,
        frequent_weights_BF: Tensor,
        cart_BCD: Tensor,
        cart_mask_BC: Tensor,
        context: Tensor,
        segments_BS: Tensor,
        recency: Tensor,
        words_BD: Tensor,
    ) -> Tensor:
        history_BD = (frequent_BFD * frequent_weights_BF[..., None]).sum(dim=1)
        in_cart_B1 = cart_mask_BC.sum(dim=1, keepdim=True)
        cart_BD = (cart_BCD * cart_mask_BC[..., None]).sum(dim=1) / in_cart_B1.clamp(min=1.0)
        codes = [table(context[:, field]) for field, table in enumerate(self.contexts)]
        known = (frequent_weights_BF.sum(dim=1, keepdim=True) > 0).to(history_BD.dtype)
        inputs = [history_BD, cart_BD, words_BD, *codes, segments_BS, recency, known]
        query_BD: Tensor = self.mix(torch.cat([*inputs, torch.log1p(in_cart_B1)], dim=1))
        near_BD: Tensor = (
            self.near_history(history_BD) + self.near_cart(cart_BD) + self.near_words(words_BD)
        )
        return query_BD + near_BD
