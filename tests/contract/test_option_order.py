"""The order of options: everything that was sent, likeliest first, by arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.option_order import OrderTable, ordered, probabilities

TABLE = OrderTable(
    everywhere={"card": 0.6, "wallet": 0.3, "invoice": 0.1},
    regions={"Berlin": {"card": 0.2, "wallet": 0.3, "invoice": 0.5}},
    devices={"mobile": {"wallet": 2.0}},
    value_edges=(1_000.0,),
    values=({}, {"invoice": 3.0}),
    personal=4.0,
)
OPTIONS = ["card", "wallet", "invoice"]


def test_without_anything_known_it_is_popularity() -> None:
    assert probabilities(TABLE, OPTIONS) == pytest.approx([0.6, 0.3, 0.1])
    assert probabilities(TABLE, OPTIONS, region="Atlantis") == pytest.approx([0.6, 0.3, 0.1])


def test_region_device_and_value_move_it() -> None:
    assert probabilities(TABLE, OPTIONS, region="Berlin") == pytest.approx([0.2, 0.3, 0.5])
    # .2, .3 * 2, .5 over 1.3
    mobile = probabilities(TABLE, OPTIONS, region="Berlin", device="mobile")
    assert mobile == pytest.approx([0.2 / 1.3, 0.6 / 1.3, 0.5 / 1.3])
    dear = probabilities(TABLE, OPTIONS, value=1_000)
    assert dear == pytest.approx([0.6 / 1.2, 0.3 / 1.2, 0.3 / 1.2])
    assert probabilities(TABLE, OPTIONS, value=999) == pytest.approx([0.6, 0.3, 0.1])


def test_own_choices_count_beside_the_rest() -> None:
    own = probabilities(TABLE, OPTIONS, own={"invoice": 6, "shells": 9})
    assert own == pytest.approx([4 * 0.6 / 10, 4 * 0.3 / 10, (6 + 4 * 0.1) / 10])
    assert ordered(OPTIONS, own) == ["invoice", "card", "wallet"]


def test_the_unknown_stand_last_and_equal_ones_as_they_came() -> None:
    options = ["new", "card", "newer"]
    assert ordered(options, probabilities(TABLE, options)) == ["card", "new", "newer"]
    assert probabilities(TABLE, []) == []


@given(
    options=st.lists(st.text(max_size=5), max_size=8),
    region=st.none() | st.text(max_size=6),
    value=st.none() | st.floats(0, 1e9),
    own=st.dictionaries(st.text(max_size=5), st.integers(0, 99), max_size=4),
)
def test_never_adds_never_hides(
    options: list[str], region: str | None, value: float | None, own: dict[str, int]
) -> None:
    chances = probabilities(TABLE, options, region=region, device="mobile", value=value, own=own)
    assert sorted(ordered(options, chances)) == sorted(options)
    if options:
        assert sum(chances) == pytest.approx(1)
