"""Nearest items by inner product: the one search that the gateway answers with, that the export
judges an index by, and that the benchmark times.

An approximate index is only asked where most items may be shown; what a strict filter leaves is
looked at item by item. The exact vectors are always at hand, whatever the index keeps of them.
"""

import threading
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from contract.compiled import FLOATS_2D, INT, INTS_2D, MASK, MASK_2D, compiled
from contract.encoding import FIRST_ITEM
from contract.index_entry import EXACT_BELOW, FLAT, IndexEntry, search_limit
from contract.items import Floats, Indices

Mask = npt.NDArray[np.bool_]
# Up to this share the eligible vectors are copied together, a part that fits the cache at a time;
# above it they are skipped over where they lie. Measured from 26,000 to a million items.
_COPY_BELOW = 0.5
_PART = 4_096
# From this share on, one search without a filter answers several checkouts.
_TOGETHER_ABOVE = 0.9
# Vectors are multiplied with the queries so many rows at a time: a product this small stays in the
# cache, and OpenBLAS does not begin to share it out among threads, which takes longer than it does.
_ROWS = 256
_MOST_KEPT = 1 << 21  # numbers, of 4 bytes
_LOSSY = {faiss.ScalarQuantizer.QT_fp16: "ivf_fp16", faiss.ScalarQuantizer.QT_8bit: "ivf_sq8"}


class ItemIndex:
    """Search over N = items + FIRST_ITEM rows; rows PAD and OOV are zero and never found.

    `vectors` [N, d] are exact. `approximate`: a FAISS index whose vector i is item i + FIRST_ITEM,
    None where every search is exact.
    """

    def __init__(self, vectors: Floats, approximate: Any = None, *, k_factor: int = 1) -> None:
        self.vectors = vectors
        self.approximate = approximate
        self.k_factor = k_factor
        self._kept = threading.local()

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.vectors) - FIRST_ITEM

    def nearest(self, queries: Floats, mask: Mask, wanted: int) -> list[Indices]:
        """The `wanted` nearest items that `mask` [N] lets through, best first, for each of
        `queries` [Q, d]; fewer only where the mask lets fewer through."""
        allowed = int(np.count_nonzero(mask[FIRST_ITEM:]))
        share = allowed / max(self.items, 1)
        if self.approximate is None or share < EXACT_BELOW:
            return self.exact(queries, mask, wanted)
        wanted = min(wanted, allowed)
        rows = self.search(queries, search_limit(wanted, share, self.items))
        return self._filtered(queries, rows, mask, wanted)

    def nearest_each(
        self, queries: Floats, masks: Sequence[Mask], wanted: int
    ) -> list[list[Indices]]:
        """`nearest` for several checkouts, each with its own of `queries` [B, Q, d] and of `masks`.

        An exact search goes over the vectors once for all of them. Of an approximate one those
        whose masks let nearly everything through are searched together and filtered afterwards.
        """
        if self.approximate is None:
            return self._exact_each(queries, masks, wanted)
        shares = [np.count_nonzero(mask[FIRST_ITEM:]) / max(self.items, 1) for mask in masks]
        open_ = [place for place, share in enumerate(shares) if share >= _TOGETHER_ABOVE]
        rows: dict[int, Indices] = {}
        if len(open_) > 1:
            limit = search_limit(min(wanted, self.items), _TOGETHER_ABOVE, self.items)
            _, asked, dimension = queries.shape
            found = self.search(queries[open_].reshape(-1, dimension), limit)
            rows = dict(zip(open_, found.reshape(len(open_), asked, -1), strict=True))
        return [
            self._filtered(own, rows[place], mask, min(wanted, round(shares[place] * self.items)))
            if place in rows
            else self.nearest(own, mask, wanted)
            for place, (own, mask) in enumerate(zip(queries, masks, strict=True))
        ]

    def _exact_each(
        self, queries: Floats, masks: Sequence[Mask], wanted: int
    ) -> list[list[Indices]]:
        """A matrix product of all vectors and all queries, of which each checkout picks its own:
        a third of what FAISS takes for so few queries and so few neighbours."""
        _, asked, dimension = queries.shape
        turned = np.ascontiguousarray(self._checked(queries.reshape(-1, dimension)).T)
        scores = self._room(turned.shape[1])
        whole = len(scores) - len(scores) % _ROWS
        np.matmul(
            self.vectors[:whole].reshape(-1, _ROWS, dimension),
            turned,
            out=scores[:whole].reshape(-1, _ROWS, turned.shape[1]),
        )
        np.matmul(self.vectors[whole:], turned, out=scores[whole:])
        found, counts = _highest(scores, np.array(masks), FIRST_ITEM, min(wanted, self.items))
        return [
            [row[:count] for row in rows]
            for rows, count in zip(found.reshape(len(masks), asked, -1), counts, strict=True)
        ]

    def _room(self, queries: int) -> Floats:
        """An array for all scores, [N, queries]. Each thread keeps its own: for every search the
        system would have to give it anew, page by page."""
        size = len(self.vectors) * queries
        if size > _MOST_KEPT:
            return np.empty((len(self.vectors), queries), np.float32)
        held: Floats | None = getattr(self._kept, "room", None)
        if held is None or len(held) < size:
            held = self._kept.room = np.empty(size, np.float32)
        return held[:size].reshape(-1, queries)

    def _filtered(self, queries: Floats, rows: Indices, mask: Mask, wanted: int) -> list[Indices]:
        """The first `wanted` of each of `rows` that `mask` lets through; where that leaves too few,
        by looking at every item."""
        kept, counts = _let_through(rows, mask, FIRST_ITEM, wanted)
        found = [row[:count] for row, count in zip(kept, counts.tolist(), strict=True)]
        short = [place for place, row in enumerate(found) if len(row) < wanted]
        if short:
            exact = self.exact(queries[short], mask, wanted)
            for place, row in zip(short, exact, strict=True):
                found[place] = row
        return found

    def search(self, queries: Floats, limit: int) -> Indices:
        """The `limit` items nearest to each of `queries` [Q, d] of all, best first, [Q, limit];
        places that an approximate index could not fill hold 0 (PAD)."""
        queries = self._checked(queries)
        if self.approximate is None:
            return self._products(queries, self.vectors[FIRST_ITEM:], limit)[1] + FIRST_ITEM
        fetched = min(limit * self.k_factor, self.items)
        _, found = self.approximate.search(queries, fetched)
        index = np.where(found >= 0, found + FIRST_ITEM, 0)
        if fetched == limit:
            return index
        scores = np.matmul(self.vectors[index], queries[:, :, None])[:, :, 0]
        scores[index < FIRST_ITEM] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return np.take_along_axis(index, best, 1)

    def exact(self, queries: Floats, mask: Mask, wanted: int) -> list[Indices]:
        """As `nearest`, by looking at every item that `mask` lets through."""
        queries = self._checked(queries)
        if mask.shape != (len(self.vectors),):
            raise ValueError(f"a mask over {len(mask)} rows does not fit {len(self.vectors)}")
        allowed = int(np.count_nonzero(mask[FIRST_ITEM:]))
        wanted = min(wanted, allowed)
        if not wanted:
            return [np.empty(0, np.int64) for _ in queries]
        if allowed > _COPY_BELOW * len(mask):
            return list(self._skipping(queries, mask, wanted))
        index = np.flatnonzero(mask[FIRST_ITEM:]) + FIRST_ITEM
        scores, rows = [], []
        copied = np.empty((min(_PART, len(index)), self.vectors.shape[1]), np.float32)
        for start in range(0, len(index), _PART):
            part = index[start : start + _PART]
            here = copied[: len(part)]
            np.take(self.vectors, part, axis=0, out=here, mode="clip")  # else it copies twice
            score, place = self._products(queries, here, min(wanted, len(part)))
            scores.append(score)
            rows.append(part[place])
        joined, row = np.hstack(scores), np.hstack(rows)
        best = np.argsort(-joined, axis=1, kind="stable")[:, :wanted]
        return list(np.take_along_axis(row, best, 1))

    def _skipping(self, queries: Floats, mask: Mask, wanted: int) -> Indices:
        bits = np.packbits(mask, bitorder="little")
        bits[0] &= 0xFF << FIRST_ITEM & 0xFF
        selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
        return self._products(queries, self.vectors, wanted, selector)[1]

    @staticmethod
    def _products(
        queries: Floats, vectors: Floats, k: int, selector: Any = None
    ) -> tuple[Floats, Indices]:
        """The k largest inner products and their rows, best first, [Q, k] each."""
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        # What IndexFlatIP calls, on vectors that numpy holds: there is no second copy of them.
        faiss.knn_inner_product(
            *(faiss.swig_ptr(queries), faiss.swig_ptr(vectors)),
            *(vectors.shape[1], len(queries), len(vectors), k),
            *(faiss.swig_ptr(scores), faiss.swig_ptr(rows)),
            selector,
        )
        return scores, rows

    def _checked(self, queries: Floats) -> Floats:
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"queries {queries.shape} do not fit vectors {self.vectors.shape}")
        return np.ascontiguousarray(queries, np.float32)


@compiled(FLOATS_2D, MASK_2D, INT, INT)
def _highest(scores: Floats, masks: Mask, first_item: int, wanted: int) -> tuple[Indices, Indices]:
    """The `wanted` rows of each column of `scores` [N, B * Q] that are highest of those that its
    mask of `masks` [B, N] lets through, best first; how many there are by mask, [B]."""
    rows, queries = scores.shape
    asked = queries // len(masks)
    best = np.full((queries, wanted), -np.inf, np.float32)  # heaps, the lowest on top
    found, lowest = np.zeros((queries, wanted), np.int64), np.full(queries, -np.inf, np.float32)
    if wanted:
        for row in range(first_item, rows):
            for query in range(queries):
                score = scores[row, query]
                if not score > lowest[query] or not masks[query // asked, row]:
                    continue
                heap, held, at = best[query], found[query], 0
                while 2 * at + 1 < wanted:
                    child = 2 * at + 1
                    child += child + 1 < wanted and heap[child + 1] < heap[child]
                    if heap[child] >= score:
                        break
                    heap[at], held[at], at = heap[child], held[child], child
                heap[at], held[at] = score, row
                lowest[query] = heap[0]  # after that: it may have become the lowest itself
    counts = np.zeros(len(masks), np.int64)
    for one in range(len(masks)):
        for row in range(first_item, rows):
            counts[one] += masks[one, row]
        counts[one] = min(counts[one], wanted)
    for query in range(queries):
        found[query] = found[query][np.argsort(-best[query], kind="mergesort")]
    return found, counts


@compiled(INTS_2D, MASK, INT, INT)
def _let_through(
    rows: Indices, mask: Mask, first_item: int, wanted: int
) -> tuple[Indices, Indices]:
    """The first `wanted` of each of `rows` that `mask` lets through, and how many there are."""
    found, counts = np.zeros((len(rows), wanted), np.int64), np.zeros(len(rows), np.int64)
    for query in range(len(rows)):
        for item in rows[query]:
            if counts[query] == wanted:
                break
            if item >= first_item and mask[item]:
                found[query, counts[query]] = item
                counts[query] += 1
    return found, counts


def padded(vectors: Floats) -> Floats:
    """Item vectors [items, d] as rows of the vocabulary, [items + FIRST_ITEM, d]."""
    return np.vstack((np.zeros((FIRST_ITEM, vectors.shape[1]), np.float32), vectors))


def opened(found: Any, entry: IndexEntry) -> ItemIndex:
    """The index of a release, from the FAISS index in its file and what its manifest says of it.

    An index that keeps its vectors only roughly lies in its file inside an IndexRefineFlat with
    the exact ones. ValueError says what differs from the manifest.
    """
    outer, base, kind, parameters = found, found, FLAT, {}
    if isinstance(found, faiss.IndexRefineFlat):
        base = faiss.downcast_index(found.base_index)
        parameters["k_factor"] = int(found.k_factor)
        kind = "ivf_pq" if isinstance(base, faiss.IndexIVFPQFastScan) else "unknown"
        if isinstance(base, faiss.IndexIVFScalarQuantizer):
            kind = _LOSSY.get(base.sq.qtype, "unknown")
    elif isinstance(found, faiss.IndexHNSWFlat):
        kind, parameters["ef_search"] = "hnsw", found.hnsw.efSearch
    elif isinstance(found, faiss.IndexIVFFlat):
        kind = "ivf_flat"
    elif not isinstance(found, faiss.IndexFlat):
        kind = "unknown"
    if isinstance(base, faiss.IndexIVF):
        parameters["nprobe"] = base.nprobe
    if outer.metric_type != base.metric_type or base.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError("its metric is not the inner product")
    stated = {"kind": entry.kind, "dimension": entry.dimension, "count": entry.count}
    held = {"kind": kind, "dimension": outer.d, "count": outer.ntotal}
    for what, wanted in (stated | entry.parameters).items():
        if (held | parameters).get(what) != wanted:
            raise ValueError(f"{what} is {(held | parameters).get(what)}, not {wanted}")
    if (base.d, base.ntotal) != (outer.d, outer.ntotal):
        raise ValueError("its parts do not hold the same items")
    return _with_vectors(outer, base, kind, parameters.get("k_factor", 1))


def _with_vectors(outer: Any, base: Any, kind: str, k_factor: int) -> ItemIndex:
    source = outer if base is outer else faiss.downcast_index(outer.refine_index)
    if not isinstance(source, faiss.IndexFlat) and source is not outer:
        raise ValueError("its exact vectors are missing")
    if (source.d, source.ntotal) != (base.d, base.ntotal):
        raise ValueError("its parts do not hold the same items")
    vectors = padded(source.reconstruct_n(0, source.ntotal))
    if kind == FLAT:
        return ItemIndex(vectors)
    if base is not outer:  # a copy of the rough index alone: the exact vectors are ours already
        base = faiss.deserialize_index(faiss.serialize_index(base))
    return ItemIndex(vectors, base, k_factor=k_factor)
