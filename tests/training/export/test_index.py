"""The gate: what does not find enough is passed over; what is taken finds enough, counted anew."""

from typing import Any

import faiss
import numpy as np
import pytest

from contract.encoding import FIRST_ITEM
from contract.index_entry import RECALL_GATE, WANTED, Recall, index_problems, served_k
from contract.item_index import ItemIndex, opened, padded
from tests.contract.vectors import clustered, exact, found_share
from training.export.index import FLAT_BELOW, Built, Gate, Tried, build, choose, try_kind
from training.export.index_kinds import Coarse

ITEMS = 6_000
VECTORS, QUERIES = clustered(ITEMS, queries=150)
EVERY_KIND = ("ivf_flat", "ivf_fp16", "ivf_sq8", "ivf_pq", "hnsw")


def never() -> Any:
    raise AssertionError("no query is needed below the size")


def tried(kind: str, ms: float, *recall: float) -> Tried:
    found = tuple(Recall(filter="none", k=91, value=value) for value in recall)
    return Tried(kind, {}, found, ms, 0.0, 1.0)


def test_small_catalogues_are_searched_exactly() -> None:
    built = build(VECTORS, never)
    assert FLAT_BELOW > ITEMS
    assert (built.entry.kind, built.entry.search, built.tried) == ("flat", None, ())
    index = opened(_read(built), built.entry)
    assert np.array_equal(index.vectors, padded(VECTORS))


def test_the_quickest_that_passes_is_taken_and_else_the_exact_one() -> None:
    flat = tried("flat", 9.0, 1.0, 1.0)
    fast, slow = tried("ivf_fp16", 1.0, 0.995, 0.991), tried("ivf_flat", 2.0, 1.0, 1.0)
    misses = tried("ivf_pq", 0.1, 0.9999, 0.9899)
    assert choose([flat, slow, misses, fast]).kind == "ivf_fp16"
    assert choose([flat, misses]).kind == "flat"
    assert choose([tried("flat", 0.5, 1.0), slow]).kind == "flat"
    assert not misses.passed
    assert fast.passed


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate(VECTORS, QUERIES)


@pytest.fixture(scope="module")
def coarse() -> Coarse:
    return Coarse.of(VECTORS)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_the_measured_recall_is_true(kind: str, gate: Gate, coarse: Coarse) -> None:
    for one, index in try_kind(kind, VECTORS, gate, coarse):
        measured = {(r.filter, r.k): r.value for r in one.recall}
        for k in served_k(ITEMS):
            expected = [exact(VECTORS, query, k) for query in QUERIES]
            share = found_share(index.search(QUERIES, k), expected)
            assert measured["none", k] == pytest.approx(share, abs=1e-3)  # ties of single precision
        assert {name for name, _ in measured} == {"none", "random quarter", "one side"}
        assert one.passed == (min(measured.values()) >= RECALL_GATE)


def test_the_exact_answers_under_filters_are_right(gate: Gate) -> None:
    assert {one.value for one in gate.recall(gate.exact)} == {1.0}
    blind = ItemIndex(padded(np.ascontiguousarray(VECTORS[::-1])))  # the right vectors, wrong rows
    assert max(one.value for one in gate.recall(blind)) < 0.5
    assert len(gate.recall(blind, until_one_fails=True)) == 1


def test_an_index_that_cannot_reach_the_gate_is_passed_over() -> None:
    """Long vectors draw every walk through the graph of inner products to themselves."""
    rng = np.random.default_rng(2)
    vectors = VECTORS * np.exp(rng.normal(0, 1.5, (ITEMS, 1))).astype(np.float32)
    built = build(vectors, lambda: QUERIES, flat_below=ITEMS, kinds=("hnsw",))
    flat, hnsw = built.tried
    assert hnsw.kind == "hnsw"
    assert not hnsw.passed
    assert (built.entry.kind, built.entry.search) == ("flat", None)
    assert opened(_read(built), built.entry).approximate is None
    assert flat.passed


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_what_is_written_is_what_was_judged(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says here, the approximate one is taken, read back and counted anew."""
    monkeypatch.setattr(Gate, "median_ms", lambda self, index: float(index.approximate is None))
    built = build(VECTORS, lambda: QUERIES, flat_below=ITEMS, kinds=(kind,))
    if not any(one.passed for one in built.tried if one.kind == kind):
        assert built.entry.kind == "flat"
        return
    assert built.entry.kind == kind
    assert index_problems(built.entry) == []
    index = opened(_read(built), built.entry)
    assert np.array_equal(index.vectors, padded(VECTORS))
    for k in served_k(ITEMS):
        expected = [exact(VECTORS, query, k) for query in QUERIES]
        assert found_share(index.search(QUERIES, k), expected) >= RECALL_GATE - 1e-3
    for share in (0.4, 0.1, 0.01, 0.001):
        mask = np.zeros(ITEMS + FIRST_ITEM, bool)
        allowed = np.random.default_rng(9).permutation(ITEMS)[: round(share * ITEMS)]
        mask[allowed + FIRST_ITEM] = True
        found = index.nearest(QUERIES, mask, WANTED)
        assert all(mask[row].all() for row in found)
        assert {len(row) for row in found} == {min(WANTED, len(allowed))}
        expected = [exact(VECTORS, query, WANTED, mask) for query in QUERIES]
        assert found_share(found, expected) >= (RECALL_GATE if share > 0.25 else 1.0)


def _read(built: Built) -> Any:
    return faiss.deserialize_index(np.frombuffer(built.content, np.uint8))
