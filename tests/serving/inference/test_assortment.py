"""What is on sale after changes is what it would have been had it been released so."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contract.catalogue import ItemChange
from serving.inference.assortment import NOT_PRICED, Assortment

ITEMS = 6
REGIONS = ("east", "north", "west")
regions = st.lists(st.sampled_from(REGIONS), max_size=2, unique=True).map(tuple)
changes = st.dictionaries(
    st.integers(0, ITEMS - 1),
    st.builds(
        ItemChange,
        available=st.none() | st.booleans(),
        price=st.none() | st.integers(0, 9),
        cost=st.none() | st.integers(0, 9),
        regions=st.none() | regions,
    ),
)


def assortment(rows: list[tuple[bool, int, tuple[str, ...]]]) -> Assortment:
    available, price, where = zip(*rows, strict=True)
    return Assortment.of(np.array(price, np.int64), np.array(available, bool), where)


rows = st.lists(
    st.tuples(st.booleans(), st.integers(NOT_PRICED, 9), regions), min_size=ITEMS, max_size=ITEMS
)


@given(rows, st.lists(changes, max_size=4))
def test_changes_in_turn_are_as_if_released(
    released: list[tuple[bool, int, tuple[str, ...]]], sayings: list[dict[int, ItemChange]]
) -> None:
    base = now = assortment(released)
    said: dict[int, ItemChange] = {}
    for saying in sayings:
        now = now.with_changes(base, saying)
        said |= saying
    meant = list(released)
    for index, change in said.items():
        available, price, where = released[index]
        meant[index] = (
            available if change.available is None else change.available,
            price if change.price is None else change.price,
            where if change.regions is None else change.regions,
        )
    expected = assortment(meant)
    assert now.price.tolist() == expected.price.tolist()
    for region in (None, *REGIONS, "elsewhere"):
        assert now.sellable(region).tolist() == expected.sellable(region).tolist()
    assert base.price.tolist() == [price for _, price, _ in released]  # never changed in place


def test_what_is_handed_out_can_be_written_and_what_is_held_cannot() -> None:
    now = assortment([(True, 5, ("west",)), (True, 6, ())])
    now.sellable("west")[:] = False
    assert now.sellable("west").all()
    assert not now.price.flags.writeable
    assert replace(now).sellable("east").tolist() == [False, True]


def test_margins_of_what_is_known_and_the_mean_of_the_rest() -> None:
    base = assortment([(True, 100, ()), (True, 200, ()), (True, NOT_PRICED, ()), (True, 50, ())])
    assert base.margins.tolist() == [0, 0, 0, 0]
    said = {0: ItemChange(cost=70), 1: ItemChange(price=180, cost=190), 2: ItemChange(cost=5)}
    now = base.with_changes(base, said)
    assert now.margins.tolist() == [30, -10, 10, 10]  # (30 - 10) / 2
    assert now.with_changes(base, {0: ItemChange()}).margins.tolist() == [-10, -10, -10, -10]
    gone = {index: ItemChange() for index in said}
    assert now.with_changes(base, gone).margins.tolist() == [0, 0, 0, 0]
