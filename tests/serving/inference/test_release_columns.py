"""Lists of a column as tuples: as pyarrow reads them, and equal ones made once."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.inference.release_columns import filled, lists, numbers, values
from tests.contract.examples import many

LISTS = st.lists(st.one_of(st.none(), st.lists(st.sampled_from("abc"), max_size=3)), max_size=12)


@many
@given(LISTS, LISTS, st.integers(0, 5))
def test_lists_are_those_of_the_column(
    first: list[list[str] | None], second: list[list[str] | None], cut: int
) -> None:
    parts = [pa.array(part, pa.list_(pa.string())) for part in (first, second)]
    column = pa.chunked_array(parts).slice(cut)
    assert lists(column).rows() == [tuple(one or ()) for one in column.to_pylist()]


def test_equal_lists_are_one_object() -> None:
    column = pa.chunked_array([pa.array([["FOOD", "MILK"], [], ["FOOD", "MILK"]])])
    found = lists(column).rows()
    assert found[0] is found[2]


def test_a_name_that_is_missing_in_a_list_is_no_name() -> None:
    with pytest.raises(ValueError, match="null"):
        lists(pa.chunked_array([pa.array([["FOOD", None]])]))


def test_values_of_more_rows_than_a_part() -> None:
    count = 10_000
    column = pa.chunked_array([pa.array(range(count)), pa.array([None], pa.int64())])
    assert values(column) == [*range(count), None]


def test_numbers_of_several_parts() -> None:
    column = pa.chunked_array([pa.array([1.5], pa.float32()), pa.array([2.5], pa.float32())])
    assert np.array_equal(numbers("popularity", column), [1.5, 2.5])


def test_missing_numbers_and_truths_are_filled() -> None:
    prices = pa.chunked_array([pa.array([5, None], pa.int32()), pa.array([], pa.int32())])
    assert filled(prices, -1).tolist() == [5, -1]
    assert filled(pa.chunked_array([pa.array([True, None, False])]), 0).tolist() == [1, 0, 0]
    assert filled(pa.chunked_array([], pa.bool_()), 0).tolist() == []
