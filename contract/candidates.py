"""From several sources to one list of candidates, and what the ranker is told about each pair of
subject and item. The same arrays are computed in training, in evaluation and at a live checkout."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from contract.encoding import FIRST_ITEM, Situation, Vocabulary
from contract.items import NOTHING, Floats, Indices, ItemNeighbours, ItemTable, Sparse
from contract.session_knn import SessionKnn

MAX_CANDIDATES = 256
# How many candidates each source may bring, in the order of trust when the list is cut.
QUOTAS: dict[str, int] = {
    "personal": 100,
    "neighbours": 60,
    "session_knn": 40,
    "query_tower": 60,
    "sequence": 60,
    "popular": 40,
}
PAIR_FEATURES_VERSION = 1
PAIR_FEATURES: tuple[str, ...] = (
    "baskets",
    "basket_share",
    "weight_60d",
    "weight_14d",
    "weight_rank",
    "days_since_bought",
    "due_ratio",
    "own_gap_days",
    "in_last_basket",
    "category_weight",
    "wide_category_weight",
    "cart_similarity",
    "cart_similarity_mean",
    "session_knn",
    "category_in_cart",
    "wide_category_in_cart",
    "popularity",
    "recent_popularity",
    "trend",
    "repeat_rate",
    "item_gap_days",
    "price",
    "query_tower",
    "sequence",
    "subject_known",
    "subject_baskets",
    "days_since_visit",
    "cart_size",
)
# What can be counted without any model: the inputs of the LightGBM baseline.
COUNTING_FEATURES: tuple[str, ...] = tuple(
    name for name in PAIR_FEATURES if name not in {"query_tower", "sequence"}
)


@dataclass(frozen=True)
class Purchased:
    """The subject's purchases in the release's vocabulary, index ascending; [P] each."""

    index: Indices
    baskets: Floats
    weight_60d: Floats
    weight_14d: Floats
    days_since: Floats
    gap_days: Floats  # 0 when bought once
    in_last: Floats


@dataclass(frozen=True)
class Candidates:
    """The merged list: `index` [C] distinct, and which source brought each one, [C, sources]."""

    index: Indices
    brought: npt.NDArray[np.bool_]


def purchased(situation: Situation, vocabulary: Vocabulary) -> Purchased:
    """The purchases that the vocabulary knows."""
    rows = situation.view.purchased
    index = vocabulary.of_keys(rows["item_key"])
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= FIRST_ITEM]
    rows, index = rows[order], index[order]
    span_days = ((rows["last_us"] - rows["first_us"]) / DAY_US).astype(np.float32)
    gap = np.where(rows["baskets"] > 1, span_days / np.maximum(rows["baskets"] - 1, 1), 0.0)
    return Purchased(
        index,
        rows["baskets"],
        rows["weight_60d"],
        rows["weight_14d"],
        np.maximum((situation.now_us - rows["last_us"]) / DAY_US, 0.0).astype(np.float32),
        gap.astype(np.float32),
        rows["in_last_basket"].astype(np.float32),
    )


def knn_scores(knn: SessionKnn, cart: Indices) -> Sparse:
    """VMIS-kNN scores of what goes with the cart; the cart's own items are left out."""
    index, value = knn.score(cart, drop=cart)
    return Sparse.of(index, value)


def merge(
    sources: Mapping[str, Indices], exclude: Indices, limit: int = MAX_CANDIDATES
) -> Candidates:
    """One list from each source's best-first indices.

    Every source is cut to its quota. When the union is still too long, the items whose best place
    in any source is lowest go first. `exclude`d, PAD and OOV never appear.
    """
    names = tuple(QUOTAS)
    brought_by = [sources.get(name, _EMPTY) for name in names]
    # What may not be recommended takes nobody's place.
    allowed = [items[(items >= FIRST_ITEM) & ~np.isin(items, exclude)] for items in brought_by]
    ranked = [items[: QUOTAS[name]] for name, items in zip(names, allowed, strict=True)]
    every = np.concatenate(ranked)
    place = np.concatenate([np.arange(len(indices)) for indices in ranked])
    source = np.repeat(np.arange(len(names)), [len(indices) for indices in ranked])
    index, inverse = np.unique(every, return_inverse=True)
    brought = np.zeros((len(index), len(names)), bool)
    brought[inverse, source] = True
    if len(index) > limit:
        best = np.full(len(index), np.iinfo(np.int64).max)
        np.minimum.at(best, inverse, place * len(names) + source)
        chosen = np.sort(np.argpartition(best, limit)[:limit])
        index, brought = index[chosen], brought[chosen]
    return Candidates(index, brought)


_EMPTY: Indices = np.empty(0, np.int64)


@dataclass(frozen=True)
class Evidence:
    """Everything about one checkout that pair features are made of."""

    purchased: Purchased
    cart: Indices  # known items only
    near: Sparse  # item-kNN on the cart
    knn: Sparse  # VMIS-kNN on the cart
    query_vector: Floats | None  # [d] of the query tower
    sequence_vector: Floats | None  # [d] of the sequence encoder
    subject_known: bool
    subject_baskets: float
    days_since_visit: float


def gather(
    situation: Situation,
    vocabulary: Vocabulary,
    neighbours: ItemNeighbours,
    knn: SessionKnn | None,
    *,
    query_vector: Floats | None = None,
    sequence_vector: Floats | None = None,
) -> Evidence:
    """The evidence of one checkout; absent models or tables leave their part empty."""
    cart = vocabulary.indices(situation.cart)
    cart = cart[cart >= FIRST_ITEM]
    rhythm = situation.view.rhythm
    return Evidence(
        purchased(situation, vocabulary),
        cart,
        neighbours.score(cart) if len(cart) else NOTHING,
        knn_scores(knn, cart) if knn is not None and len(cart) else NOTHING,
        query_vector,
        sequence_vector,
        bool(len(situation.view.purchased)),
        float(rhythm[0]),
        float(rhythm[1]),
    )


def sources_of(evidence: Evidence, popular: Indices) -> dict[str, Indices]:
    """The best-first candidates of the sources that need no model."""
    own = evidence.purchased
    # Room for the cart's own items, which `merge` takes out before it counts.
    quota = {name: limit + len(evidence.cart) for name, limit in QUOTAS.items()}
    return {
        "personal": own.index[np.argsort(-own.weight_60d, kind="stable")[: quota["personal"]]],
        "neighbours": evidence.near.best(quota["neighbours"]),
        "session_knn": evidence.knn.best(quota["session_knn"]),
        "popular": popular[: quota["popular"]],
    }


def pair_features(
    evidence: Evidence, index: Indices, table: ItemTable, item_vectors: Floats
) -> Floats:
    """What the ranker sees: [C, len(PAIR_FEATURES)] float32 for the items `index` [C].

    `item_vectors` [N, d] lie in the space of the query vectors. Counts and days go through log1p.
    """
    own = evidence.purchased
    place = _place(own.index, index)
    has = place >= 0
    at = np.maximum(place, 0)

    def of_own(column: Floats) -> Floats:
        return (
            np.where(has, column[at], np.float32(0)) if len(column) else np.zeros(len(index), "f4")
        )

    baskets = of_own(own.baskets)
    days, gap = of_own(own.days_since), of_own(own.gap_days)
    item_gap = table.gap_days[index]
    usual_gap = np.where(gap > 0, gap, item_gap)
    due = np.where(has & (usual_gap > 0), days / np.maximum(usual_gap, 1.0), 0.0)
    near = evidence.near.at(index)
    narrow, wide = table.categories[index, -1], table.categories[index, 1]
    cart_narrow = table.categories[evidence.cart, -1]
    cart_wide = table.categories[evidence.cart, 1]
    columns = {
        "baskets": np.log1p(baskets),
        "basket_share": baskets / max(evidence.subject_baskets, 1.0),
        "weight_60d": np.log1p(of_own(own.weight_60d)),
        "weight_14d": np.log1p(of_own(own.weight_14d)),
        "weight_rank": of_own(_inverse_rank(own.weight_60d)),
        "days_since_bought": np.where(has, np.log1p(days), 7.0),
        "due_ratio": np.minimum(due, 5.0),
        "own_gap_days": np.log1p(gap),
        "in_last_basket": of_own(own.in_last),
        "category_weight": np.log1p(_category_weight(own, table, narrow, -1)),
        "wide_category_weight": np.log1p(_category_weight(own, table, wide, 1)),
        "cart_similarity": near,
        "cart_similarity_mean": near / max(len(evidence.cart), 1),
        "session_knn": np.log1p(evidence.knn.at(index)),
        "category_in_cart": np.log1p(_times_in(narrow, cart_narrow)),
        "wide_category_in_cart": np.log1p(_times_in(wide, cart_wide)),
        "popularity": table.popularity[index],
        "recent_popularity": table.recent_popularity[index],
        "trend": table.recent_popularity[index] - table.popularity[index],
        "repeat_rate": table.repeat_rate[index],
        "item_gap_days": np.log1p(item_gap),
        "price": table.price_level[index],
        "query_tower": _inner(item_vectors, index, evidence.query_vector),
        "sequence": _inner(item_vectors, index, evidence.sequence_vector),
        "subject_known": float(evidence.subject_known),
        "subject_baskets": np.log1p(evidence.subject_baskets),
        "days_since_visit": np.log1p(max(evidence.days_since_visit, 0.0)),
        "cart_size": np.log1p(len(evidence.cart)),
    }
    matrix = np.empty((len(index), len(PAIR_FEATURES)), np.float32)
    for column, name in enumerate(PAIR_FEATURES):
        matrix[:, column] = columns[name]
    return matrix


def _place(ascending: Indices, wanted: Indices) -> Indices:
    """Where each of `wanted` stands in `ascending`, -1 where it does not."""
    if not len(ascending):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[place] == wanted, place, -1)


def _inverse_rank(weight: Floats) -> Floats:
    """1 for the strongest, 1/2 for the next, and so on."""
    rank = np.empty(len(weight), np.float32)
    rank[np.argsort(-weight, kind="stable")] = 1.0 / np.arange(1, len(weight) + 1)
    return rank


def _category_weight(own: Purchased, table: ItemTable, wanted: Indices, level: int) -> Floats:
    """The subject's recency-weighted purchases in each wanted category (0 is no category)."""
    if not len(own.index):
        return np.zeros(len(wanted), np.float32)
    held = table.categories[own.index, level]
    return np.where(wanted > 0, Sparse.summed(held, own.weight_60d).at(wanted), np.float32(0))


def _times_in(wanted: Indices, held: Indices) -> Floats:
    ones = np.ones(len(held), np.float32)
    return np.where(wanted > 0, Sparse.summed(held, ones).at(wanted), np.float32(0))


def _inner(vectors: Floats, index: Indices, query: Floats | None) -> Floats:
    """Inner products, standardised over this checkout's candidates: the ranker then does not
    depend on the scale of a space that is learned anew with every release."""
    if query is None or not len(index):
        return np.zeros(len(index), np.float32)
    product = vectors[index] @ query
    scaled: Floats = (product - product.mean()) / (product.std() + np.float32(1e-6))
    return scaled
