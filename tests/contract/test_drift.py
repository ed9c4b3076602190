"""Drift statistics against arithmetic that a reader can redo."""

import math
from typing import Any

import numpy as np
import pytest

from contract.drift import excess, psi


def test_psi_by_hand() -> None:
    """Two bins at the median of 0, 1, 2, 3; half a count more in each bin."""
    expected, found = np.array([0.0, 1.0, 2.0, 3.0]), np.array([9.0, 9.0, 9.0, 0.0])
    p = np.array([2.5 / 5, 2.5 / 5])
    q = np.array([1.5 / 5, 3.5 / 5])
    by_hand = (q[0] - p[0]) * math.log(q[0] / p[0]) + (q[1] - p[1]) * math.log(q[1] / p[1])
    assert psi(expected, found, bins=2) == pytest.approx(by_hand)


def test_psi_of_chance_of_a_shift_and_of_a_collapse() -> None:
    draw = np.random.default_rng(1)
    same = [psi(draw.normal(size=500), draw.normal(size=500)) for _ in range(50)]
    assert np.mean(same) == pytest.approx(9 * (1 / 500 + 1 / 500), rel=0.3)
    usual = draw.normal(size=500)
    assert psi(usual, draw.normal(1.0, size=500)) > 0.5
    assert psi(usual, np.zeros(500)) > 1.0
    assert psi(np.zeros(500), usual) > 1.0
    assert psi(np.zeros(500), np.zeros(500)) == 0.0


@pytest.mark.parametrize("wrong", [np.array([]), np.array([1.0, np.nan])])
def test_psi_refuses_what_is_no_sample(wrong: Any) -> None:
    for pair in ((wrong, np.ones(3)), (np.ones(3), wrong)):
        with pytest.raises(ValueError, match="finite numbers"):
            psi(*pair)


def test_excess_by_hand() -> None:
    """30 of 100 against 10 of 100: pooled .2, error sqrt(.2 * .8 * 2 / 100)."""
    assert excess(30, 100, 10, 100) == pytest.approx(0.2 / math.sqrt(0.2 * 0.8 * 0.02))
    assert excess(10, 100, 30, 100) == -excess(30, 100, 10, 100)
    assert excess(0, 100, 0, 50) == 0.0
    assert excess(100, 100, 50, 50) == 0.0
    with pytest.raises(ValueError, match="at least one"):
        excess(0, 0, 1, 2)
