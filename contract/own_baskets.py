"""What a shopper's own baskets say about a candidate: which items share a basket with the cart's,
and when its category is usually bought."""

from dataclasses import dataclass

import numpy as np

from contract.items import Floats, Indices

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

    def per_item(self, of_basket: Floats, items: int) -> Floats:
        """The sum of `of_basket` [count] over the baskets that held each item, [items]."""
        return np.bincount(self.item, of_basket[self.basket], minlength=items).astype(np.float32)

    def recency_weight(self, items: int) -> Floats:
        """Baskets with each item, each weighing `_NEWER` of the one after it, [items]."""
        return self.per_item((_NEWER ** np.arange(self.count)).astype(np.float32), items)


COMPANIONS = ("own_similar", "own_together", "own_together_rare", "own_lift")


def companions(own: OwnBaskets, in_cart: Floats, cart_size: int, baskets: Floats) -> list[Floats]:
    """`COMPANIONS` of each purchased item, [P] each; all zero without a cart.

    With o_b the number of cart items in the shopper's basket b: the sum of its cosine to the cart
    over the baskets with the item; the item's share of all o_b; the same with every cart item
    counted by one over the baskets it stood in, not divided; and the share relative to the item's
    own share of baskets. `in_cart` [P] is 1 for the cart's items, `baskets` [P] counts each item's.
    """
    items = len(baskets)
    shared = np.bincount(own.basket, in_cart[own.item], minlength=own.count).astype(np.float32)
    total = float(shared.sum())
    if not total:
        return [np.zeros(items, np.float32)] * len(COMPANIONS)
    size = np.bincount(own.basket, minlength=own.count)
    cosine = shared / np.sqrt(np.maximum(size, 1) * cart_size)
    rare = in_cart / np.maximum(baskets, 1.0)
    rare_shared = np.bincount(own.basket, rare[own.item], minlength=own.count)
    overlap = own.per_item(shared, items)
    return [
        own.per_item(cosine.astype(np.float32), items),
        overlap / np.float32(total),
        own.per_item(rare_shared.astype(np.float32), items),
        overlap / (np.maximum(baskets, 1.0) * np.float32(total / own.count) + np.float32(0.5)),
    ]


# weight_60d stands after what is a feature of every level.
HABITS = ("baskets", "days_since", "due_ratio", "weight", "items", "item_share", "item_lead")
_SHARE, _LEAD = HABITS.index("item_share"), HABITS.index("item_lead")
_LEAST = np.float32(1e-9)


@dataclass(frozen=True)
class Habits:
    """The shopper's purchases by category, G categories of all levels together."""

    code: Indices  # [G] ascending
    # [len(HABITS) + 1, G]: `HABITS`, with one over the recency weight of all its items and of its
    # strongest one in place of the last two; and the summed weight_60d.
    columns: Floats

    def at(self, wanted: Indices, item_weight: Floats) -> Floats:
        """`HABITS` and weight_60d, [len(HABITS) + 1, levels, C], for candidates of the categories
        `wanted` [C, levels], 0 where there is none, with recency weights `item_weight` [C]."""
        count, levels = wanted.shape
        found = np.zeros((len(HABITS) + 1, levels * count), np.float32)
        found[1] = NEVER
        if len(self.code):
            codes = _level_codes(wanted)
            place = np.minimum(np.searchsorted(self.code, codes), len(self.code) - 1)
            has = (self.code[place] == codes) & (codes >= levels)
            found[:, has] = self.columns[:, place[has]]
        by_level = found.reshape(len(HABITS) + 1, levels, count)
        by_level[_SHARE : _LEAD + 1] *= item_weight
        return by_level


def habits(
    own: OwnBaskets,
    held: Indices,
    weight_60d: Floats,
    weight: Floats,
    last_days: Floats,
    first_days: Floats,
) -> Habits:
    """`held` [P, levels]: the categories of each purchased item, of each level for itself;
    `weight` [P]: recency weights; `last_days`, `first_days` [P]: how long ago each was bought last
    and first.

    baskets: share of the shopper's baskets with the category. days_since: log1p. due_ratio: days
    since over the mean gap between its baskets, 0 when bought once. weight: its baskets, each .9 of
    the one after it. items: log1p of how many different ones. item_share, item_lead: the item's
    recency weight over that of all items of the category, and over that of its strongest.
    """
    items, levels = held.shape
    if not items:
        return Habits(np.empty(0, np.int64), np.zeros((len(HABITS) + 1, 0), np.float32))
    # Sorted once and reduced by runs: scattered minima and maxima cost several times as much.
    codes = _level_codes(held)
    order = np.argsort(codes, kind="stable")
    ascending, item = codes[order], order % items
    begins = np.ones(len(codes), bool)
    begins[1:] = ascending[1:] != ascending[:-1]
    starts = np.flatnonzero(begins)
    group = np.empty(len(codes), np.int64)
    group[order] = np.cumsum(begins) - 1
    times, fading = _baskets_of(group.reshape(levels, items), own, len(starts))
    last = np.minimum.reduceat(last_days[item], starts)
    gap = (np.maximum.reduceat(first_days[item], starts) - last) / np.maximum(times - 1, 1)
    due = np.where((times > 1) & (gap > 0), last / np.maximum(gap, 1.0), 0.0)
    weighed = weight[item]
    columns = (
        times / max(own.count, 1),
        np.log1p(last),
        np.minimum(due, MOST_OVERDUE),
        fading,
        np.log1p(np.bincount(group)),
        1 / np.maximum(np.add.reduceat(weighed, starts), _LEAST),
        1 / np.maximum(np.maximum.reduceat(weighed, starts), _LEAST),
        np.add.reduceat(weight_60d[item], starts),
    )
    return Habits(ascending[starts], np.array(columns, np.float32))


def _baskets_of(group: Indices, own: OwnBaskets, groups: int) -> tuple[Indices, Floats]:
    """How many baskets held each group, and how much they weigh; `group` [levels, P]."""
    count = max(own.count, 1)
    held = np.zeros(groups * count, bool)
    held[group[:, own.item] * count + own.basket] = True
    pair = np.flatnonzero(held)
    of = pair // count
    weight = _CATEGORY_NEWER ** np.arange(count)
    fading = np.bincount(of, weight[pair - of * count], minlength=groups).astype(np.float32)
    return np.bincount(of, minlength=groups), fading


def _level_codes(categories: Indices) -> Indices:
    """[n, levels] as [levels * n], one level after the other and no code in two of them; codes
    below `levels` stand for no category."""
    levels = categories.shape[1]
    codes: Indices = (categories * levels + np.arange(levels)).T.ravel()
    return codes
