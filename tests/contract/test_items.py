import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.events import key_of
from contract.items import NOTHING, Sparse, category_codes
from tests.contract.examples import many
from tests.contract.shop import BREAD, EGGS, MILK, SOAP, TEA, indices, item_table, neighbours

SCORES = st.dictionaries(st.integers(0, 40), st.integers(0, 3), max_size=30)


def code(path: str) -> int:
    return 1 + key_of(path) % 2**31


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ((), (0, 0, 0)),
        (("FOOD",), (code("FOOD"),) * 3),
        (("FOOD", "DAIRY"), (code("FOOD"), code("FOOD/DAIRY"), code("FOOD/DAIRY"))),
        (("a", "b", "c"), (code("a"), code("a/b"), code("a/b/c"))),
        (("a", "b", "c", "d"), (code("a"), code("a/b"), code("a/b/c"))),
        (("a", "b", "c", "d", "e"), (code("a"), code("a/b"), code("a/b/c"))),
    ],
)
def test_category_codes(path: tuple[str, ...], codes: tuple[int, ...]) -> None:
    assert category_codes([path]).tolist() == [list(codes)]


def test_levels_are_numbered_on_each_and_stand_in_the_row_of_the_item() -> None:
    table = item_table()
    codes, levels = table.categories[:, [-1, 1]], table.levels
    assert ((levels == 0) == (codes == 0)).all()
    for level in range(2):
        pairs = {*zip(codes[:, level].tolist(), levels[:, level].tolist(), strict=True)}
        assert len(pairs) == len({*codes[:, level].tolist()}) == len({*levels[:, level].tolist()})
        assert levels[:, level].max() < len(pairs) + 1
    rows = table.for_ranking
    assert (rows[:, 11:13] == levels).all()
    assert (rows.shape[1] * rows.itemsize, rows.ctypes.data % 64) == (64, 0)


def test_no_categories() -> None:
    assert category_codes([]).shape == (0, 3)


def test_reserved_rows_of_the_item_table_are_neutral() -> None:
    table = item_table()
    assert len(table) == 2 + 5
    assert table.popularity[:2].tolist() == table.price_level[:2].tolist() == [0, 0]
    assert table.categories[:2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert table.popularity[MILK] == 3.0
    assert table.categories[BREAD].tolist() == [code("FOOD"), *[code("FOOD/BAKERY")] * 2]


@many
@given(SCORES, st.integers(0, 12))
def test_best_against_sorting(scores: dict[int, int], limit: int) -> None:
    """Few distinct scores: ties stand on the cut, and go to the lower index."""
    index = np.array(sorted(scores), np.int64)
    sparse = Sparse(index, np.array([scores[item] for item in sorted(scores)], np.float32))
    expected = sorted(scores, key=lambda item: (-scores[item], item))[:limit]
    assert sparse.best(limit).tolist() == expected


def test_best_of_many_equal_scores() -> None:
    equal = Sparse(np.arange(100), np.ones(100, np.float32))
    assert equal.best(3).tolist() == [0, 1, 2]


@many
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), max_size=12))
def test_summed_adds_up_equal_indices(pairs: list[tuple[int, int]]) -> None:
    index = np.array([item for item, _ in pairs], np.int64)
    sparse = Sparse.summed(index, np.array([score for _, score in pairs], np.float32))
    assert sparse.index.tolist() == sorted({item for item, _ in pairs})
    wanted = np.arange(-1, 7)
    assert sparse.at(wanted).tolist() == [
        sum(score for item, score in pairs if item == one) for one in wanted
    ]
    assert sparse.value.dtype == np.float32


def test_nothing_scores_nothing() -> None:
    assert NOTHING.at(indices(0, 5)).tolist() == [0, 0]
    assert NOTHING.best(3).tolist() == []


def test_neighbours_of_a_cart_add_up() -> None:
    near = neighbours().score(indices(MILK, BREAD))
    assert near.index.tolist() == [MILK, BREAD, EGGS]
    assert near.value.tolist() == [0.5, 0.5, 0.25 + 0.125]
    assert neighbours().score(indices(SOAP, TEA)).index.tolist() == []
    assert neighbours().score(indices()).index.tolist() == []
