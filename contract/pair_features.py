"""What the ranker is told about each pair of subject and item. The same arrays are computed in
training, in evaluation and at a live checkout."""

import numpy as np

from contract.candidates import Evidence, Purchased
from contract.items import Floats, Indices, ItemTable, Sparse

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
