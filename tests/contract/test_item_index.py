"""The one search: exact under every filter where it says so, never leaking, never starving."""

from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.encoding import FIRST_ITEM
from contract.index_entry import (
    KINDS,
    RECALL_GATE,
    WANTED,
    IndexEntry,
    IndexSearch,
    Recall,
    index_problems,
    search_limit,
    served_k,
)
from contract.item_index import ItemIndex, opened, padded
from tests.contract.vectors import clustered, exact, found_share

ITEMS = 9_000
VECTORS, QUERIES = clustered(ITEMS)


def ivf(nprobe: int, spec: str = "IVF64,Flat") -> Any:
    """An inverted file over VECTORS, as it is read from a file."""
    made: Any = faiss.index_factory(VECTORS.shape[1], spec, faiss.METRIC_INNER_PRODUCT)
    made.train(VECTORS)
    made.add(VECTORS)
    faiss.ParameterSpace().set_index_parameter(made, "nprobe", nprobe)
    return faiss.deserialize_index(faiss.serialize_index(made))


@pytest.fixture(scope="module")
def good() -> ItemIndex:
    """Approximate, and finds nearly everything."""
    return ItemIndex(padded(VECTORS), ivf(40))


@pytest.fixture(scope="module")
def poor() -> ItemIndex:
    """Approximate, and looks into one list of 64."""
    return ItemIndex(padded(VECTORS), ivf(1))


def random_mask(share: float, seed: int) -> Any:
    mask = np.zeros(ITEMS + FIRST_ITEM, bool)
    count = max(1, round(share * ITEMS))
    mask[np.random.default_rng(seed).permutation(ITEMS)[:count] + FIRST_ITEM] = True
    return mask


def test_searches_of_different_sizes_share_a_room() -> None:
    index, mask = ItemIndex(padded(VECTORS)), random_mask(0.5, 3)
    alone = [index.exact(QUERIES[place : place + 1], mask, 10)[0].tolist() for place in range(8)]
    for sizes in ((8, 1), (1, 8), (3, 2)):
        for size in sizes:
            asked = QUERIES[:size, None]
            found = index.nearest_each(asked, [mask] * size, 10)
            assert [rows[0].tolist() for rows in found] == alone[:size]


def test_a_mask_never_lets_padding_through() -> None:
    everything = np.ones(ITEMS + FIRST_ITEM, bool)  # a caller that forgot PAD and OOV
    downward = -np.abs(VECTORS)  # every product is below the zero of the padding rows
    index = ItemIndex(padded(downward))
    upward = np.abs(QUERIES[:3])
    for found in (index.exact(upward, everything, 60), index.nearest(upward, everything, 60)):
        assert all(row.min() >= FIRST_ITEM and len(row) == 60 for row in found)
    approximate = ItemIndex(padded(VECTORS), ivf(40))
    assert all(r.min() >= FIRST_ITEM for r in approximate.nearest(QUERIES, everything, 60))


@pytest.mark.parametrize("share", [1.0, 0.9, 0.51, 0.49, 0.25, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("count", [1, 2, 30])  # FAISS takes another path for many queries
def test_exact_search_is_exact_and_in_order(share: float, count: int) -> None:
    mask = random_mask(share, 3)
    found = ItemIndex(padded(VECTORS)).nearest(QUERIES[:count], mask, WANTED)
    assert [row.tolist() for row in found] == [
        exact(VECTORS, query, WANTED, mask) for query in QUERIES[:count]
    ]


@pytest.mark.parametrize("share", [0.7, 0.3, 0.1, 0.01, 0.001])
def test_a_filter_neither_leaks_nor_starves_nor_loses_recall(good: ItemIndex, share: float) -> None:
    mask = random_mask(share, 5)
    found = good.nearest(QUERIES, mask, WANTED)
    assert all(mask[row].all() for row in found)
    assert {len(row) for row in found} == {min(WANTED, int(mask.sum()))}
    assert all(len(set(row.tolist())) == len(row) for row in found)
    expected = [exact(VECTORS, query, WANTED, mask) for query in QUERIES]
    assert found_share(found, expected) >= (RECALL_GATE if share >= 0.25 else 1.0)


def test_an_index_that_comes_short_is_helped_out_exactly(poor: ItemIndex) -> None:
    """Half of the items may be shown, none of them near: one list holds no 60 of them."""
    query = QUERIES[:1]
    far = np.argsort(VECTORS @ query[0])[: ITEMS // 2]
    mask = np.zeros(ITEMS + FIRST_ITEM, bool)
    mask[far + FIRST_ITEM] = True
    limit = search_limit(WANTED, 0.5, ITEMS)
    assert mask[poor.search(query, limit)].sum() < WANTED
    (found,) = poor.nearest(query, mask, WANTED)
    assert found.tolist() == exact(VECTORS, query[0], WANTED, mask)


@given(
    numbers=st.sets(st.integers(0, ITEMS + FIRST_ITEM - 1), max_size=300),
    invert=st.booleans(),
    wanted=st.integers(1, 80),
    place=st.integers(0, len(QUERIES) - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_mask_is_kept_and_filled(
    numbers: set[int], invert: bool, wanted: int, place: int
) -> None:
    mask = np.zeros(ITEMS + FIRST_ITEM, bool)
    mask[list(numbers)] = True
    mask = ~mask if invert else mask
    allowed = int(mask[FIRST_ITEM:].sum())
    for index in (FLAT_INDEX, ROUGH_INDEX):
        (row,) = index.nearest(QUERIES[place : place + 1], mask, wanted)
        assert len(set(row.tolist())) == len(row) == min(wanted, allowed)
        assert mask[row].all()
        assert (row >= FIRST_ITEM).all()


FLAT_INDEX, ROUGH_INDEX = ItemIndex(padded(VECTORS)), ItemIndex(padded(VECTORS), ivf(1))


def test_fetching_more_and_ranking_again_finds_more() -> None:
    rough = ivf(64, "IVF64,PQ8x4fs")
    expected = [exact(VECTORS, query, 50) for query in QUERIES]
    share = [
        found_share(ItemIndex(padded(VECTORS), rough, k_factor=k).search(QUERIES, 50), expected)
        for k in (1, 4, 20)
    ]
    assert share[0] < 0.9 < share[1] < share[2]
    (row,) = ItemIndex(padded(VECTORS), rough, k_factor=20).search(QUERIES[:1], 50)
    scores = padded(VECTORS)[row] @ QUERIES[0]
    assert (np.diff(scores) <= 0).all()


def test_what_does_not_fit_is_refused() -> None:
    index = ItemIndex(padded(VECTORS))
    with pytest.raises(ValueError, match="do not fit vectors"):
        index.search(QUERIES[:, :8], 5)
    with pytest.raises(ValueError, match="a mask over 9000 rows"):
        index.exact(QUERIES[:1], np.ones(ITEMS, bool), 5)


# --- what the manifest says -----------------------------------------------------------------------


def entry(kind: str, search: IndexSearch | None = None, **changed: Any) -> IndexEntry:
    fields = {"kind": kind, "dimension": VECTORS.shape[1], "count": ITEMS, "search": search}
    return IndexEntry(metric="inner_product", **(fields | changed))


def search(value: float = 0.995, ks: Any = None, **parameters: int) -> IndexSearch:
    at = served_k(ITEMS) if ks is None else ks
    recall = tuple(Recall(filter="none", k=k, value=value) for k in at)
    return IndexSearch(parameters=parameters, recall=recall, queries=9)


def test_k_in_use_is_what_a_quarter_of_the_items_needs() -> None:
    assert served_k(1_000_000) == (60 * 5 // 4 + 16, 60 * 4 * 5 // 4 + 16)
    assert served_k(200) == (91, 200)
    assert served_k(50) == (50,)


def test_an_entry_says_how_it_is_asked_and_that_it_passed() -> None:
    assert index_problems(entry("flat")) == []
    assert index_problems(entry("ivf_flat", search(nprobe=8))) == []
    assert index_problems(entry("ivf_pq", search(k_factor=4, nprobe=8))) == []
    for wrong, told in (
        (entry("magic"), "kind 'magic' is not known"),
        (entry("ivf_flat"), "is asked with ['nprobe'], not with []"),
        (entry("ivf_pq", search(nprobe=8)), "['k_factor', 'nprobe'], not with ['nprobe']"),
        (entry("flat", search(nprobe=8)), "flat is asked with [], not with ['nprobe']"),
        (entry("ivf_flat", search(0.9899, nprobe=8)), "recall 0.9899 at k=91"),
        (entry("ivf_flat", search(ks=(91,), nprobe=8)), "not measured at k=316"),
    ):
        assert any(told in line for line in index_problems(wrong)), told


@pytest.mark.parametrize(
    ("kind", "spec", "parameters"),
    [
        ("flat", "Flat", {}),
        ("ivf_flat", "IVF64,Flat", {"nprobe": 7}),
        ("ivf_fp16", "IVF64,SQfp16,RFlat", {"nprobe": 7, "k_factor": 1}),
        ("ivf_sq8", "IVF64,SQ8,RFlat", {"nprobe": 7, "k_factor": 2}),
        ("ivf_pq", "IVF64,PQ8x4fs,RFlat", {"nprobe": 7, "k_factor": 3}),
        ("hnsw", "HNSW8", {"ef_search": 33}),
    ],
)
def test_every_kind_is_known_by_its_file_and_keeps_exact_vectors(
    kind: str, spec: str, parameters: dict[str, int]
) -> None:
    made: Any = faiss.index_factory(VECTORS.shape[1], spec, faiss.METRIC_INNER_PRODUCT)
    made.train(VECTORS)
    made.add(VECTORS)
    inner: Any = faiss.downcast_index(made.base_index) if "RFlat" in spec else made
    if "nprobe" in parameters:
        inner.nprobe = parameters["nprobe"]
    if "k_factor" in parameters:
        made.k_factor = parameters["k_factor"]
    if "ef_search" in parameters:
        made.hnsw.efSearch = parameters["ef_search"]
    content = faiss.serialize_index(made)
    told = search(**parameters) if parameters else None
    index = opened(faiss.deserialize_index(content), entry(kind, told))
    assert np.array_equal(index.vectors, padded(VECTORS))
    assert (index.approximate is None) == (kind == "flat")
    if kind != "flat":
        found = index.search(QUERIES, 10)
        assert found_share(found, [exact(VECTORS, q, 10) for q in QUERIES]) > 0.5
    for other in (one for one in KINDS if one != kind):
        with pytest.raises(ValueError, match=f"kind is {kind}, not {other}"):
            opened(faiss.deserialize_index(content), entry(other))
    for name, value in parameters.items():
        assert told is not None
        more = told.model_copy(update={"parameters": parameters | {name: value + 1}})
        with pytest.raises(ValueError, match=f"{name} is {value}, not {value + 1}"):
            opened(faiss.deserialize_index(content), entry(kind, more))
    for what, wrong in (("count", ITEMS + 1), ("dimension", 17)):
        with pytest.raises(ValueError, match=f"{what} is "):
            opened(faiss.deserialize_index(content), entry(kind, told, **{what: wrong}))


@pytest.mark.parametrize("spec", ["PQ8x4", "IVF64,SQ4", "IVF64,SQ4,RFlat"])
def test_another_index_is_not_known(spec: str) -> None:
    made: Any = faiss.index_factory(VECTORS.shape[1], spec, faiss.METRIC_INNER_PRODUCT)
    if not made.is_trained:
        made.train(VECTORS)
    made.add(VECTORS)
    with pytest.raises(ValueError, match="kind is unknown, not flat"):
        opened(faiss.deserialize_index(faiss.serialize_index(made)), entry("flat"))


@pytest.mark.parametrize("spec", ["Flat", "IVF64,Flat", "IVF64,SQfp16,RFlat", "HNSW8"])
def test_another_metric_is_refused(spec: str) -> None:
    made: Any = faiss.index_factory(VECTORS.shape[1], spec, faiss.METRIC_L2)
    made.train(VECTORS)
    made.add(VECTORS)
    with pytest.raises(ValueError, match="metric is not the inner product"):
        opened(made, entry("flat"))


@pytest.mark.parametrize("shares", [(1.0,), (1.0, 1.0), (1.0, 0.95, 0.5, 0.001), (0.2, 1.0)])
def test_several_checkouts_at_once_find_what_each_finds_alone(shares: tuple[float, ...]) -> None:
    index = ItemIndex(padded(VECTORS))
    masks = [random_mask(share, seed) for seed, share in enumerate(shares)]
    queries = QUERIES[: 2 * len(shares)].reshape(len(shares), 2, -1)
    found = index.nearest_each(queries, masks, WANTED)
    for own, mask, rows in zip(queries, masks, found, strict=True):
        assert [row.tolist() for row in rows] == [
            exact(VECTORS, query, WANTED, mask) for query in own
        ]


@pytest.mark.parametrize("order", [(5, 3, 4, 3.5), (3.5, 4, 3, 5), (1, 5, 2, 3, 4), (5, 4, 4.5, 1)])
def test_nothing_takes_the_place_of_what_is_nearer(order: tuple[float, ...]) -> None:
    """In whatever order they come; the second of two was once kept by a bound that was too low."""
    index = ItemIndex(padded(np.array(order, np.float32)[:, None]))
    everything = np.ones(len(order) + FIRST_ITEM, bool)
    ((row,),) = index.nearest_each(np.ones((1, 1, 1), np.float32), [everything], 2)
    assert index.vectors[row, 0].tolist() == sorted(order, reverse=True)[:2]


def test_several_checkouts_at_once_never_leak_nor_starve(good: ItemIndex, poor: ItemIndex) -> None:
    everything = np.ones(ITEMS + FIRST_ITEM, bool)  # PAD and OOV, as by mistake, too
    # What is nearest of all may not be shown, which takes more than the search fetched beside it.
    nearest = np.ones(ITEMS + FIRST_ITEM, bool)
    nearest[ItemIndex(padded(VECTORS)).exact(QUERIES[2:3], everything, 300)[0]] = False
    for index in (good, poor):
        rows = index.nearest_each(QUERIES[:4].reshape(2, 2, -1), [everything, nearest], WANTED)
        assert all(len(row) == WANTED for own in rows for row in own)
        assert all(row.min() >= FIRST_ITEM for own in rows for row in own)
        assert all(nearest[row].all() for row in rows[1])
