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

from contract.compiled import FLOATS, INT, INTS, INTS32, compiled
from contract.ranks import before_each, items_of, nothing_of, rank_of

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]

# A neighbour whose nearest shared item stands at place p of the query weighs 1 - p / 10.
_PLACES = 10


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
        held, items, offsets, postings = _narrow(
            session_offsets, items, offsets, sessions[by_item[rows]]
        )
        return cls(held, items, offsets, postings, idf.astype(np.float32), m, k, query_items)

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
        numbers = ("session_offsets", "session_items", "posting_offsets", "postings")
        held, items, offsets, postings = _narrow(*(arrays[name] for name in numbers))
        return cls(held, items, offsets, postings, arrays["idf"], m, k, query_items)

    def score(self, query: Ints, *, drop: Ints | None = None) -> tuple[Ints, Floats]:
        """Items that follow `query` and their scores, best first.

        `query` [Q]: the session's items, oldest first; only the latest `query_items` distinct ones
        are used. `drop`: items never returned (the cart). Equal scores are ordered by item number.
        """
        items, scores = self.scores(query, drop=drop)
        order = np.argsort(-scores, kind="stable")
        return items[order], scores[order]

    def scores(self, query: Ints, *, drop: Ints | None = None) -> tuple[Ints, Floats]:
        """The same in the order of the items' numbers."""
        items, scores = _scores(
            *(self.session_offsets, self.session_items, self.posting_offsets, self.postings),
            *(self.idf, query, _NOTHING if drop is None else drop),
            *(self.m, self.k, self.query_items),
        )
        return items, scores


_NOTHING: Ints = np.empty(0, np.int64)


@compiled(INTS, INT, INT)
def _latest_distinct(query: Ints, limit: int, num_items: int) -> Ints:
    """The latest distinct known items of `query`, latest first."""
    latest, count = np.empty(min(limit, len(query)), np.int64), 0
    for item in query[::-1]:
        if count == len(latest):
            break
        if 0 <= item < num_items and not (latest[:count] == item).any():
            latest[count] = item
            count += 1
    return latest[:count].copy()


@compiled(INTS32, INTS32, INTS, INT, INT, others=((INTS, INTS, INTS, INT, INT),))
def _neighbours(
    posting_offsets: Ints, postings: Ints, wanted: Ints, m: int, k: int
) -> tuple[Ints, Ints]:
    """The `k` nearest sessions of the query and the weight of each, times Q * `_PLACES`.

    The item at place p, from 1, adds (Q - p + 1) / Q to the similarity of a session that holds it.
    """
    count = len(wanted)
    at, end = np.empty(count, np.int64), np.empty(count, np.int64)
    matches = 0
    for place in range(count):
        at[place], end[place] = posting_offsets[wanted[place]], posting_offsets[wanted[place] + 1]
        matches += end[place] - at[place]
    session = np.empty(min(matches, m), np.int64)
    similarity, nearest = np.empty(len(session), np.int64), np.empty(len(session), np.int64)
    held = 0
    while held < m:  # postings stand the latest first, so the next is at the head of one of them
        latest = np.int64(-1)
        for place in range(count):
            if at[place] < end[place]:
                latest = max(latest, np.int64(postings[at[place]]))
        if latest < 0:
            break
        session[held], similarity[held], nearest[held] = latest, 0, 0
        for place in range(count):
            if at[place] < end[place] and postings[at[place]] == latest:
                similarity[held] += count - place
                if nearest[held] == 0:
                    nearest[held] = place + 1
                at[place] += 1
        held += 1
    # By similarity, of which there are few different ones, then by recency.
    kept, number, alike = min(held, k), 0, count * (count + 1) // 2
    found, weight = np.empty(kept, np.int64), np.empty(kept, np.int64)
    while number < kept:
        for place in range(held):
            if similarity[place] == alike and number < kept:
                found[number] = session[place]
                weight[number] = alike * max(_PLACES - nearest[place], 0)
                number += 1
        alike -= 1
    return found, weight


@compiled(INTS)
def ascending(items: Ints) -> Ints:
    """The order of `items`, none negative, digit by digit: a fifth of what comparing takes."""
    bits, most = 11, np.int64(0)
    for item in items:
        most = max(most, item)
    order, after = np.arange(len(items)), np.empty(len(items), np.int64)
    shift = 0
    while most >> shift:
        begin = np.zeros((1 << bits) + 1, np.int64)
        for item in items:
            begin[((item >> shift) & ((1 << bits) - 1)) + 1] += 1
        for digit in range(1 << bits):
            begin[digit + 1] += begin[digit]
        for place in order:
            digit = (items[place] >> shift) & ((1 << bits) - 1)
            after[begin[digit]] = place
            begin[digit] += 1
        order, after = after, order
        shift += bits
    return order


@compiled(*[INTS32] * 4, INTS, INTS, INT, INT, others=((*[INTS] * 6, INT, INT),))
def _summed(
    session_offsets: Ints,
    session_items: Ints,
    posting_offsets: Ints,
    postings: Ints,
    wanted: Ints,
    drop: Ints,
    m: int,
    k: int,
) -> tuple[Ints, Ints]:
    """The items of the nearest sessions, ascending, and the summed weight of each, times
    Q * `_PLACES`; `wanted` [Q]: items of the query, latest first."""
    found, weight = _neighbours(posting_offsets, postings, wanted, m, k)
    among = nothing_of(len(posting_offsets))
    for session in found:
        for entry in range(session_offsets[session], session_offsets[session + 1]):
            item = np.int64(session_items[entry])
            among[item >> 6] |= np.uint64(1) << np.uint64(item & 63)
    for dropped in drop:
        if 0 <= dropped < len(posting_offsets):
            among[dropped >> 6] &= ~(np.uint64(1) << np.uint64(dropped & 63))
    before = before_each(among)
    total = np.zeros(before[-1], np.int64)
    for number in range(len(found)):
        session = found[number]
        for entry in range(session_offsets[session], session_offsets[session + 1]):
            item = np.int64(session_items[entry])
            if among[item >> 6] >> np.uint64(item & 63) & np.uint64(1):
                total[rank_of(among, before, item)] += weight[number]
    return items_of(among, before), total


@compiled(
    *(*[INTS32] * 4, FLOATS, INTS, INTS, INT, INT, INT),
    others=((*[INTS] * 4, FLOATS, INTS, INTS, INT, INT, INT),),
)
def _scores(
    session_offsets: Ints,
    session_items: Ints,
    posting_offsets: Ints,
    postings: Ints,
    idf: Floats,
    query: Ints,
    drop: Ints,
    m: int,
    k: int,
    query_items: int,
) -> tuple[Ints, Floats]:
    """The items, ascending, and their scores."""
    wanted = _latest_distinct(query, query_items, len(posting_offsets) - 1)
    if not len(wanted):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    items, total = _summed(
        session_offsets, session_items, posting_offsets, postings, wanted, drop, m, k
    )
    scores = np.empty(len(items), np.float32)
    for place in range(len(items)):
        scores[place] = total[place] * np.float64(idf[items[place]]) / (len(wanted) * _PLACES)
    return items, scores


def _narrow(*arrays: npt.NDArray[Any]) -> Any:
    """`arrays` in 32 bits where all of them fit, else in 64."""
    most = max((int(array.max()) for array in arrays if len(array)), default=0)
    width = np.int32 if most <= np.iinfo(np.int32).max else np.int64
    return [np.ascontiguousarray(array, width) for array in arrays]


def _last_of_each_pair(sessions: Ints, items: Ints, num_items: int) -> tuple[Ints, Ints]:
    """Rows in time order, with only the last one of every (session, item) kept."""
    if not len(items):
        return sessions, items
    pair = sessions * num_items + items
    _, first_from_end = np.unique(pair[::-1], return_index=True)
    kept = np.sort(len(pair) - 1 - first_from_end)
    return sessions[kept], items[kept]
