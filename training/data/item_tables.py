"""The frozen tables of a release, counted from the baskets before a moment: item statistics, items
bought together, the session neighbourhood, and the popular list."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from contract.clock import DAY_US
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.items import CategoryLift, ItemNeighbours, ItemTable, category_codes
from contract.popular import MAX_ITEMS, PopularLists
from contract.session_knn import SessionKnn
from training.data import popular_lists
from training.data.baskets import Baskets, Numbers, Timelines

RECENT_DAYS = 28
WEEK_DAYS = 7
NEIGHBOURS = 64
# Categories whose lift is kept, the most frequent ones: 2,048 x 2,048 half floats are 8 MiB.
LIFT_CATEGORIES = 2_047
LIFT_PRIOR = 2.0
# VMIS-kNN over baskets: carts are sets rather than clicks, so more of the cart is looked up.
KNN_SESSIONS, KNN_NEIGHBOURS, KNN_QUERY_ITEMS = 500, 100, 10


@dataclass(frozen=True)
class ItemTables:
    """Everything that is counted rather than learned. N = len(vocabulary)."""

    statistics: ItemTable
    neighbours: ItemNeighbours
    knn: SessionKnn
    popular: PopularLists
    together: sparse.csr_array  # [N, N] cosine of baskets, the diagonal left out


def vocabulary_map(baskets: Baskets, vocabulary: Vocabulary) -> Numbers:
    """The vocabulary index of each of `baskets.item_ids`, OOV where it has none."""
    return vocabulary.indices(baskets.item_ids)


def incidence(baskets: Baskets, numbers: Numbers, vocabulary: Vocabulary) -> sparse.csr_array:
    """Which known item stands in which basket: [len(numbers), N] of ones."""
    basket, item = baskets.entries(numbers)
    index = vocabulary_map(baskets, vocabulary)[item]
    known = index >= FIRST_ITEM
    row = np.searchsorted(numbers, basket[known])
    ones = np.ones(len(row), np.float32)
    shape = (len(numbers), len(vocabulary))
    return sparse.csr_array(sparse.coo_array((ones, (row, index[known])), shape=shape))


def count(
    baskets: Baskets,
    until_us: int,
    vocabulary: Vocabulary,
    catalogue: pa.Table,
    timelines: Timelines | None = None,
) -> ItemTables:
    """The tables from all baskets before `until_us`. `catalogue` has CATALOGUE_COLUMNS. With
    `timelines` the popular items are also counted by segment and region."""
    numbers = baskets.between(int(np.iinfo(np.int64).min), until_us)
    held = incidence(baskets, numbers, vocabulary)
    together = _cosine(held)
    rows = held.tocoo()
    knn = SessionKnn.fit(
        rows.row.astype(np.int64),
        rows.col.astype(np.int64),
        baskets.occurred_us[numbers][rows.row],
        num_items=len(vocabulary),
        m=KNN_SESSIONS,
        k=KNN_NEIGHBOURS,
        query_items=KNN_QUERY_ITEMS,
    )
    statistics = _statistics(baskets, numbers, until_us, held, vocabulary, catalogue)
    order = np.argsort(-statistics.recent_popularity, kind="stable")
    popular = PopularLists(order[order >= FIRST_ITEM][:MAX_ITEMS])
    if timelines is not None:
        recent = baskets.between(until_us - RECENT_DAYS * DAY_US, until_us)
        held_then = held[np.searchsorted(numbers, recent)]
        popular = popular_lists.by_cell(popular.overall, baskets, timelines, recent, held_then)
    wide, narrow = (_category_lift(held, statistics.categories[:, level]) for level in (1, -1))
    near = ItemNeighbours(*_nearest(together, NEIGHBOURS), wide, narrow, float(len(numbers)))
    return ItemTables(statistics, near, knn, popular, together)


def _cosine(held: sparse.csr_array) -> sparse.csr_array:
    frequency = np.asarray(held.sum(axis=0)).ravel()
    scaled = held @ sparse.diags_array(1.0 / np.sqrt(np.maximum(frequency, 1.0)))
    together = sparse.csr_array(scaled.T @ scaled)
    together.setdiag(0.0)
    together.eliminate_zeros()
    return together.astype(np.float32)


def _category_lift(held: sparse.csr_array, category: Numbers) -> CategoryLift:
    """log of (baskets with both + prior) over what chance would give + prior, between the
    categories of one level; the prior draws what was seldom seen towards no lift at all."""
    codes, place = np.unique(category, return_inverse=True)
    frequency = np.asarray(held.sum(axis=0)).ravel()
    sold = np.bincount(place, frequency, minlength=len(codes))
    sold[codes == 0] = 0
    kept = np.argsort(-sold, kind="stable")[:LIFT_CATEGORIES]
    kept = kept[sold[kept] > 0]
    number = np.zeros(len(codes), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    group = number[place]
    member = sparse.coo_array(
        (np.ones(len(group), np.float32), (np.arange(len(group)), group)),
        shape=(len(group), len(kept) + 1),
    )
    baskets = sparse.csr_array(held @ sparse.csr_array(member))
    baskets.data[:] = 1.0
    both = (baskets.T @ baskets).toarray().astype(np.float64)
    alone = np.diag(both)
    by_chance = np.outer(alone, alone) / max(held.shape[0], 1)
    lift = np.log((both + LIFT_PRIOR) / (by_chance + LIFT_PRIOR))
    lift[0], lift[:, 0] = 0.0, 0.0
    half = np.ascontiguousarray(lift, np.float16)
    return CategoryLift(group, half.astype(np.float32))


def _nearest(
    together: sparse.csr_array, limit: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    size = together.shape[0]
    neighbours = np.zeros((size, limit), np.int32)
    similarity = np.zeros((size, limit), np.float32)
    for item in range(size):
        start, end = together.indptr[item], together.indptr[item + 1]
        value, near = together.data[start:end], together.indices[start:end]
        order = np.lexsort((near, -value))[:limit]
        neighbours[item, : len(order)] = near[order]
        similarity[item, : len(order)] = value[order]
    return neighbours, similarity


def _statistics(
    baskets: Baskets,
    numbers: Numbers,
    until_us: int,
    held: sparse.csr_array,
    vocabulary: Vocabulary,
    catalogue: pa.Table,
) -> ItemTable:
    times = baskets.occurred_us[numbers]
    repeat_rate, gap_days, buyers = _repurchase(held, baskets.subject[numbers], times)
    place = {item_id: row for row, item_id in enumerate(catalogue["item_id"].to_pylist())}
    rows = [place.get(item_id, -1) for item_id in vocabulary.item_ids]
    prices = np.array([price or 0 for price in catalogue["price"].to_pylist()] + [0], np.float64)
    paths = [*catalogue["category_path"].to_pylist(), []]
    frequency = np.asarray(held.sum(axis=0)).ravel()

    def since(days: int) -> npt.NDArray[np.float64]:
        recent = np.flatnonzero(times >= until_us - days * DAY_US)
        return np.asarray(held[recent].sum(axis=0)).ravel()

    columns = {
        "popularity": np.log1p(frequency),
        "recent_popularity": np.log1p(since(RECENT_DAYS)),
        "weekly_popularity": np.log1p(since(WEEK_DAYS)),
        "buyers": np.log1p(buyers),
        "repeat_rate": repeat_rate,
        "gap_days": gap_days,
    }
    known = {name: column[FIRST_ITEM:] for name, column in columns.items()}
    known["price_level"] = np.log1p(prices[rows])
    return ItemTable.from_columns(known, category_codes([paths[row] or [] for row in rows]))


def _repurchase(
    held: sparse.csr_array, subject: Numbers, times: Numbers
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Numbers]:
    """Share of buyers who came back for an item, the mean days between two purchases, and the
    number of buyers, [N] each."""
    rows = held.tocoo()
    size = held.shape[1]
    pair = subject[rows.row] * size + rows.col
    order = np.lexsort((times[rows.row], pair))
    pair, when = pair[order], times[rows.row][order]
    again = pair[1:] == pair[:-1]
    item = pair % size
    gaps = np.diff(when)[again] / DAY_US
    gap_count = np.bincount(item[1:][again], minlength=size)
    gap_sum = np.bincount(item[1:][again], gaps, minlength=size)
    buyers = np.bincount(np.unique(pair) % size, minlength=size)
    returning = np.bincount(np.unique(pair[1:][again]) % size, minlength=size)
    # Shrunk towards the shop's own rate, so that one loyal buyer does not make an item a staple.
    rate = returning.sum() / max(int(buyers.sum()), 1)
    return (returning + 5 * rate) / (buyers + 5), gap_sum / np.maximum(gap_count, 1), buyers
