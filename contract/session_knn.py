"""VMIS-kNN: the next item from the most similar recent sessions, over frozen arrays.

Vector-Multiplication-Indexed-Session kNN (Kersbergen, Sprangers and Schelter, Serenade, SIGMOD
2022): each item keeps its `m` most recent sessions; a query visits those of its latest items,
keeps the `m` most recent matches, then the `k` most similar, and adds up their items.

Weights are counted in whole numbers and divided at the end, so that sums do not depend on the order
in which they are taken and equal scores are equal. Numbers are 32 bits wide where they fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]

# A neighbour whose nearest shared item stands at place p of the query weighs 1 - p / 10.
_PLACES = 10
_FEW = 4


@dataclass(frozen=True)
class SessionKnn:
    """Frozen neighbourhood index; items are non-negative integers (vocabulary indices).

    Shapes: S sessions, N the largest item + 1, E session entries, P postings (<= N * m).
    """

    session_offsets: Numbers  # [S + 1] into session_items
    session_items: Numbers  # [E] distinct items of each session, in order of their last appearance
    posting_offsets: Numbers  # [N + 1] into postings
    # [P] session numbers of an item, latest first; a larger number is a later session
    postings: Numbers
    idf: Floats  # [N] log(sessions / sessions with the item)
    m: int
    k: int
    query_items: int  # how many of the latest query items are looked up

    @classmethod
    def fit(
        cls,
        session: Ints,
        item: Ints,
        occurred_us: Ints,
        *,
        num_items: int,
        m: int = 500,
        k: int = 50,
        query_items: int = 2,
    ) -> Self:
        """Build the index from rows (`session`, `item`, `occurred_us`), each [R], in any order.

        Sessions are renumbered by the time of their last row. Rows with equal session and item
        count once. Raises ValueError on negative items or columns of different length.
        """
        if not len(session) == len(item) == len(occurred_us):
            raise ValueError("session, item and occurred_us must have the same length")
        if len(item) and (item.min() < 0 or item.max() >= num_items):
            raise ValueError(f"items must lie in 0..{num_items - 1}")
        _, number = np.unique(session, return_inverse=True)
        count = int(number.max()) + 1 if len(number) else 0
        last = np.full(count, np.iinfo(np.int64).min)
        np.maximum.at(last, number, occurred_us)
        rank = np.empty(count, dtype=np.int64)
        rank[np.argsort(last, kind="stable")] = np.arange(count)
        order = np.lexsort((np.arange(len(item)), occurred_us, rank[number]))
        sessions, items = rank[number][order], item[order].astype(np.int64)
        sessions, items = _last_of_each_pair(sessions, items, num_items)
        session_offsets = np.searchsorted(sessions, np.arange(count + 1))

        # Rows are by session, so a stable sort by item leaves the sessions of an item in order.
        by_item = np.argsort(items, kind="stable")[::-1]
        frequency = np.bincount(items, minlength=num_items)
        ends = np.cumsum(frequency)
        kept = np.minimum(frequency, m)
        offsets = np.concatenate(([0], np.cumsum(kept)))
        # The postings of item i stand, latest first, from len(items) - ends[i] in `by_item`.
        rows = np.repeat(len(items) - ends - offsets[:-1], kept) + np.arange(offsets[-1])
        with np.errstate(divide="ignore"):
            idf = np.where(frequency > 0, np.log(max(count, 1) / np.maximum(frequency, 1)), 0.0)
        return cls(
            _narrow(session_offsets),
            _narrow(items),
            _narrow(offsets),
            _narrow(sessions[by_item[rows]]),
            idf.astype(np.float32),
            m,
            k,
            query_items,
        )

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The index as named arrays, for one `.npz` file."""
        settings = np.array([self.m, self.k, self.query_items], np.int64)
        return {
            "session_offsets": self.session_offsets,
            "session_items": self.session_items,
            "posting_offsets": self.posting_offsets,
            "postings": self.postings,
            "idf": self.idf,
            "settings": settings,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The index that `arrays` came from; those of earlier releases are 64 bits wide."""
        m, k, query_items = (int(value) for value in arrays["settings"])
        return cls(
            _narrow(arrays["session_offsets"]),
            _narrow(arrays["session_items"]),
            _narrow(arrays["posting_offsets"]),
            _narrow(arrays["postings"]),
            arrays["idf"],
            m,
            k,
            query_items,
        )

    def score(self, query: Ints, *, drop: Ints | None = None) -> tuple[Ints, Floats]:
        """Items that follow `query` and their scores, best first.

        `query` [Q]: the session's items, oldest first; only the latest `query_items` distinct ones
        are used. `drop`: items never returned (the cart). Equal scores are ordered by item number.
        """
        wanted = _latest_distinct(query, self.query_items, len(self.posting_offsets) - 1)
        if not len(wanted):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        found, weight = self._neighbours(wanted)
        candidates, total = self._summed(found, weight)
        if drop is not None and len(drop):
            kept = _others(candidates, drop)
            candidates, total = candidates[kept], total[kept]
        scores = (total * self.idf[candidates] / (len(wanted) * _PLACES)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")  # candidates are in the order of their numbers
        return candidates[order].astype(np.int64), scores[order]

    def _summed(self, found: Numbers, weight: Ints) -> tuple[Numbers, Ints]:
        """The items of the sessions `found`, ascending, and the summed `weight` of each."""
        starts = self.session_offsets[found]
        sizes = self.session_offsets[found + 1] - starts
        ends = np.cumsum(sizes)
        rows = np.repeat(starts - ends + sizes, sizes) + np.arange(sizes.sum())
        items = self.session_items[rows]
        order = np.argsort(items, kind="stable")
        items = items[order]
        first = _first_of_each(items)
        if not len(first):  # which `reduceat` would not take
            return items, weight
        return items[first], np.add.reduceat(np.repeat(weight, sizes)[order], first)

    def _neighbours(self, wanted: list[int]) -> tuple[Numbers, Ints]:
        """The `k` nearest sessions of the query and the weight of each, times Q * `_PLACES`.

        `wanted` [Q]: items of the query, latest first. The item at place p, from 1, adds
        (Q - p + 1) / Q to the similarity of a session that holds it.
        """
        count = len(wanted)
        spans = [
            self.postings[self.posting_offsets[i] : self.posting_offsets[i + 1]] for i in wanted
        ]
        if count == 1:  # all alike: the latest ones
            found = spans[0][: min(self.m, self.k)]
            return found, np.full(len(found), _PLACES - 1)
        # One number per match, that sorts by session and then by place.
        match = np.concatenate([span.astype(np.int64) * count + n for n, span in enumerate(spans)])
        match.sort()
        session, place = np.divmod(match, count)
        first = _first_of_each(session)[-self.m :]  # the latest m sessions
        if not len(first):
            return session, place
        similarity = np.add.reduceat(count - place, first)
        nearest = place[first] + 1
        if len(first) > self.k:
            # By similarity, then by recency; again in one number, the place in `first` last.
            best = similarity * len(first) + np.arange(len(first))
            best.sort()
            chosen = best[-self.k :] % len(first)
            first, similarity, nearest = first[chosen], similarity[chosen], nearest[chosen]
        return session[first], similarity * np.maximum(_PLACES - nearest, 0)


def _narrow(numbers: npt.NDArray[Any]) -> Numbers:
    """`numbers` in 32 bits if they fit, else as they are."""
    if numbers.dtype != np.int64 or (len(numbers) and numbers.max() > np.iinfo(np.int32).max):
        return numbers
    return numbers.astype(np.int32)


def _others(candidates: Numbers, drop: Ints) -> npt.NDArray[np.bool_]:
    """Where `candidates` are not among `drop`; a few comparisons are quicker than `isin`."""
    if len(drop) > _FEW:
        return ~np.isin(candidates, drop)
    kept = np.ones(len(candidates), bool)
    for item in drop:
        kept &= candidates != item
    return kept


def _first_of_each(ordered: Numbers) -> Ints:
    """Where each new value begins in `ordered`."""
    begins = np.empty(len(ordered), bool)
    begins[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _last_of_each_pair(sessions: Ints, items: Ints, num_items: int) -> tuple[Ints, Ints]:
    """Rows in time order, with only the last one of every (session, item) kept."""
    if not len(items):
        return sessions, items
    pair = sessions * num_items + items
    _, first_from_end = np.unique(pair[::-1], return_index=True)
    kept = np.sort(len(pair) - 1 - first_from_end)
    return sessions[kept], items[kept]


def _latest_distinct(query: Ints, limit: int, num_items: int) -> list[int]:
    """The latest distinct known items of `query`, latest first."""
    latest: list[int] = []
    for item in query[::-1].tolist():
        if 0 <= item < num_items and item not in latest:
            latest.append(item)
            if len(latest) == limit:
                break
    return latest
