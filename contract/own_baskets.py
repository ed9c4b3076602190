"""What a shopper's own baskets say about a candidate: which items share a basket with the cart's,
and when its category is usually bought."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract.compiled import FLOAT, FLOATS, FLOATS_2D, INT, INTS, INTS32, INTS_2D, compiled
from contract.items import Floats, Indices

Groups = npt.NDArray[np.int32]
NEVER = 7.0  # in place of log1p(days) where nothing was bought; log1p of three years
MOST_OVERDUE = 5.0
# What a basket weighs relative to the one after it.
_NEWER, _CATEGORY_NEWER = 0.95, 0.9


@dataclass(frozen=True)
class OwnBaskets:
    """Which of P purchased items stood in which of the shopper's baskets; [L] each."""

    basket: Indices  # 0 is the newest
    item: Indices  # place in the P items
    count: int  # baskets


@compiled(INTS, FLOAT)
def _falling(basket: Indices, newer: float) -> Floats:
    """`newer` to the power of every basket's number: what they weigh, [baskets]."""
    count = 0
    for line in range(len(basket)):
        count = max(count, basket[line] + 1)
    share = np.empty(count, np.float32)
    for number in range(count):
        share[number] = newer**number
    return share


@compiled(INTS, INTS, INT)
def recency_weight(basket: Indices, item: Indices, items: int) -> Floats:
    """Baskets with each item, each weighing `_NEWER` of the one after it, [items]."""
    weight, share = np.zeros(items, np.float32), _falling(basket, _NEWER)
    for line in range(len(basket)):
        weight[item[line]] += share[basket[line]]
    return weight


COMPANIONS = ("own_similar", "own_together", "own_together_rare", "own_lift")


@compiled(INTS, INTS, INT, FLOATS, INT, FLOATS)
def companions(
    basket: Indices, item: Indices, count: int, in_cart: Floats, cart_size: int, baskets: Floats
) -> Floats:
    """`COMPANIONS` of each purchased item, [len(COMPANIONS), P]; all zero without a cart.

    With o_b the number of cart items in the shopper's basket b: the sum of its cosine to the cart
    over the baskets with the item; the item's share of all o_b; the same with every cart item
    counted by one over the baskets it stood in, not divided; and the share relative to the item's
    own share of baskets. `in_cart` [P] is 1 for the cart's items, `baskets` [P] counts each item's.
    """
    found = np.zeros((4, len(baskets)), np.float32)
    shared, rare, size = np.zeros(count), np.zeros(count), np.zeros(count)
    total = 0.0
    for line in range(len(basket)):
        inside = in_cart[item[line]]
        size[basket[line]] += 1.0
        shared[basket[line]] += inside
        rare[basket[line]] += inside / max(baskets[item[line]], np.float32(1))
        total += inside
    if total == 0.0:
        return found
    for line in range(len(basket)):
        at, place = basket[line], item[line]
        found[0, place] += shared[at] / np.sqrt(size[at] * cart_size)
        found[1, place] += shared[at]
        found[2, place] += rare[at]
    for place in range(len(baskets)):
        by_chance = max(baskets[place], np.float32(1)) * total / count + 0.5
        found[3, place] = found[1, place] / by_chance
        found[1, place] /= total
    return found


# weight_60d stands after what is a feature of every level.
HABITS = ("baskets", "days_since", "due_ratio", "weight", "items", "item_share", "item_lead")


@compiled(INTS32, FLOATS_2D, INTS_2D, FLOATS)
def habits_at(group: Groups, columns: Floats, wanted: Indices, item_weight: Floats) -> Floats:
    """`HABITS` and weight_60d out of `habits`, [len(HABITS) + 1, levels, C], for candidates of the
    categories `wanted` [C, levels], 0 where there is none, with recency weights `item_weight` [C].
    """
    count, levels = wanted.shape
    found = np.zeros((len(columns), levels, count), np.float32)
    found[1] = NEVER
    for level in range(levels):
        for candidate in range(count):
            key = wanted[candidate, level] * levels + level
            if key < levels or key >= len(group) or group[key] < 0:
                continue
            for row in range(len(columns)):
                found[row, level, candidate] = columns[row, group[key]]
            found[5, level, candidate] *= item_weight[candidate]
            found[6, level, candidate] *= item_weight[candidate]
    return found


@compiled(INTS, INTS, INT, INTS_2D, FLOATS, FLOATS, FLOATS, FLOATS)
def habits(
    basket: Indices,
    item: Indices,
    count: int,
    held: Indices,
    weight_60d: Floats,
    weight: Floats,
    last_days: Floats,
    first_days: Floats,
) -> tuple[Groups, Floats]:
    """The shopper's purchases by category, G categories of all levels together: which of the G
    category c of a level is, at place c * levels + level, -1 for none; and by category `HABITS`,
    with one over the recency weight of all its items and of its strongest one in place of the last
    two, and the summed weight_60d, [len(HABITS) + 1, G].

    `held` [P, levels]: the categories of each purchased item, of each level for itself;
    `weight` [P]: recency weights; `last_days`, `first_days` [P]: how long ago each was bought last
    and first.

    baskets: share of the shopper's baskets with the category. days_since: log1p. due_ratio: days
    since over the mean gap between its baskets, 0 when bought once. weight: its baskets, each .9 of
    the one after it. items: log1p of how many different ones. item_share, item_lead: the item's
    recency weight over that of all items of the category, and over that of its strongest.
    """
    items, levels = held.shape
    most = np.int64(0)
    for place in range(items):
        for level in range(levels):
            most = max(most, held[place, level])
    number = np.full((most + 1) * levels, -1, np.int32)
    group, groups = np.empty((levels, items), np.int64), 0
    for level in range(levels):
        for place in range(items):
            key = held[place, level] * levels + level
            if number[key] < 0:
                number[key] = groups
                groups += 1
            group[level, place] = number[key]
    columns = np.zeros((8, groups), np.float32)
    last, first = np.full(groups, np.inf), np.zeros(groups)
    for level in range(levels):
        for place in range(items):
            at = group[level, place]
            last[at] = min(last[at], last_days[place])
            first[at] = max(first[at], first_days[place])
            columns[4, at] += 1
            columns[5, at] += weight[place]
            columns[6, at] = max(columns[6, at], weight[place])
            columns[7, at] += weight_60d[place]
    # Lines are by basket or in any order: a mark says whether a category was counted in it.
    seen = np.zeros((groups, max(count, 1)), np.bool_)
    share = _falling(basket, _CATEGORY_NEWER)
    for line in range(len(basket)):
        for level in range(levels):
            at = group[level, item[line]]
            if not seen[at, basket[line]]:
                seen[at, basket[line]] = True
                columns[0, at] += 1
                columns[3, at] += share[basket[line]]
    for at in range(groups):
        times, gap = columns[0, at], 0.0
        if times > 1:
            gap = (first[at] - last[at]) / (times - 1)
        columns[0, at] = times / max(count, 1)
        columns[1, at] = np.log1p(last[at])
        if gap > 0:
            columns[2, at] = min(last[at] / max(gap, 1.0), MOST_OVERDUE)
        columns[4, at] = np.log1p(columns[4, at])
        columns[5, at] = 1 / max(columns[5, at], 1e-9)
        columns[6, at] = 1 / max(columns[6, at], 1e-9)
    return number, columns
