from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.rows import INTERACTION, SEARCH, VISIT, Rows, merge, ordered, union
from tests.contract.examples import many, same

Stamp = tuple[int, int, int]
STAMPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=8)
CAPACITY = st.integers(1, 6)


def visits(stamps: list[Stamp]) -> Rows:
    """Rows whose content follows from their stamp, as it does when an event id names one event."""
    return np.array([(*stamp, 100 * stamp[1] + stamp[2]) for stamp in stamps], VISIT.dtype)


def stamps(rows: Rows) -> list[Stamp]:
    return [tuple(row)[:3] for row in rows.tolist()]


def state(given_stamps: list[Stamp], capacity: int = 100) -> Rows:
    return ordered(visits(given_stamps))[-capacity:]


@many
@given(STAMPS)
def test_ordered_is_sorted_and_distinct(given_stamps: list[Stamp]) -> None:
    assert stamps(ordered(visits(given_stamps))) == sorted(set(given_stamps))


@many
@given(STAMPS, STAMPS, CAPACITY)
def test_merge_is_the_newest_of_the_union(held: list[Stamp], more: list[Stamp], cap: int) -> None:
    """Whatever the new rows look like: this is where the quick way of `merge` could go wrong."""
    before = state(held, cap)
    copy = before.copy()
    merged = merge(before, visits(more), cap)
    assert stamps(merged) == sorted({*stamps(before), *more})[-cap:]
    assert same(before, copy)


@many
@given(STAMPS, STAMPS, CAPACITY)
def test_union_of_two_states_is_their_merge(one: list[Stamp], two: list[Stamp], cap: int) -> None:
    left, right = state(one, cap), state(two, cap)
    assert same(union(left, right, cap), merge(left, right, cap))


@many
@given(STAMPS, st.integers(0, 9), st.sets(st.integers(0, 4), min_size=1), CAPACITY)
def test_quick_way_gives_what_sorting_gives(
    held: list[Stamp], occurred: int, places: set[int], cap: int
) -> None:
    """Rows as one event leaves them, before, beside and after those held."""
    before = state(held, cap)
    rows = visits([(occurred, 1, place) for place in sorted(places)])
    assert same(merge(before, rows, cap), ordered(np.concatenate((before, rows)))[-cap:])


@pytest.mark.parametrize(
    "rows",
    [
        [(5, 1, 0), (4, 2, 0), (5, 1, 1)],  # the ends are of one event, the middle is not
        [(5, 1, 0), (0, 1, 1)],  # one event id at two times
        [(5, 1, 1), (5, 1, 0)],
        [(5, 1, 0), (5, 1, 0)],
    ],
)
def test_rows_that_only_look_like_one_late_event(rows: list[Stamp]) -> None:
    assert stamps(merge(state([(1, 0, 0)]), visits(rows), 10)) == sorted({(1, 0, 0), *rows})


@many
@given(STAMPS, STAMPS, STAMPS, CAPACITY)
def test_merge_commutes_associates_and_repeats(
    one: list[Stamp], two: list[Stamp], three: list[Stamp], cap: int
) -> None:
    a, b, c = state(one, cap), state(two, cap), state(three, cap)
    assert same(merge(a, b, cap), merge(b, a, cap))
    assert same(merge(merge(a, b, cap), c, cap), merge(a, merge(b, c, cap), cap))
    assert same(merge(a, a, cap), a)


@many
@given(STAMPS, STAMPS, CAPACITY)
def test_what_was_cut_off_is_never_missed(one: list[Stamp], two: list[Stamp], cap: int) -> None:
    assert same(merge(state(one, cap), state(two, cap), cap), state(one + two, cap))


@pytest.mark.parametrize("kind", [INTERACTION, VISIT, SEARCH])
def test_rows_begin_with_their_order_and_have_no_padding(kind: Any) -> None:
    assert kind.dtype.names[:3] == ("occurred_us", "event_key", "position")
    sizes = [kind.dtype.fields[name][0].itemsize for name in kind.dtype.names]
    assert sum(sizes) == kind.dtype.itemsize
