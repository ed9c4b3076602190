"""What the ranker is told about each pair of subject and item. The same arrays are computed in
training, in evaluation and at a live checkout."""

import numpy as np

from contract.candidates import Evidence, Purchased
from contract.cart_fit import (
    CART_FIT,
    STAPLES,
    cart_fit,
    category_fit,
    similarity_matrix,
    staples_similarity,
)
from contract.items import Floats, Indices, ItemTable
from contract.own_baskets import COMPANIONS, HABITS, MOST_OVERDUE, NEVER, companions, habits

PAIR_FEATURES_VERSION = 2
# Columns of ItemTable.categories, and the features that sum the purchases of each.
_LEVELS = {"narrow": -1, "wide": 1}
_SUMMED = ("category_weight", "wide_category_weight")
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
    "weekly_popularity",
    "buyers",
    "baskets_per_buyer",
    "price_against_own",
    *COMPANIONS,
    *(f"{level}_{name}" for level in _LEVELS for name in HABITS),
    "staples_similarity",
    *CART_FIT,
    *(f"{level}_lift{which}" for level in _LEVELS for which in ("", "_max")),
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
    columns = _own_columns(own, table, index, evidence)
    columns |= _cart_columns(evidence, table, index) | _item_columns(table, index)
    columns |= {
        "query_tower": _inner(item_vectors, index, evidence.query_vector),
        "sequence": _inner(item_vectors, index, evidence.sequence_vector),
    }
    subject = {
        "subject_known": float(evidence.subject_known),
        "subject_baskets": np.log1p(evidence.subject_baskets),
        "days_since_visit": np.log1p(max(evidence.days_since_visit, 0.0)),
        "cart_size": np.log1p(len(evidence.cart)),
    }
    by_feature = np.empty((len(PAIR_FEATURES), len(index)), np.float32)
    for row, name in zip(by_feature, PAIR_FEATURES, strict=True):
        row[:] = columns[name] if name in columns else subject[name]
    return np.ascontiguousarray(by_feature.T)


def _item_columns(table: ItemTable, index: Indices) -> dict[str, Floats]:
    popularity, buyers = np.expm1(table.popularity[index]), np.expm1(table.buyers[index])
    return {
        "popularity": table.popularity[index],
        "recent_popularity": table.recent_popularity[index],
        "weekly_popularity": table.weekly_popularity[index],
        "trend": table.recent_popularity[index] - table.popularity[index],
        "repeat_rate": table.repeat_rate[index],
        "item_gap_days": np.log1p(table.gap_days[index]),
        "price": table.price_level[index],
        "buyers": table.buyers[index],
        "baskets_per_buyer": np.log1p(popularity / np.maximum(buyers, 1.0)),
    }


_OF_OWN = ("baskets", "weight_60d", "weight_14d", "weight_rank", "days", "gap", "in_last_basket")


def _own_columns(
    own: Purchased, table: ItemTable, index: Indices, evidence: Evidence
) -> dict[str, Floats]:
    """What the shopper's own purchases say; an empty history says nothing."""
    place = _place(own.index, index)
    has = place >= 0
    held: tuple[Floats, ...] = (
        own.baskets,
        own.weight_60d,
        own.weight_14d,
        _inverse_rank(own.by_weight),
        own.days_since,
        own.gap_days,
        own.in_last,
    )
    in_cart = np.zeros(len(own.index), np.float32)
    in_cart[(at := _place(own.index, evidence.cart))[at >= 0]] = 1.0
    weight = own.together.recency_weight(len(own.index))
    held += (*companions(own.together, in_cart, len(evidence.cart), own.baskets), weight)
    found = np.zeros((len(held), len(index)), np.float32)
    found[:, has] = np.array(held, np.float32)[:, place[has]]
    columns = dict(zip((*_OF_OWN, *COMPANIONS, "weight"), found, strict=True))
    days, gap, baskets = columns["days"], columns["gap"], columns["baskets"]
    own_visits = np.float32(max(evidence.subject_baskets, 1.0))
    zero = np.float32(0)
    usual_gap = np.where(gap > 0, gap, table.gap_days[index])
    due: Floats = np.where(has & (usual_gap > 0), days / np.maximum(usual_gap, 1.0), zero)
    since: Floats = np.where(has, np.log1p(days), np.float32(NEVER))
    kept = {name: columns[name] for name in (*COMPANIONS, "weight_rank", "in_last_basket")}
    kept |= _category_columns(own, table, index, weight, columns["weight"])
    return kept | {
        "baskets": np.log1p(baskets),
        "basket_share": baskets / own_visits,
        "weight_60d": np.log1p(columns["weight_60d"]),
        "weight_14d": np.log1p(columns["weight_14d"]),
        "days_since_bought": since,
        "due_ratio": np.minimum(due, MOST_OVERDUE),
        "own_gap_days": np.log1p(gap),
        "price_against_own": _price_against_own(own, table, index),
    }


def _category_columns(
    own: Purchased, table: ItemTable, index: Indices, weight: Floats, item_weight: Floats
) -> dict[str, Floats]:
    levels = list(_LEVELS.values())
    usual = habits(
        own.together,
        table.categories[own.index][:, levels],
        own.weight_60d,
        weight,
        own.days_since,
        own.first_days,
    )
    *of_habit, category_weight = usual.at(table.categories[index][:, levels], item_weight)
    columns = dict(zip(_SUMMED, np.log1p(category_weight), strict=True))
    for name, by_level in zip(HABITS, of_habit, strict=True):
        columns |= {f"{level}_{name}": v for level, v in zip(_LEVELS, by_level, strict=True)}
    return columns


def _price_against_own(own: Purchased, table: ItemTable, index: Indices) -> Floats:
    """The log of a candidate's price over the shopper's usual one, 0 where one is not known."""
    bought, price = table.price_level[own.index], table.price_level[index]
    weight = own.weight_60d * (bought > 0)
    total = float(weight.sum())
    if not total > 0:
        return np.zeros(len(index), np.float32)
    usual = np.float32(float(bought @ weight) / total)
    return (price - usual) * (price > 0)


def _cart_columns(evidence: Evidence, table: ItemTable, index: Indices) -> dict[str, Floats]:
    """What the frozen tables say of the candidates beside the cart and the shopper's staples."""
    neighbours, cart, own = evidence.neighbours, evidence.cart, evidence.purchased
    near = evidence.near.at(index)
    strongest = own.by_weight[:STAPLES]
    columns: dict[str, Floats] = {
        "cart_similarity": near,
        "cart_similarity_mean": near / np.float32(max(len(cart), 1)),
        "session_knn": np.log1p(evidence.knn.at(index)),
        "staples_similarity": staples_similarity(
            neighbours, index, own.index[strongest], own.weight_60d[strongest]
        ),
    }
    fit = cart_fit(
        similarity_matrix(neighbours, index, cart),
        np.expm1(table.popularity[index]),
        np.expm1(table.popularity[cart]),
        neighbours.baskets,
    )
    columns |= dict(zip(CART_FIT, fit, strict=True))
    for level, lift in (("narrow", neighbours.narrow), ("wide", neighbours.wide)):
        mean, most = category_fit(lift, index, cart)
        columns |= {f"{level}_lift": mean, f"{level}_lift_max": most}
    narrow, wide = table.categories[index, -1], table.categories[index, 1]
    columns["category_in_cart"] = np.log1p(_times_in(narrow, table.categories[cart, -1]))
    columns["wide_category_in_cart"] = np.log1p(_times_in(wide, table.categories[cart, 1]))
    return columns


def _place(ascending: Indices, wanted: Indices) -> Indices:
    """Where each of `wanted` stands in `ascending`, -1 where it does not."""
    if not len(ascending):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[place] == wanted, place, -1)


def _inverse_rank(best_first: Indices) -> Floats:
    """1 for the strongest, 1/2 for the next, and so on."""
    rank = np.empty(len(best_first), np.float32)
    rank[best_first] = 1.0 / np.arange(1, len(best_first) + 1)
    return rank


def _times_in(wanted: Indices, held: Indices) -> Floats:
    same = (wanted[:, None] == held) & (wanted > 0)[:, None]
    times: Floats = same.sum(axis=1, dtype=np.float32)
    return times


def _inner(vectors: Floats, index: Indices, query: Floats | None) -> Floats:
    """Inner products, standardised over this checkout's candidates: the ranker then does not
    depend on the scale of a space that is learned anew with every release."""
    if query is None or not len(index):
        return np.zeros(len(index), np.float32)
    product = vectors[index] @ query
    scaled: Floats = (product - product.mean()) / (product.std() + np.float32(1e-6))
    return scaled
