"""The item index of a release, chosen by what it finds: every kind is asked with real query
vectors, and the quickest that finds at least RECALL_GATE of the exact answer is taken. Exact search
is one of the kinds, so there is always one to take."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from contract.encoding import FIRST_ITEM
from contract.index_entry import (
    EXACT_BELOW,
    FLAT,
    RECALL_GATE,
    WANTED,
    IndexEntry,
    IndexSearch,
    Recall,
    served_k,
)
from contract.item_index import ItemIndex, Mask, opened, padded
from contract.items import Floats, Indices
from training.export.index_kinds import (
    K_FACTORS,
    Coarse,
    content_of,
    flat,
    made_of,
    set_parameters,
)

# Below this many items an inverted file that passes the gate saves less than half of the exact
# search, a tenth of a millisecond of a decision (docs/lab.md, section 19); that does not pay for an
# answer that is not exact.
FLAT_BELOW = 50_000
# HNSW is left out: among inner products of vectors of unlike length its walk finds a quarter to
# three quarters of the nearest (see docs/lab.md); it is also the largest and slowest to build.
CANDIDATES = ("ivf_fp16", "ivf_flat", "ivf_sq8", "ivf_pq")
_NPROBE = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_EF_SEARCH = (64, 128, 256, 512)
_TOGETHER = 2  # queries of one decision: one of each tower
_TIMED = 100


@dataclass(frozen=True)
class Tried:
    """One index, asked in one way. `median_ms` is one decision's search: two queries at once."""

    kind: str
    parameters: dict[str, int]
    recall: tuple[Recall, ...]
    median_ms: float
    build_seconds: float
    memory_mib: float  # held while it serves, the exact vectors included

    @property
    def passed(self) -> bool:
        """Whether it finds enough, everywhere that was looked at."""
        return passes(self.recall)


def passes(recall: Sequence[Recall]) -> bool:
    """Whether nothing that was measured is below the gate."""
    return all(one.value >= RECALL_GATE for one in recall)


@dataclass(frozen=True)
class Built:
    """The index as the content of its file, what the manifest says of it, and all that was tried
    for it."""

    content: bytes
    entry: IndexEntry
    tried: tuple[Tried, ...]


class Gate:
    """The exact answers to `queries` [Q, d], and how many of them an index finds.

    Looked at are the smallest and the largest k in use, and two filters, because what an index
    misses may be just what a filter leaves: a random quarter of the items (the strictest that is
    not answered exactly), and the half of them on one side of the space, as a department might be.
    """

    def __init__(self, vectors: Floats, queries: Floats, seed: int = 0) -> None:
        self.exact = ItemIndex(padded(vectors))
        self.queries = np.ascontiguousarray(queries, np.float32)
        count = len(vectors)
        self._nearest = self.exact.search(self.queries, served_k(count)[-1])
        rng = np.random.default_rng(seed)
        quarter = rng.permutation(count)[: -int(-count * EXACT_BELOW // 1)]
        axis = np.linalg.svd(vectors[rng.permutation(count)[:10_000]] - vectors.mean(0))[2][0]
        half = np.argsort(vectors @ axis, kind="stable")[: (count + 1) // 2]
        self._filters = {"random quarter": self._mask(quarter), "one side": self._mask(half)}
        self._filtered = {
            name: np.stack(self.exact.exact(self.queries, mask, WANTED))
            for name, mask in self._filters.items()
        }

    def recall(self, index: ItemIndex, *, until_one_fails: bool = False) -> tuple[Recall, ...]:
        """What `index` finds of the exact answers, without and with filters; on demand only as far
        as the first that is below the gate."""
        found: list[Recall] = []
        for name, k in [("none", k) for k in served_k(index.items)] + [
            (name, WANTED) for name in self._filters
        ]:
            if until_one_fails and not passes(found):
                break
            if name == "none":
                value = share_found(index.search(self.queries, k), self._nearest[:, :k])
            else:
                rows = index.nearest(self.queries, self._filters[name], WANTED)
                value = share_found(np.stack(rows), self._filtered[name])
            found.append(Recall(filter=name, k=k, value=value))
        return tuple(found)

    def median_ms(self, index: ItemIndex) -> float:
        """Milliseconds of one decision's search on one thread, where everything may be shown."""
        everything = self._mask(np.arange(index.items))
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        took = []
        try:
            for start in range(0, min(len(self.queries), _TOGETHER * _TIMED), _TOGETHER):
                began = time.thread_time()  # of this thread alone, whatever else the machine does
                index.nearest(self.queries[start : start + _TOGETHER], everything, WANTED)
                took.append(time.thread_time() - began)
        finally:
            faiss.omp_set_num_threads(threads)
        return float(np.median(took)) * 1e3

    def _mask(self, items: npt.NDArray[np.int64]) -> Mask:
        mask = np.zeros(len(self.exact.vectors), bool)
        mask[items + FIRST_ITEM] = True
        return mask


def share_found(found: Indices, exact: Indices) -> float:
    """The share of the entries of `exact` [Q, k] that stand in the same row of `found`."""
    row = np.arange(len(exact))[:, None] * (1 + max(int(found.max()), int(exact.max())))
    return float(np.isin(exact + row, found + row).mean())


def build(
    vectors: Floats,
    queries: Callable[[], Floats],
    *,
    flat_below: int = FLAT_BELOW,
    kinds: Sequence[str] = CANDIDATES,
) -> Built:
    """The index of `vectors` [items, d]; row i holds vocabulary index i + FIRST_ITEM.

    `queries` makes the query vectors [Q, d] to judge by; it is not called below `flat_below` items.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if len(vectors) < flat_below:
        return Built(content_of(flat(vectors)), _entry(vectors, FLAT), ())
    gate = Gate(vectors, queries())
    coarse = Coarse.of(vectors)
    tried = [try_flat(gate)]
    for kind in kinds:
        tried += (one for one, _ in try_kind(kind, vectors, gate, coarse))
    best = choose(tried)
    if best.kind == FLAT:
        return Built(content_of(flat(vectors)), _entry(vectors, FLAT), tuple(tried))
    made = made_of(best.kind, vectors, coarse)
    set_parameters(made, best.parameters)
    search = IndexSearch(parameters=best.parameters, recall=best.recall, queries=len(gate.queries))
    return Built(content_of(made), _entry(vectors, best.kind, search), tuple(tried))


def choose(tried: Sequence[Tried]) -> Tried:
    """The quickest of those that passed."""
    return min((one for one in tried if one.passed), key=lambda one: one.median_ms)


def try_flat(gate: Gate) -> Tried:
    """Exact search, judged like any other."""
    return _tried(FLAT, {}, gate, gate.exact, gate.recall(gate.exact), 0.0)


def try_kind(
    kind: str, vectors: Floats, gate: Gate, coarse: Coarse
) -> Iterator[tuple[Tried, ItemIndex]]:
    """For each way of fetching more than is asked for: the least effort that passes, or the
    greatest there is when none does, and the index so set, until the next is asked for."""
    began = time.perf_counter()
    made = made_of(kind, vectors, coarse)
    seconds = time.perf_counter() - began + (coarse.seconds if kind != "hnsw" else 0)
    # Judged is what serving will hold: the file, read and opened.
    index = opened(faiss.deserialize_index(faiss.serialize_index(made)), _entry(vectors, kind))
    index.vectors = gate.exact.vectors  # the same ones, once in memory
    del made
    for k_factor in K_FACTORS.get(kind, (1,)):
        index.k_factor = k_factor
        chosen, recall = _least_effort(kind, gate, index, coarse.num_lists)
        parameters = chosen | ({"k_factor": k_factor} if kind in K_FACTORS else {})
        yield _tried(kind, parameters, gate, index, recall, seconds), index


def _least_effort(
    kind: str, gate: Gate, index: ItemIndex, num_lists: int
) -> tuple[dict[str, int], tuple[Recall, ...]]:
    for parameters in _efforts(kind, num_lists):
        set_parameters(index.approximate, parameters)
        recall = gate.recall(index, until_one_fails=True)
        if passes(recall):
            return parameters, recall
    return parameters, gate.recall(index)


def _tried(
    kind: str,
    parameters: dict[str, int],
    gate: Gate,
    index: ItemIndex,
    recall: tuple[Recall, ...],
    seconds: float,
) -> Tried:
    size = index.vectors.nbytes
    if index.approximate is not None:
        size += len(faiss.serialize_index(index.approximate))
    return Tried(kind, parameters, recall, gate.median_ms(index), seconds, size / 2**20)


def _efforts(kind: str, num_lists: int) -> list[dict[str, int]]:
    if kind == "hnsw":
        return [{"ef_search": ef} for ef in _EF_SEARCH]
    return [{"nprobe": n} for n in _NPROBE if n < num_lists] or [{"nprobe": num_lists}]


def _entry(vectors: Floats, kind: str, search: IndexSearch | None = None) -> IndexEntry:
    return IndexEntry(
        metric="inner_product",
        kind=kind,
        dimension=vectors.shape[1],
        count=len(vectors),
        search=search,
    )
