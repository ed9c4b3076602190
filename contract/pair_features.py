"""What the ranker is told about each pair of subject and item. The same arrays are computed in
training, in evaluation and at a live checkout."""

import numpy as np
from numba.core import types

from contract.candidates import Evidence
from contract.cart_fit import CART_FIT, STAPLES, Places, beside
from contract.compiled import (
    FLOAT,
    FLOATS,
    FLOATS_2D,
    INT,
    INTS,
    INTS32,
    INTS32_2D,
    compiled,
    written,
)
from contract.items import LEVELS, Floats, Indices, ItemTable
from contract.own_baskets import (
    COMPANIONS,
    HABITS,
    companions,
    habits,
    habits_at,
    recency_weight,
)

PAIR_FEATURES_VERSION = 2
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
    *(f"{level}_{name}" for level in LEVELS for name in HABITS),
    "staples_similarity",
    *CART_FIT,
    *(f"{level}_lift{which}" for level in LEVELS for which in ("", "_max")),
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
    What is said of the cart's company (`_CART`) is said of `evidence.intent`: what was looked at
    just now counts as the cart does.
    """
    own, near, knn = evidence.purchased, evidence.near, evidence.knn
    neighbours, together = evidence.neighbours, own.together
    narrow, wide = neighbours.narrow, neighbours.wide
    query, sequence = evidence.query_vector, evidence.sequence_vector
    found: Floats = _features(
        *(index, _COLUMNS, evidence.cart, evidence.intent),
        *(evidence.subject_known, evidence.days_since_visit),
        *(own.index, own.by_weight, own.columns, evidence.subject_baskets),
        *(together.basket, together.item, together.count),
        *(near.index, near.value, knn.index, knn.value),
        *(neighbours.neighbours, neighbours.similarity, neighbours.baskets, STAPLES),
        *(narrow.group, narrow.log_lift, wide.group, wide.log_lift),
        *(table.for_ranking, len(LEVELS), item_vectors),
        _SILENT if query is None else query,
        _SILENT if sequence is None else sequence,
    )
    return found


def _rows(*names: str) -> Indices:
    return np.array([PAIR_FEATURES.index(name) for name in names], np.int64)


_OWN = _rows(
    *("baskets", "basket_share", "weight_60d", "weight_14d", "weight_rank", "days_since_bought"),
    *("due_ratio", "own_gap_days", "in_last_basket", "price_against_own", *COMPANIONS),
)


# Columns of ItemTable.for_ranking: so many are features, and where the others stand.
_TOLD, _PRICE, _BASKETS, _GAP, _LEVELS = 9, 6, 9, 10, 11


@compiled(FLOATS_2D, INTS)
def _baskets_of(of_items: Floats, index: Indices) -> Floats:
    found = np.empty(len(index), np.float32)
    for place in range(len(index)):
        found[place] = of_items[index[place], _BASKETS]
    return found


@compiled(FLOATS_2D, INTS, INT)
def _levels_of(of_items: Floats, index: Indices, levels: int) -> Indices:
    found = np.empty((len(index), levels), np.int64)
    for place in range(len(index)):
        for level in range(levels):
            found[place, level] = np.int64(of_items[index[place], _LEVELS + level])
    return found


@compiled(INTS, INT, INT)
def _reached(ascending: Indices, start: int, item: int) -> int:
    """The first place whose number is `item` or above, looked for from `start` on: candidates
    ascend, so that one walk finds all of them."""
    place = start
    if place > 0 and ascending[place - 1] >= item:  # they do not have to
        place = 0
    while place < len(ascending) and ascending[place] < item:
        place += 1
    return place


@compiled(INTS, INTS, INTS, FLOATS_2D, FLOATS_2D, FLOATS, FLOATS_2D, FLOAT)
def _of_purchases(
    index: Indices,
    own_index: Indices,
    by_weight: Indices,
    purchased: Floats,
    beside: Floats,
    weight: Floats,
    of_items: Floats,
    subject_baskets: float,
) -> Floats:
    """`_OWN` of each candidate, and its recency weight last; an empty history says nothing."""
    baskets, weight_60d, weight_14d = purchased[0], purchased[1], purchased[2]
    days_since, gap_days, in_last = purchased[3], purchased[5], purchased[6]
    count = len(own_index)
    found = np.zeros((11 + len(beside), len(index)), np.float32)
    found[5] = 7.0  # NEVER, which the cache of compiled code would not see change
    rank = np.empty(count)
    for place in range(count):
        rank[by_weight[place]] = 1.0 / (place + 1)
    weighed, total = 0.0, 0.0
    for place in range(count):
        level = of_items[own_index[place], _PRICE]
        if level > 0:
            weighed += level * weight_60d[place]
            total += weight_60d[place]
    place = 0
    for candidate in range(len(index)):
        item = index[candidate]
        level = of_items[item, _PRICE]
        if total > 0 and level > 0:
            found[9, candidate] = level - weighed / total
        place = _reached(own_index, place, item)
        if place == count or own_index[place] != item:
            continue
        days, gap = days_since[place], gap_days[place]
        usual = gap if gap > 0 else of_items[item, _GAP]
        found[0, candidate] = np.log1p(baskets[place])
        found[1, candidate] = baskets[place] / max(subject_baskets, 1.0)
        found[2, candidate] = np.log1p(weight_60d[place])
        found[3, candidate] = np.log1p(weight_14d[place])
        found[4, candidate] = rank[place]
        found[5, candidate] = np.log1p(days)
        if usual > 0:
            found[6, candidate] = min(days / max(usual, np.float32(1)), 5.0)  # MOST_OVERDUE
        found[7, candidate] = np.log1p(gap)
        found[8, candidate] = in_last[place]
        for row in range(len(beside)):
            found[10 + row, candidate] = beside[row, place]
        found[10 + len(beside), candidate] = weight[place]
    return found


_HABITS = _rows(
    *(f"{level}_{name}" for name in HABITS for level in LEVELS),
    *("category_weight", "wide_category_weight"),
)


_CART = _rows(
    *("cart_similarity", "cart_similarity_mean", "session_knn", "staples_similarity", *CART_FIT),
    *(f"{level}_lift{which}" for level in LEVELS for which in ("", "_max")),
    *("category_in_cart", "wide_category_in_cart"),
)


_ITEM = _rows(
    *("popularity", "recent_popularity", "weekly_popularity", "trend", "repeat_rate"),
    *("item_gap_days", "price", "buyers", "baskets_per_buyer"),
)
_TOWERS = _rows("query_tower", "sequence")


_SILENT = np.empty(0, np.float32)  # in place of the vector of a tower that did not answer


@compiled(FLOATS_2D, INTS, FLOATS, any_order=True)
def _products(vectors: Floats, index: Indices, query: Floats) -> Floats:
    """The inner product of each of `index` with `query`; zero where that is `_SILENT`."""
    found = np.zeros(len(index), np.float32)
    for candidate in range(len(index)):
        own, total = vectors[index[candidate]], np.float32(0)
        for dimension in range(len(query)):
            total += own[dimension] * query[dimension]
        found[candidate] = total
    return found


@compiled(FLOATS)
def _standardised(product: Floats) -> Floats:
    """Over this checkout's candidates: the ranker then does not depend on the scale of a space
    that is learned anew with every release."""
    total, squared = 0.0, 0.0
    for one in product:
        total += one
    mean = np.float32(total / max(len(product), 1))
    for one in product:
        squared += (one - mean) ** 2
    deviation = np.float32(np.sqrt(squared / max(len(product), 1)))
    return (product - mean) / (deviation + np.float32(1e-6))


_SUBJECT = _rows("subject_known", "subject_baskets", "days_since_visit", "cart_size")


# Where each row of `_together` stands among the features.
_COLUMNS = np.concatenate((_ITEM, _OWN, _HABITS, _CART, _TOWERS, _SUBJECT))


@compiled(INTS, FLOATS, INTS)
def _looked_up(ascending: Indices, value: Floats, index: Indices) -> Floats:
    """The value of each of `index`, 0 where it has none."""
    found, place = np.zeros(len(index), np.float32), 0
    for candidate in range(len(index)):
        place = _reached(ascending, place, index[candidate])
        if place < len(ascending) and ascending[place] == index[candidate]:
            found[candidate] = value[place]
    return found


@compiled(written(types.float32, 2), INT, FLOATS)
def _put(found: Floats, column: int, told: Floats) -> None:
    for candidate in range(len(told)):
        found[candidate, column] = told[candidate]


@compiled(
    *(INTS, INTS, FLOATS_2D, FLOATS_2D, FLOATS_2D, INTS, FLOATS, INTS, FLOATS, INT),
    *(FLOATS_2D, FLOATS, FLOATS, FLOATS),
)
def _together(
    index: Indices,
    columns: Indices,
    of_items: Floats,
    own: Floats,
    habit: Floats,
    near_index: Indices,
    near_value: Floats,
    knn_index: Indices,
    knn_value: Floats,
    cart_size: int,
    fit: Floats,
    query: Floats,
    sequence: Floats,
    subject: Floats,
) -> Floats:
    """[C, len(PAIR_FEATURES)]; `own` without its last row."""
    count = len(index)
    found = np.empty((count, len(columns)), np.float32)
    at, last, counted = _TOLD, len(habit) - 2, len(fit) - 2
    for column in range(_TOLD):
        for candidate in range(count):
            found[candidate, columns[column]] = of_items[index[candidate], column]
    for row in range(len(own) - 1):
        _put(found, columns[at], own[row])
        at += 1
    for row in range(len(habit)):
        _put(found, columns[at], habit[row] if row < last else np.log1p(habit[row]))
        at += 1
    _put(found, columns[at], _looked_up(near_index, near_value, index))
    _put(found, columns[at + 1], found[:, columns[at]] / np.float32(max(cart_size, 1)))
    _put(found, columns[at + 2], np.log1p(_looked_up(knn_index, knn_value, index)))
    at += 3
    for row in range(len(fit)):
        _put(found, columns[at], fit[row] if row < counted else np.log1p(fit[row]))
        at += 1
    _put(found, columns[at], _standardised(query))
    _put(found, columns[at + 1], _standardised(sequence))
    for row in range(len(subject)):
        found[:, columns[at + 2 + row]] = subject[row]
    return found


@compiled(INTS, INTS)
def _in_cart(own: Indices, cart: Indices) -> Floats:
    """1 for those of `own`, ascending, that stand in `cart`."""
    found = np.zeros(len(own), np.float32)
    for item in cart:
        place = np.searchsorted(own, item)
        if place < len(own) and own[place] == item:
            found[place] = 1.0
    return found


@compiled(
    *(INTS, INTS, INTS, INTS, types.boolean, FLOAT),
    *(INTS, INTS, FLOATS_2D, FLOAT, INTS, INTS, INT),
    *(INTS, FLOATS, INTS, FLOATS),
    *(INTS32_2D, FLOATS_2D, FLOAT, INT, INTS32, FLOATS_2D, INTS32, FLOATS_2D),
    *(FLOATS_2D, INT, FLOATS_2D, FLOATS, FLOATS),
)
def _features(
    index: Indices,
    columns: Indices,
    cart: Indices,
    intent: Indices,
    subject_known: bool,
    days_since_visit: float,
    own_index: Indices,
    by_weight: Indices,
    purchased: Floats,
    subject_baskets: float,
    basket: Indices,
    line_item: Indices,
    count: int,
    near_index: Indices,
    near_value: Floats,
    knn_index: Indices,
    knn_value: Floats,
    neighbours: Places,
    similarity: Floats,
    all_baskets: float,
    staples: int,
    narrow: Places,
    narrow_lift: Floats,
    wide: Places,
    wide_lift: Floats,
    of_items: Floats,
    num_levels: int,
    vectors: Floats,
    query: Floats,
    sequence: Floats,
) -> Floats:
    """One call for all of it: to hand an array over takes longer than many a loop over it."""
    weight = recency_weight(basket, line_item, len(own_index))
    shared = companions(
        basket, line_item, count, _in_cart(own_index, cart), len(cart), purchased[0]
    )
    own = _of_purchases(
        *(index, own_index, by_weight, purchased, shared, weight),
        *(of_items, subject_baskets),
    )
    levels = _levels_of(of_items, index, num_levels)
    group, usual = habits(
        *(basket, line_item, count, _levels_of(of_items, own_index, num_levels)),
        *(purchased[1], weight, purchased[3], purchased[4]),
    )
    habit = habits_at(group, usual, levels, own[-1])
    strongest = by_weight[:staples]
    fit = beside(
        *(neighbours, similarity, all_baskets, index, intent),
        *(own_index[strongest], purchased[1][strongest]),
        *(_baskets_of(of_items, index), _baskets_of(of_items, intent)),
        *(narrow, narrow_lift, wide, wide_lift),
        *(levels, _levels_of(of_items, intent, num_levels)),
    )
    subject = np.empty(4, np.float32)
    subject[0], subject[1] = subject_known, np.log1p(subject_baskets)
    subject[2], subject[3] = np.log1p(max(days_since_visit, 0.0)), np.log1p(len(cart))
    return _together(
        *(index, columns, of_items, own, habit.reshape(-1, len(index))),
        *(near_index, near_value, knn_index, knn_value, len(intent)),
        *(fit, _products(vectors, index, query), _products(vectors, index, sequence), subject),
    )
