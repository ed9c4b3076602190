"""What describes an item, declared once: the columns read from the catalogue, the sparse features
of a batch and the TorchRec tables all follow from `ITEM_FEATURES`, so that they cannot disagree.

B: rows of a look-up, U: items, Q: searches, N: vocabulary, W: ids in a bag, D: width of a table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.embedding_configs import PoolingType

from contract.encoding import FIRST_ITEM, OOV, Vocabulary
from contract.events import key_of
from contract.text import NUM_TOKENS, token_numbers

TEXT_TOKENS = 12
PRICE_BUCKETS = 24
SEARCH = "search"
_HASHED = 8_192
_WORDINGS = 32_768
_LEVELS = 3

ItemColumns = dict[str, Tensor]
"""The ids of every item by feature, [N, W] each, indexed like the vocabulary; 0 pads. Row OOV
describes an item of which nothing is known."""


def hashed(word: str | None) -> int:
    """A bucket 1.._HASHED-1 of `word`, 0 for none."""
    return 1 + key_of(word) % (_HASHED - 1) if word else 0


def wording(text: str | None) -> int:
    """A bucket 1.._WORDINGS-1 of the whole text, 0 for none."""
    return 1 + key_of(text) % (_WORDINGS - 1) if text else 0


def price_bucket(minor_units: int | None) -> int:
    """1 + floor(1.2 log2(1 + price)) up to PRICE_BUCKETS - 1; 0 when not priced."""
    if not minor_units:
        return 0
    return min(PRICE_BUCKETS - 1, 1 + int(1.2 * np.log2(1 + minor_units)))


def _path(path: Sequence[str] | None) -> list[int]:
    """A bucket for every level, which stands for the whole path down to it."""
    levels = list(path or [])[:_LEVELS]
    return [hashed("/".join(levels[: depth + 1])) for depth in range(len(levels))]


def _one(code: Callable[[Any], int]) -> Callable[[Any], list[int]]:
    return lambda value: [code(value)]


@dataclass(frozen=True)
class ItemFeature:
    """One thing that describes an item, and the table that it is looked up in.

    `read` turns a value of the catalogue's `column` into at most `width` ids, all below
    `num_embeddings`; 0 is left out of the bag. Without a column the id is the item's vocabulary
    index, and the table has a row for each. `also` names further features that are looked up in
    the same table.
    """

    name: str
    pooling: PoolingType
    width: int = 1
    column: str | None = None
    num_embeddings: int | None = None
    read: Callable[[Any], Sequence[int]] | None = None
    also: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The name of its table."""
        return f"{self.name}_table"

    @property
    def feature_names(self) -> list[str]:
        """Everything that is looked up in its table."""
        return [self.name, *self.also]


ITEM_ID = "item_id"
ITEM_FEATURES = (
    ItemFeature(ITEM_ID, PoolingType.SUM),
    ItemFeature("brand", PoolingType.SUM, 1, "brand", _HASHED, _one(hashed)),
    ItemFeature("category", PoolingType.SUM, _LEVELS, "category_path", _HASHED, _path),
    ItemFeature(
        "text",
        PoolingType.MEAN,
        TEXT_TOKENS,
        "text",
        NUM_TOKENS,
        lambda text: token_numbers(text or "", TEXT_TOKENS),
        also=(SEARCH,),
    ),
    # The text as a whole: products that differ in nothing that is said of them.
    ItemFeature("wording", PoolingType.SUM, 1, "text", _WORDINGS, _one(wording)),
    ItemFeature("price", PoolingType.SUM, 1, "price", PRICE_BUCKETS, _one(price_bucket)),
)
# What the words of a search are looked up in: the feature whose table they share.
SEARCHED = next(feature for feature in ITEM_FEATURES if SEARCH in feature.also)


def item_columns(catalogue: pa.Table, vocabulary: Vocabulary) -> ItemColumns:
    """The columns of the vocabulary's items; an item absent from `catalogue` is described by 0."""
    place = {item_id: row for row, item_id in enumerate(catalogue["item_id"].to_pylist())}
    rows = [place.get(item_id) for item_id in vocabulary.item_ids]
    columns = {}
    for feature in ITEM_FEATURES:
        ids = np.zeros((len(vocabulary), feature.width), np.int64)
        if feature.column is None or feature.read is None:
            ids[:, 0] = np.arange(len(vocabulary))
        else:
            values = catalogue[feature.column].to_pylist()
            for index, row in enumerate(rows, start=FIRST_ITEM):
                if row is not None:
                    read = feature.read(values[row])
                    ids[index, : len(read)] = read
        columns[feature.name] = torch.from_numpy(ids)
    return columns


def tables(num_items: int, width: int) -> EmbeddingBagCollection:
    """The tables of `ITEM_FEATURES` for a vocabulary of `num_items` indices."""
    return EmbeddingBagCollection(
        device=torch.device("cpu"),
        tables=[
            EmbeddingBagConfig(
                name=feature.table,
                embedding_dim=width,
                num_embeddings=feature.num_embeddings or num_items,
                feature_names=feature.feature_names,
                pooling=feature.pooling,
            )
            for feature in ITEM_FEATURES
        ],
    )


def bags(item_U: Tensor, columns: ItemColumns, drop_U: Tensor | None = None) -> dict[str, Tensor]:
    """The ids [U, W] of `item_U` by feature; where `drop_U` holds, the item's own id is replaced by
    OOV, so that content alone must do."""
    found = {feature.name: columns[feature.name][item_U] for feature in ITEM_FEATURES}
    if drop_U is not None:
        for feature in ITEM_FEATURES:
            if feature.column is None:
                found[feature.name] = torch.where(drop_U[:, None], OOV, found[feature.name])
    return found


def jagged(items: Mapping[str, Tensor], search_QT: Tensor) -> KeyedJaggedTensor:
    """One look-up for items and searches together: row i < U is item i, row U + q is search q.

    One, because tables that are spread over processes exchange ids and gradients per look-up. An
    item has no search and a search no item: those bags are empty. 0 is left out of every bag.
    """
    names = [name for feature in ITEM_FEATURES for name in feature.feature_names]
    num_items, num_searches = len(next(iter(items.values()))), len(search_QT)
    values, lengths = [], []
    for name in names:
        ids, before, after = (
            (search_QT, num_items, 0) if name == SEARCH else (items[name], 0, num_searches)
        )
        kept = ids > 0
        values.append(ids[kept])
        lengths.append(functional.pad(kept.sum(dim=1), (before, after)))
    return KeyedJaggedTensor(keys=names, values=torch.cat(values), lengths=torch.cat(lengths).int())


def gathered(feature: ItemFeature, weight: Tensor, ids_BW: Tensor) -> Tensor:
    """What `feature`'s table with `weight` [rows, D] answers for `ids_BW`, by plain tensor
    operations that every exporter knows; [B, D]."""
    kept_BW1 = (ids_BW > 0).to(weight.dtype)[..., None]
    summed_BD = (functional.embedding(ids_BW, weight) * kept_BW1).sum(dim=1)
    if feature.pooling is PoolingType.SUM:
        return summed_BD
    return summed_BD / kept_BW1.sum(dim=1).clamp(min=1.0)
