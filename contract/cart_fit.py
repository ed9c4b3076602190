"""How well a candidate goes with the cart and with the shopper's staples, from the frozen table of
items bought together."""

import numpy as np

from contract.items import CategoryLift, Floats, Indices, ItemNeighbours

STAPLES = 60  # how many of the shopper's strongest items are looked up
CART_FIT = ("cart_nearest", "cart_second", "cart_chance", "cart_best_chance", "cart_lift")
_MOST_CERTAIN = 0.95


def similarity_matrix(neighbours: ItemNeighbours, index: Indices, cart: Indices) -> Floats:
    """The cosine of each of `cart` [K] to each candidate `index` [C] (distinct), [K, C]; 0 where
    the candidate is not among the cart item's neighbours."""
    matrix = np.zeros((len(cart), len(index)), np.float32)
    if not matrix.size:
        return matrix
    near, similarity = neighbours.neighbours[cart], neighbours.similarity[cart]
    order = np.argsort(index, kind="stable")
    candidate = order[np.minimum(np.searchsorted(index[order], near), len(index) - 1)]
    found = (index[candidate] == near) & (similarity > 0)
    matrix[found.nonzero()[0], candidate[found]] = similarity[found]
    return matrix


def cart_fit(
    similarity: Floats, popularity: Floats, cart_popularity: Floats, baskets: float
) -> list[Floats]:
    """`CART_FIT` of each candidate, [C] each, all zero without a cart.

    `similarity` [K, C] cosines, `popularity` [C] and `cart_popularity` [K] baskets with each item,
    `baskets` all of them. The two highest cosines; with p the share of the cart item's baskets that
    held the candidate, -sum(log(1 - p)) and the highest p; the mean log1p of how many times more
    often than by chance the two share a basket.
    """
    size, count = similarity.shape
    if not similarity.size:
        return [np.zeros(count, np.float32)] * len(CART_FIT)
    root = np.sqrt(np.maximum(popularity, 1.0))
    cart_root = np.sqrt(np.maximum(cart_popularity, 1.0))[:, None]
    chance = np.minimum(similarity * (root / cart_root), np.float32(_MOST_CERTAIN))
    lift = similarity / (root * cart_root) * np.float32(baskets)
    nearest = similarity.max(axis=0)
    second = np.partition(similarity, -2, axis=0)[-2] if size > 1 else np.zeros_like(nearest)
    return [
        nearest,
        second,
        -np.log1p(-chance).sum(axis=0),
        chance.max(axis=0),
        np.log1p(lift).mean(axis=0),
    ]


def staples_similarity(
    neighbours: ItemNeighbours, index: Indices, staples: Indices, weight: Floats
) -> Floats:
    """The similarity of each candidate to the shopper's `staples`, each counted by log1p of its
    `weight`, summed; [C]."""
    near = neighbours.neighbours[staples].ravel()
    value = (neighbours.similarity[staples] * np.log1p(weight)[:, None]).ravel()
    summed = np.bincount(near, value, minlength=len(neighbours.neighbours))
    summed[0] = 0.0  # unused places
    return summed[index].astype(np.float32)


def category_fit(lift: CategoryLift, index: Indices, cart: Indices) -> list[Floats]:
    """Mean and highest log lift of each candidate's category with those of the cart, [C] each."""
    if not len(cart) or not len(index):
        return [np.zeros(len(index), np.float32)] * 2
    pairs = lift.log_lift[lift.group[cart][:, None], lift.group[index]].astype(np.float32)
    return [pairs.mean(axis=0), pairs.max(axis=0)]
