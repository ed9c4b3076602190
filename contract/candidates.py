"""From several sources to one list of candidates: what the sources know about a checkout, and how
their lists are merged. Training, evaluation and a live checkout call the same functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.compiled import FLOATS, INT, INTS, KEYS_2D, MASK, compiled, records, several
from contract.encoding import FIRST_ITEM, Situation, Vocabulary, index_of_key
from contract.events import EVENT_TYPE
from contract.features import BASKET_LINE, PURCHASED
from contract.items import NOTHING, Floats, Indices, ItemNeighbours, Sparse, best_within
from contract.own_baskets import OwnBaskets
from contract.quotas import QUOTAS
from contract.ranks import before_each, items_of, nothing_of, rank_of
from contract.session_knn import SessionKnn, ascending

Mask = npt.NDArray[np.bool_]
MAX_CANDIDATES = 256
LOOKED = 5  # items looked at that count beside the cart
LOOKED_MINUTES = 30  # as long as a visit lasts without anything happening


# What is known of each purchase: `weight_60d` and `weight_14d` as in contract.features, days since
# the last and the first one, days between two (0 when bought once), whether in the last basket.
OF_PURCHASES: Final = (
    *("baskets", "weight_60d", "weight_14d", "days_since", "first_days", "gap_days", "in_last"),
)


@dataclass(frozen=True)
class Purchased:
    """The subject's purchases in the release's vocabulary."""

    index: Indices  # [P] ascending
    by_weight: Indices  # [P] places from the strongest to the weakest weight_60d
    columns: Floats  # [len(OF_PURCHASES), P]
    together: OwnBaskets

    def column(self, name: str) -> Floats:
        """`name` of each purchase, [P]."""
        found: Floats = self.columns[OF_PURCHASES.index(name)]
        return found


@dataclass(frozen=True)
class Candidates:
    """The merged list: `index` [C] distinct, and which source brought each one, [C, sources]."""

    index: Indices
    brought: npt.NDArray[np.bool_]


def purchased(situation: Situation, vocabulary: Vocabulary) -> Purchased:
    """The purchases that the vocabulary knows."""
    rows, lines = situation.view.purchased, situation.view.lines
    if not len(rows):
        return _NO_PURCHASES
    index, by_weight, columns, own, count = _in_vocabulary(
        *(vocabulary.key_table, FIRST_ITEM, situation.now_us, rows, lines)
    )
    return Purchased(index, by_weight, columns, OwnBaskets(own[0], own[1], count))


@compiled(KEYS_2D, INT, INT, records(PURCHASED), records(BASKET_LINE))
def _in_vocabulary(
    table: npt.NDArray[np.uint64],
    first_item: int,
    now_us: int,
    rows: Any,
    lines: Any,
) -> tuple[Indices, Indices, Floats, Indices, int]:
    """The first three of `Purchased`; basket and item of the lines whose item is known, [2, L]; how
    many baskets there are of all lines."""
    index, row, held = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64), 0
    for at in range(len(rows)):
        found = index_of_key(table, rows[at].item_key)
        if found >= first_item:
            index[held], row[held] = found, at
            held += 1
    index = index[:held]
    order = ascending(index)
    index, order = index[order], row[order]
    columns, place = np.zeros((7, held), np.float32), np.full(len(rows), -1, np.int64)
    day_us = 86_400_000_000
    for new in range(len(order)):
        one = rows[order[new]]
        place[order[new]] = new
        columns[0, new] = one.baskets
        columns[1, new], columns[2, new] = one.weight_60d, one.weight_14d
        columns[3, new] = max((now_us - one.last_us) / day_us, 0.0)
        columns[4, new] = max((now_us - one.first_us) / day_us, 0.0)
        if one.baskets > 1:
            columns[5, new] = (one.last_us - one.first_us) / day_us / (one.baskets - 1)
        columns[6, new] = one.in_last_basket
    own, at, count = np.empty((2, len(lines)), np.int64), 0, 0
    for line in range(len(lines)):
        count = max(count, lines[line].basket + 1)
        if place[lines[line].row] >= 0:
            own[0, at], own[1, at] = lines[line].basket, place[lines[line].row]
            at += 1
    by_weight = np.argsort(-columns[1], kind="mergesort")
    return index, by_weight, columns, own[:, :at].copy(), count


_EMPTY: Indices = np.empty(0, np.int64)
_NO_PURCHASES = Purchased(
    *(_EMPTY, _EMPTY, np.empty((len(OF_PURCHASES), 0), np.float32)),
    OwnBaskets(_EMPTY, _EMPTY, 0),
)


def looked_at(situation: Situation, vocabulary: Vocabulary, cart: Indices) -> Indices:
    """The latest LOOKED known items outside the cart that were looked at within LOOKED_MINUTES, and
    since the last purchase or on this very page; each once, the latest last."""
    rows, told = situation.view.interactions, vocabulary.indices(situation.recent_items)
    since_us = situation.now_us - LOOKED_MINUTES * 60_000_000
    seen = _EMPTY
    if len(rows) and rows["occurred_us"][-1] > since_us:
        bought = np.flatnonzero(rows["event_type"] == EVENT_TYPE["purchase"])
        rows = rows[bought[-1] + 1 :] if len(bought) else rows
        views = (rows["event_type"] == EVENT_TYPE["view_item"]) & (rows["occurred_us"] > since_us)
        seen = vocabulary.of_keys(rows["item_key"][views])
    if not len(seen) and not len(told):
        return _EMPTY
    found = np.concatenate((seen, told))[::-1]
    found = found[(found >= FIRST_ITEM) & ~np.isin(found, cart)]
    _, first = np.unique(found, return_index=True)
    return np.ascontiguousarray(found[np.sort(first)[:LOOKED]][::-1])


def knn_scores(knn: SessionKnn, intent: Indices) -> Sparse:
    """VMIS-kNN scores of what goes with `intent`, whose own items are left out."""
    return Sparse(*knn.scores(intent, drop=intent))


def merge(
    sources: Mapping[str, Indices], exclude: Indices, limit: int = MAX_CANDIDATES
) -> Candidates:
    """One list from each source's best-first indices.

    Every source is cut to its quota. When the union is still too long, the items whose best place
    in any source is lowest go first. `exclude`d, PAD and OOV never appear.
    """
    brought_by = tuple([sources.get(name, _EMPTY) for name in QUOTAS])
    index, brought = _merged(brought_by, _QUOTA, exclude, FIRST_ITEM, limit)
    return Candidates(index, brought)


_QUOTA = np.array(list(QUOTAS.values()), np.int64)


@compiled(several(INTS, len(QUOTAS)), INTS, INTS, INT, INT)
def _merged(
    brought_by: tuple[Indices, ...],
    quotas: Indices,
    exclude: Indices,
    first_item: int,
    limit: int,
) -> tuple[Indices, npt.NDArray[np.bool_]]:
    away, sources = np.sort(exclude), len(brought_by)
    items, best = np.empty(quotas.sum(), np.int64), np.empty(quotas.sum(), np.int64)
    count = 0
    for source in range(sources):
        place = 0
        for item in brought_by[source]:
            # What may not be recommended takes nobody's place.
            near = np.searchsorted(away, item)
            if item < first_item or (near < len(away) and away[near] == item):
                continue
            if place == quotas[source]:
                break
            items[count], best[count] = item, place * sources + source
            place, count = place + 1, count + 1
    most = 0
    for row in range(count):
        most = max(most, items[row])
    among = nothing_of(most + 1)
    for row in range(count):
        among[items[row] >> 6] |= np.uint64(1) << np.uint64(items[row] & 63)
    before = before_each(among)
    index, last = items_of(among, before), quotas.max() * sources
    lowest = np.full(len(index), last, np.int64)
    brought = np.zeros((len(index), sources), np.bool_)
    for row in range(count):
        place = rank_of(among, before, items[row])
        lowest[place] = min(lowest[place], best[row])
        brought[place, best[row] % sources] = True
    if len(index) > limit:
        taken = np.zeros(last, np.bool_)  # no two items have the same best place
        for place in range(len(index)):
            taken[lowest[place]] = True
        bound, left = 0, limit
        while left > 0 or not taken[bound]:
            left -= taken[bound]
            bound += 1
        kept = lowest < bound
        index, brought = index[kept], brought[kept]
    return index, brought


@dataclass(frozen=True)
class Evidence:
    """Everything about one checkout that pair features are made of."""

    purchased: Purchased
    cart: Indices  # known items only
    looked: Indices  # looked at of late, known items outside the cart
    neighbours: ItemNeighbours
    near: Sparse  # item-kNN on `intent`
    knn: Sparse  # VMIS-kNN on `intent`
    query_vector: Floats | None  # [d] of the query tower
    sequence_vector: Floats | None  # [d] of the sequence encoder
    subject_known: bool
    subject_baskets: float
    days_since_visit: float
    visit_gap_days: float
    basket_items: float

    @cached_property
    def intent(self) -> Indices:
        """What a candidate should go with: what was looked at, then the cart."""
        return np.concatenate((self.looked, self.cart)) if len(self.looked) else self.cart


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
    looked = looked_at(situation, vocabulary, cart)
    intent = np.concatenate((looked, cart)) if len(looked) else cart
    rhythm = situation.view.rhythm
    return Evidence(
        purchased(situation, vocabulary),
        cart,
        looked,
        neighbours,
        neighbours.score(intent) if len(intent) else NOTHING,
        knn_scores(knn, intent) if knn is not None and len(intent) else NOTHING,
        query_vector,
        sequence_vector,
        bool(len(situation.view.purchased)),
        float(rhythm[0]),
        float(rhythm[1]),
        float(rhythm[2]),
        float(rhythm[3]),
    )


def sources_of(evidence: Evidence, popular: Indices) -> dict[str, Indices]:
    """The best-first candidates of the sources that need no model."""
    own = evidence.purchased
    # Room for the cart's own items, which `merge` takes out before it counts.
    quota = {name: limit + len(evidence.cart) for name, limit in QUOTAS.items()}
    return {
        "personal": own.index[own.by_weight[: quota["personal"]]],
        "neighbours": evidence.near.best(quota["neighbours"]),
        "session_knn": evidence.knn.best(quota["session_knn"]),
        "popular": popular[: quota["popular"]],
    }


def sources_within(
    evidence: Evidence, mask: Mask, allowed: int, usual: Indices, by_popularity: Indices
) -> dict[str, Indices]:
    """The same of the `allowed` items that `mask` [N] lets through; the popular ones are those of
    `usual`, and only where that says too few of `by_popularity`."""
    own, near, knn = evidence.purchased, evidence.near, evidence.knn
    items, ends = _within(
        *(own.index, own.by_weight, near.index, near.value, knn.index, knn.value),
        *(mask, allowed, usual, by_popularity, _COUNTING_QUOTAS),
    )
    begin, found = 0, {}
    for name, end in zip(_COUNTING, ends.tolist(), strict=True):
        found[name] = items[begin:end]
        begin = end
    return found


_COUNTING = ("personal", "neighbours", "session_knn", "popular")
_COUNTING_QUOTAS = np.array([QUOTAS[name] for name in _COUNTING], np.int64)


@compiled(INTS, INTS, MASK, INT, INT)
def popular_within(
    usual: Indices, by_popularity: Indices, mask: Mask, limit: int, allowed: int
) -> Indices:
    """The first `limit` of `usual` that `mask` lets through, filled up from `by_popularity`; fewer
    only if no more than `allowed` exist."""
    wanted = min(limit, allowed)
    found, count = np.empty(wanted, np.int64), 0
    for item in usual:
        if count < wanted and mask[item]:
            found[count] = item
            count += 1
    first = count
    for item in by_popularity:
        if count == wanted:
            break
        if mask[item] and not (found[:first] == item).any():
            found[count] = item
            count += 1
    return found[:count]


@compiled(*(INTS, INTS, INTS, FLOATS, INTS, FLOATS, MASK, INT, INTS, INTS, INTS))
def _within(
    own_index: Indices,
    by_weight: Indices,
    near_index: Indices,
    near_value: Floats,
    knn_index: Indices,
    knn_value: Floats,
    mask: Mask,
    allowed: int,
    usual: Indices,
    by_popularity: Indices,
    quotas: Indices,
) -> tuple[Indices, Indices]:
    """What each of `_COUNTING` brings, one after another, and where each ends."""
    items, ends, count = np.empty(quotas.sum(), np.int64), np.empty(4, np.int64), 0
    for place in by_weight:
        if count < quotas[0] and mask[own_index[place]]:
            items[count] = own_index[place]
            count += 1
    ends[0] = count
    for item in best_within(near_index, near_value, mask, quotas[1]):
        items[count] = item
        count += 1
    ends[1] = count
    for item in best_within(knn_index, knn_value, mask, quotas[2]):
        items[count] = item
        count += 1
    ends[2] = count
    for item in popular_within(usual, by_popularity, mask, quotas[3], allowed):
        items[count] = item
        count += 1
    ends[3] = count
    return items, ends
