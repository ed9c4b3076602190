"""Bonuses that even offers out, with answers that a reader can redo."""

import numpy as np
import pytest

from contract.fair_offers import best_offers, bonuses, with_bonuses

# Four decisions in each of two places, the gain of the only offer.
NORTH, SOUTH = [5.0, 4.0, 3.0, -9.0], [2.0, -1.0, -6.0, -20.0]
GROUPS = ["north"] * 4 + ["south"] * 4
GAIN = np.array([[0.0, gain] for gain in NORTH + SOUTH])
ALLOWED = np.ones((8, 2), bool)


def _best(price: float = 0.0) -> np.ndarray:
    return best_offers(GAIN, np.ones_like(GAIN), ALLOWED, price)


def test_the_least_bonus_that_reaches_the_floor() -> None:
    # North is offered 3 of 4. Two thirds of that are 2 of 4 in the south: -1 must get above 0.
    assert bonuses(_best(), GROUPS, 2 / 3) == {"south": pytest.approx(1.0, abs=1e-5)}
    # All of that are 3 of 4: -6 must.
    assert bonuses(_best(), GROUPS, 1.0) == {"south": pytest.approx(6.0, abs=1e-5)}


def test_what_is_even_enough_is_left_alone() -> None:
    assert bonuses(_best(), GROUPS, 1 / 3) == {}
    assert bonuses(_best(), ["north"] * 8, 1.0) == {}


def test_with_them_the_floor_is_reached() -> None:
    raised = with_bonuses(GAIN, GROUPS, bonuses(_best(), GROUPS, 1.0))
    offered = raised.argmax(1) > 0
    assert offered[:4].mean() == offered[4:].mean() == 3 / 4
    assert (raised[:, 0] == 0).all()


def test_a_price_counts_before_the_bonus() -> None:
    # At a price of 3.5 north is offered 2 of 4, south none: 2 - 3.5 must get above 0, and -1 - 3.5.
    assert bonuses(_best(3.5), GROUPS, 1.0) == {"south": pytest.approx(4.5, abs=1e-5)}


def test_what_is_not_allowed_is_not_reached() -> None:
    allowed = ALLOWED.copy()
    allowed[5:, 1] = False
    best = best_offers(GAIN, np.ones_like(GAIN), allowed, 0.0)
    assert bonuses(best, GROUPS, 1.0) == {}
    assert np.isinf(best[5:]).all()


def test_who_is_in_no_group_gets_nothing() -> None:
    groups: list[str | None] = [None, *GROUPS[1:]]
    assert with_bonuses(GAIN, groups, {"north": 1.0})[0].tolist() == [0.0, 5.0]


def test_a_floor_is_a_share() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        bonuses(_best(), GROUPS, 1.5)
