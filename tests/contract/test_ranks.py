import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contract.ranks import before_each, bits_in, highest, items_of, nothing_of, rank_of
from tests.contract.examples import many


@given(st.integers(0, 2**64 - 1))
@many
def test_bits_are_counted(word: int) -> None:
    assert bits_in(np.uint64(word)) == word.bit_count()


@given(st.sets(st.integers(0, 200)))
@many
def test_items_ascend_and_each_has_its_place(held: set[int]) -> None:
    among = nothing_of(201)
    for item in held:
        among[item >> 6] |= np.uint64(1 << (item & 63))
    before = before_each(among)
    assert items_of(among, before).tolist() == sorted(held)
    assert [rank_of(among, before, item) for item in sorted(held)] == list(range(len(held)))


@given(st.lists(st.integers(-3, 3), max_size=40), st.integers(-1, 50))
@many
def test_the_highest_against_sorting(values: list[int], limit: int) -> None:
    best = sorted(range(len(values)), key=lambda place: -values[place])[: max(limit, 0)]
    assert highest(np.array(values, np.float32), limit).tolist() == best
