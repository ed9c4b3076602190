"""How well a candidate goes with the cart and with the shopper's staples, from the frozen table of
items bought together."""

import numpy as np
import numpy.typing as npt

from contract.compiled import (
    FLOAT,
    FLOATS,
    FLOATS_2D,
    INT,
    INTS,
    INTS32,
    INTS32_2D,
    INTS_2D,
    KEYS,
    compiled,
)
from contract.items import CategoryLift, Floats, Indices, ItemNeighbours

STAPLES = 60  # how many of the shopper's strongest items are looked up
CART_FIT = ("cart_nearest", "cart_second", "cart_chance", "cart_best_chance", "cart_lift")
_MOST_CERTAIN = 0.95
Places = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]


def similarity_matrix(neighbours: ItemNeighbours, index: Indices, cart: Indices) -> Floats:
    """The cosine of each of `cart` [K] to each candidate `index` [C] (distinct), [K, C]; 0 where
    the candidate is not among the cart item's neighbours."""
    matrix: Floats = _similarity(neighbours.neighbours, neighbours.similarity, index, cart)
    return matrix


@compiled(INTS32_2D, FLOATS_2D, INTS, INT)
def strongest_of(neighbours: Indices, similarity: Floats, cart: Indices, item: int) -> int:
    """Which place of `cart` [K >= 1] has the highest cosine to `item`, by the columns of
    ItemNeighbours; the first of equal ones."""
    best, most = 0, np.float32(0)
    for row in range(len(cart)):
        for k in range(neighbours.shape[1]):
            if neighbours[cart[row], k] == item and similarity[cart[row], k] > most:
                best, most = row, similarity[cart[row], k]
    return best


@compiled(INTS, INT)
def _places_of(index: Indices, items: int) -> tuple[Words, Places, Places]:
    """Distinct ones of `items` items: a bit for each of them, and their places as a table of at
    least twice the room, a power of two. Most neighbours are no candidates, so most questions end
    at a bit."""
    room = 16
    while room < 2 * len(index):
        room *= 2
    among = np.zeros((items >> 6) + 1, np.uint64)
    keys, places = np.full(room, -1, np.int32), np.empty(room, np.int32)
    for place in range(len(index)):
        item = index[place]
        among[item >> 6] |= np.uint64(1) << np.uint64(item & 63)
        slot = (item * 0x9E3779B1) & (room - 1)
        while keys[slot] != -1:
            slot = (slot + 1) & (room - 1)
        keys[slot], places[slot] = item, place
    return among, keys, places


@compiled(KEYS, INTS32, INTS32, INT)
def _place_of(among: Words, keys: Places, places: Places, item: int) -> int:
    """The place of `item`, -1 where it has none."""
    if not among[item >> 6] >> np.uint64(item & 63) & np.uint64(1):
        return -1
    slot = (item * 0x9E3779B1) & (len(keys) - 1)
    while keys[slot] != item:
        slot = (slot + 1) & (len(keys) - 1)
    return int(places[slot])


@compiled(INTS32_2D, FLOATS_2D, INTS, INTS)
def _similarity(neighbours: Indices, similarity: Floats, index: Indices, cart: Indices) -> Floats:
    matrix = np.zeros((len(cart), len(index)), np.float32)
    among, keys, places = _places_of(index, len(neighbours))
    for row in range(len(cart)):
        near, alike = neighbours[cart[row]], similarity[cart[row]]
        for k in range(len(near)):
            candidate = _place_of(among, keys, places, near[k])
            if candidate >= 0 and alike[k] > 0:
                matrix[row, candidate] = alike[k]
    return matrix


def cart_fit(
    similarity: Floats, popularity: Floats, cart_popularity: Floats, baskets: float
) -> Floats:
    """`CART_FIT` of each candidate, [len(CART_FIT), C], all zero without a cart.

    `similarity` [K, C] cosines, `popularity` [C] and `cart_popularity` [K] baskets with each item,
    `baskets` all of them. The two highest cosines; with p the share of the cart item's baskets that
    held the candidate, -sum(log(1 - p)) and the highest p; the mean log1p of how many times more
    often than by chance the two share a basket.
    """
    found: Floats = _cart_fit(similarity, popularity, cart_popularity, baskets)
    return found


@compiled(FLOATS_2D, FLOATS, FLOATS, FLOAT)
def _cart_fit(
    similarity: Floats, popularity: Floats, cart_popularity: Floats, baskets: float
) -> Floats:
    size, count = similarity.shape
    found = np.zeros((5, count), np.float32)
    for row in range(size):
        cart_root = np.sqrt(max(cart_popularity[row], np.float32(1)))
        for candidate in range(count):
            cosine = similarity[row, candidate]
            if not cosine > 0:  # then it adds nothing to any of them
                continue
            root = np.sqrt(max(popularity[candidate], np.float32(1)))
            chance = min(cosine * root / cart_root, np.float32(_MOST_CERTAIN))
            if cosine > found[0, candidate]:
                found[1, candidate] = found[0, candidate]
                found[0, candidate] = cosine
            elif cosine > found[1, candidate]:
                found[1, candidate] = cosine
            found[2, candidate] -= np.log1p(-chance)
            found[3, candidate] = max(found[3, candidate], chance)
            found[4, candidate] += np.log1p(cosine / (root * cart_root) * baskets) / size
    return found


def staples_similarity(
    neighbours: ItemNeighbours, index: Indices, staples: Indices, weight: Floats
) -> Floats:
    """The similarity of each candidate to the shopper's `staples`, each counted by log1p of its
    `weight`, summed; [C]."""
    found: Floats = _staples_similarity(
        neighbours.neighbours, neighbours.similarity, index, staples, weight
    )
    return found


@compiled(INTS32_2D, FLOATS_2D, INTS, INTS, FLOATS)
def _staples_similarity(
    neighbours: Indices, similarity: Floats, index: Indices, staples: Indices, weight: Floats
) -> Floats:
    found = np.zeros(len(index), np.float32)
    among, keys, places = _places_of(index, len(neighbours))
    for row in range(len(staples)):
        near, alike = neighbours[staples[row]], similarity[staples[row]]
        counts = np.log1p(weight[row])
        for k in range(len(near)):
            candidate = _place_of(among, keys, places, near[k])
            if candidate >= 0:  # an unused place has no similarity, so it adds nothing
                found[candidate] += alike[k] * counts
    return found


def category_fit(lift: CategoryLift, index: Indices, cart: Indices) -> Floats:
    """Mean and highest log lift of each candidate's category with those of the cart, [2, C]."""
    found: Floats = _category_fit(lift.group, lift.log_lift, index, cart)
    return found


@compiled(INTS32, FLOATS_2D, INTS, INTS)
def _category_fit(group: Indices, log_lift: Floats, index: Indices, cart: Indices) -> Floats:
    found = np.zeros((2, len(index)), np.float32)
    if not len(cart):
        return found
    total, most = np.zeros(len(index)), np.full(len(index), -np.inf, np.float32)
    own = group[index]
    for item in cart:  # a row of the table for each, which the cache holds: it is symmetric
        lifts = log_lift[group[item]]
        for candidate in range(len(index)):
            total[candidate] += lifts[own[candidate]]
            most[candidate] = max(most[candidate], lifts[own[candidate]])
    for candidate in range(len(index)):
        found[0, candidate] = total[candidate] / len(cart)
        found[1, candidate] = most[candidate]
    return found


def times_in(categories: Indices, index: Indices, cart: Indices, level: int) -> Floats:
    """How many of `cart` are of each candidate's category on `level` of `categories` [N, levels],
    [C]; 0 for a candidate without one."""
    found: Floats = _times_in(categories[index], categories[cart], level % categories.shape[1])
    return found


@compiled(INTS_2D, INTS_2D, INT)
def _times_in(own: Indices, cart: Indices, level: int) -> Floats:
    found = np.zeros(len(own), np.float32)
    for candidate in range(len(own)):
        for row in range(len(cart)):
            if own[candidate, level] > 0 and cart[row, level] == own[candidate, level]:
                found[candidate] += 1
    return found


@compiled(
    *(INTS32_2D, FLOATS_2D, FLOAT, INTS, INTS, INTS, FLOATS, FLOATS, FLOATS),
    *(INTS32, FLOATS_2D, INTS32, FLOATS_2D, INTS_2D, INTS_2D),
)
def beside(
    neighbours: Indices,
    similarity: Floats,
    all_baskets: float,
    index: Indices,
    cart: Indices,
    staples: Indices,
    weight: Floats,
    baskets: Floats,
    cart_baskets: Floats,
    narrow: Indices,
    narrow_lift: Floats,
    wide: Indices,
    wide_lift: Floats,
    levels: Indices,
    cart_levels: Indices,
) -> Floats:
    """All of the above for the candidates `index` [C], each row what one of these functions gives:
    `staples_similarity`, `CART_FIT`, `category_fit` on the narrow and on the wide level, `times_in`
    for each level; [6 + 4 + L, C]. `baskets` [C] and `cart_baskets` [K] held each candidate and
    each of `cart`; `levels` [C, L] and `cart_levels` [K, L] are their categories."""
    found = np.empty((10 + levels.shape[1], len(index)), np.float32)
    found[0] = _staples_similarity(neighbours, similarity, index, staples, weight)
    shared = _similarity(neighbours, similarity, index, cart)
    found[1:6] = _cart_fit(shared, baskets, cart_baskets, all_baskets)
    found[6:8] = _category_fit(narrow, narrow_lift, index, cart)
    found[8:10] = _category_fit(wide, wide_lift, index, cart)
    for level in range(levels.shape[1]):
        found[10 + level] = _times_in(levels, cart_levels, level)
    return found
