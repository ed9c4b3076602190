"""VMIS-kNN: the next item from the most similar recent sessions, over frozen arrays.

Vector-Multiplication-Indexed-Session kNN (Kersbergen, Sprangers and Schelter, Serenade, SIGMOD
2022): each item keeps its `m` most recent sessions; a query visits those of its latest items,
keeps the `m` most recent matches, then the `k` most similar, and adds up their items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SessionKnn:
    """Frozen neighbourhood index; items are non-negative integers (vocabulary indices).

    Shapes: S sessions, N the largest item + 1, E session entries, P postings (<= N * m).
    """

    session_offsets: Ints  # [S + 1] into session_items
    session_items: Ints  # [E] distinct items of each session, in order of their last appearance
    posting_offsets: Ints  # [N + 1] into postings
    postings: (
        Ints  # [P] session numbers of an item, latest first; a larger number is a later session
    )
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

        by_item = np.lexsort((-sessions, items))
        posting_items, postings = items[by_item], sessions[by_item]
        frequency = np.bincount(items, minlength=num_items)
        place = np.arange(len(postings)) - np.searchsorted(posting_items, posting_items)
        kept = place < m
        offsets = np.searchsorted(posting_items[kept], np.arange(num_items + 1))
        with np.errstate(divide="ignore"):
            idf = np.where(frequency > 0, np.log(max(count, 1) / np.maximum(frequency, 1)), 0.0)
        return cls(
            session_offsets,
            items,
            offsets,
            postings[kept],
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
        """The index that `arrays` came from."""
        m, k, query_items = (int(value) for value in arrays["settings"])
        return cls(
            arrays["session_offsets"],
            arrays["session_items"],
            arrays["posting_offsets"],
            arrays["postings"],
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
        spans = [
            self.postings[self.posting_offsets[i] : self.posting_offsets[i + 1]] for i in wanted
        ]
        # Linear decay by place in the query: the latest item weighs 1, the one before it less.
        places = np.arange(len(wanted), 0, -1)
        sessions = np.concatenate(spans)
        lengths = [len(span) for span in spans]
        weights = np.repeat(places / len(wanted), lengths)
        matched_place = np.repeat(np.arange(1, len(wanted) + 1), lengths)
        found, inverse = np.unique(sessions, return_inverse=True)
        similarity = np.bincount(inverse, weights)
        nearest_place = np.full(len(found), len(wanted) + 1)
        np.minimum.at(nearest_place, inverse, matched_place)
        if len(found) > self.m:  # np.unique sorts, so the last ones are the most recent
            found, similarity = found[-self.m :], similarity[-self.m :]
            nearest_place = nearest_place[-self.m :]
        if len(found) > self.k:
            order = np.lexsort((-found, -similarity))[: self.k]
            found, similarity, nearest_place = found[order], similarity[order], nearest_place[order]
        # The later the most recent shared item stands in the query, the more the session counts.
        session_weight = similarity * np.maximum(1.0 - 0.1 * nearest_place, 0.0)
        starts, ends = self.session_offsets[found], self.session_offsets[found + 1]
        sizes = ends - starts
        rows = np.repeat(starts - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes) + np.arange(
            int(sizes.sum())
        )
        items = self.session_items[rows]
        contribution = np.repeat(session_weight, sizes) * self.idf[items]
        candidates, position = np.unique(items, return_inverse=True)
        scores = np.bincount(position, contribution).astype(np.float32)
        if drop is not None and len(drop):
            kept = ~np.isin(candidates, drop)
            candidates, scores = candidates[kept], scores[kept]
        order = np.lexsort((candidates, -scores))
        return candidates[order], scores[order]


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
