"""From several sources to one list of candidates: what the sources know about a checkout, and how
their lists are merged. Training, evaluation and a live checkout call the same functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from contract.encoding import FIRST_ITEM, Situation, Vocabulary
from contract.items import NOTHING, Floats, Indices, ItemNeighbours, Sparse
from contract.own_baskets import OwnBaskets
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


@dataclass(frozen=True)
class Purchased:
    """The subject's purchases in the release's vocabulary, index ascending; [P] each."""

    index: Indices
    baskets: Floats
    weight_60d: Floats
    weight_14d: Floats
    days_since: Floats
    first_days: Floats  # days since the first purchase
    gap_days: Floats  # 0 when bought once
    in_last: Floats
    together: OwnBaskets

    @cached_property
    def by_weight(self) -> Indices:
        """Places from the strongest to the weakest `weight_60d`."""
        return np.argsort(-self.weight_60d, kind="stable")


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
    place = np.full(len(situation.view.purchased), -1, np.int64)
    place[order] = np.arange(len(order))
    return Purchased(
        index,
        rows["baskets"],
        rows["weight_60d"],
        rows["weight_14d"],
        np.maximum((situation.now_us - rows["last_us"]) / DAY_US, 0.0).astype(np.float32),
        np.maximum((situation.now_us - rows["first_us"]) / DAY_US, 0.0).astype(np.float32),
        gap.astype(np.float32),
        rows["in_last_basket"].astype(np.float32),
        _own_baskets(situation.view.lines, place),
    )


def _own_baskets(lines: npt.NDArray[np.void], place: Indices) -> OwnBaskets:
    """`lines` of the items that have a `place`."""
    item = place[lines["row"]]
    known = item >= 0
    count = int(lines["basket"].max()) + 1 if len(lines) else 0
    return OwnBaskets(lines["basket"][known], item[known], count)


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
    neighbours: ItemNeighbours
    near: Sparse  # item-kNN on the cart
    knn: Sparse  # VMIS-kNN on the cart
    query_vector: Floats | None  # [d] of the query tower
    sequence_vector: Floats | None  # [d] of the sequence encoder
    subject_known: bool
    subject_baskets: float
    days_since_visit: float
    visit_gap_days: float
    basket_items: float


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
        neighbours,
        neighbours.score(cart) if len(cart) else NOTHING,
        knn_scores(knn, cart) if knn is not None and len(cart) else NOTHING,
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
