"""What a shopper's own baskets say about a candidate: which items share a basket with the cart's,
and when its category is usually bought."""

from dataclasses import dataclass

import numpy as np

from contract.items import Floats, Indices

NEVER = 7.0  # in place of log1p(days) where nothing was bought; log1p of three years
MOST_OVERDUE = 5.0
_NEWER = 0.95  # what a basket weighs relative to the one after it


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


HABITS = ("baskets", "days_since", "due_ratio", "weight", "items", "item_share", "item_lead")


@dataclass(frozen=True)
class Habits:
    """The shopper's purchases by category: G categories ascending, and `HABITS` of each."""

    category: Indices  # [G]
    weight_60d: Floats  # [G] of its items, summed
    total: Floats  # [G] recency weight of its items
    strongest: Floats  # [G] recency weight of its strongest item
    columns: Floats  # [5, G] the first five of `HABITS`

    def at(self, wanted: Indices, item_weight: Floats) -> tuple[Floats, list[Floats]]:
        """`weight_60d` and `HABITS` for candidates of the categories `wanted` [C] (0 is none), [C]
        each, with the candidates' own recency weights."""
        if not len(self.category):
            nothing = np.zeros(len(wanted), np.float32)
            columns = [nothing, np.full_like(nothing, NEVER), *[nothing] * (len(HABITS) - 2)]
            return nothing, columns
        place = np.minimum(np.searchsorted(self.category, wanted), len(self.category) - 1)
        has = ((self.category[place] == wanted) & (wanted > 0)).astype(np.float32)
        found = self.columns[:, place] * has
        found[1] += np.float32(NEVER) * (1 - has)
        mine = item_weight * has
        share, lead = mine / self.total[place], mine / self.strongest[place]
        return self.weight_60d[place] * has, [*found, share, lead]


def habits(
    own: OwnBaskets,
    held: Indices,
    weight_60d: Floats,
    weight: Floats,
    last_days: Floats,
    first_days: Floats,
) -> Habits:
    """`held` [P]: the category of each purchased item; `weight` [P]: recency weights;
    `last_days`, `first_days` [P]: how long ago each was bought last and first.

    baskets: share of the shopper's baskets with the category. days_since: log1p. due_ratio: days
    since over the mean gap between its baskets, 0 when bought once. weight: its baskets, each .9 of
    the one after it. items: log1p of how many different ones.
    """
    # Sorted once and reduced by runs: scattered minima and maxima cost several times as much.
    order = np.argsort(held, kind="stable")
    ascending = held[order]
    fresh = np.ones(len(held), bool)
    fresh[1:] = ascending[1:] != ascending[:-1]
    starts = np.flatnonzero(fresh)
    if not len(starts):
        nothing = np.zeros(0, np.float32)
        return Habits(held, nothing, nothing, nothing, np.zeros((5, 0), np.float32))
    group = np.empty(len(held), np.int64)
    group[order] = np.cumsum(fresh) - 1
    size, count = len(starts), max(own.count, 1)
    pair = np.sort(group[own.item] * count + own.basket)
    pair = pair[np.diff(pair, prepend=-1) > 0]
    of = pair // count
    times = np.bincount(of, minlength=size)
    last = np.minimum.reduceat(last_days[order], starts)
    first = np.maximum.reduceat(first_days[order], starts)
    gap = (first - last) / np.maximum(times - 1, 1)
    due = np.where((times > 1) & (gap > 0), last / np.maximum(gap, 1.0), 0.0)
    fading = 0.9 ** np.arange(count)
    columns = (
        times / count,
        np.log1p(last),
        np.minimum(due, MOST_OVERDUE),
        np.bincount(of, fading[pair - of * count], minlength=size),
        np.log1p(np.diff(starts, append=len(held))),
    )
    return Habits(
        ascending[starts],
        np.add.reduceat(weight_60d[order], starts),
        np.maximum(np.add.reduceat(weight[order], starts), np.float32(1e-9)),
        np.maximum(np.maximum.reduceat(weight[order], starts), np.float32(1e-9)),
        np.array(columns, np.float32),
    )
