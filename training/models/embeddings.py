"""TorchRec tables of the item tower, from the columns that describe an item.

B: items in the batch, D: width of a table.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.embedding_configs import PoolingType

from contract.encoding import FIRST_ITEM, OOV, Vocabulary
from contract.events import key_of
from contract.text import NUM_TOKENS, token_matrix

TEXT_TOKENS = 12
PRICE_BUCKETS = 24
_HASHED = 8_192


@dataclass(frozen=True)
class ItemColumns:
    """What the item tower reads of every item, indexed like the vocabulary; [N] or [N, width].

    0 pads; row OOV describes an item of which nothing is known.
    """

    brand: Tensor  # [N]
    category: Tensor  # [N, 3] the path, level by level
    text: Tensor  # [N, TEXT_TOKENS]
    price: Tensor  # [N] log2 buckets

    def __len__(self) -> int:
        return len(self.brand)


def item_columns(catalogue: pa.Table, vocabulary: Vocabulary) -> ItemColumns:
    """The columns of the vocabulary's items; an item absent from `catalogue` is described by 0."""
    place = {item_id: row for row, item_id in enumerate(catalogue["item_id"].to_pylist())}
    rows = [place.get(item_id) for item_id in vocabulary.item_ids]
    brands, texts = catalogue["brand"].to_pylist(), catalogue["text"].to_pylist()
    paths, prices = catalogue["category_path"].to_pylist(), catalogue["price"].to_pylist()
    size = len(vocabulary)
    brand, category = np.zeros(size, np.int64), np.zeros((size, 3), np.int64)
    price, text = np.zeros(size, np.int64), [""] * size
    for index, row in enumerate(rows, start=FIRST_ITEM):
        if row is None:
            continue
        brand[index] = hashed(brands[row])
        path = paths[row] or []
        for level in range(min(3, len(path))):
            category[index, level] = hashed("/".join(path[: level + 1]))
        text[index] = texts[row] or ""
        price[index] = price_bucket(prices[row])
    return ItemColumns(
        torch.from_numpy(brand),
        torch.from_numpy(category),
        torch.from_numpy(token_matrix(text, TEXT_TOKENS)),
        torch.from_numpy(price),
    )


def hashed(word: str | None) -> int:
    """A bucket 1.._HASHED-1 of `word`, 0 for none."""
    return 1 + key_of(word) % (_HASHED - 1) if word else 0


def price_bucket(minor_units: int | None) -> int:
    """1 + floor(1.2 log2(1 + price)) up to PRICE_BUCKETS - 1; 0 when not priced."""
    if not minor_units:
        return 0
    return min(PRICE_BUCKETS - 1, 1 + int(1.2 * np.log2(1 + minor_units)))


def tables(num_items: int, width: int) -> EmbeddingBagCollection:
    """The item tower's tables: id, brand, category, text and price, summed or averaged per item."""
    sizes = {
        "item_id": (num_items, PoolingType.SUM),
        "brand": (_HASHED, PoolingType.SUM),
        "category": (_HASHED, PoolingType.SUM),
        "text": (NUM_TOKENS, PoolingType.MEAN),
        "price": (PRICE_BUCKETS, PoolingType.SUM),
    }
    return EmbeddingBagCollection(
        device=torch.device("cpu"),
        tables=[
            EmbeddingBagConfig(
                name=f"{name}_table",
                embedding_dim=width,
                num_embeddings=rows,
                feature_names=[name],
                pooling=pooling,
            )
            for name, (rows, pooling) in sizes.items()
        ],
    )


def item_features(item_B: Tensor, columns: ItemColumns, drop_B: Tensor | None) -> KeyedJaggedTensor:
    """The sparse features of `item_B`; where `drop_B` holds, the id is replaced by OOV, so that
    content alone must do. Padding zeros are left out of the bags."""
    ids_B1 = item_B if drop_B is None else torch.where(drop_B, OOV, item_B)
    bags = [
        ids_B1[:, None],
        columns.brand[item_B][:, None],
        columns.category[item_B],
        columns.text[item_B],
        columns.price[item_B][:, None],
    ]
    masks = [torch.ones_like(bags[0], dtype=torch.bool), *(bag > 0 for bag in bags[1:])]
    return KeyedJaggedTensor(
        keys=["item_id", "brand", "category", "text", "price"],
        values=torch.cat([bag[mask] for bag, mask in zip(bags, masks, strict=True)]),
        lengths=torch.cat([mask.sum(dim=1) for mask in masks]).int(),
    )
