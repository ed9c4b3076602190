"""The reasons of a segment are sentences that a merchant reads out, not columns of figures."""

import numpy as np
import pytest

from contract.behaviour import BEHAVIOUR
from contract.segment_reasons import _WORDS, _said


@pytest.mark.parametrize(
    ("figure", "value", "text"),
    [
        ("gap_days", 3.532, "3.5 days between two orders"),
        ("gap_days", 1.0, "1 day between two orders"),
        ("gap_days", 8.766, "8.8 days between two orders"),
        ("gap_days", 0.0, "no second order so far"),
        ("days_since_order", 0.0, "0 days since the last order"),
        ("days_since_order", 364.0, "360 days since the last order"),
        # Also what stands for no order at all.
        ("days_since_order", 364.999_999, "no order in 365 days"),
        ("orders", 1.0, "1 order in 90 days"),
        ("orders", 12.0, "12 orders in 90 days"),
        ("categories_viewed", 1.04, "1 category looked at in 30 days"),
        ("promotions", 0.0, "0 promotions seen or chosen in 30 days"),
        ("spend_per_order", 1_234_567.0, "1,200,000 per order on average, in minor units"),
        ("coupon_share", 0.254, "25 % of all orders had a coupon"),
        ("repeat_share", 1.0, "100 % of what was bought had been bought before"),
    ],
)
def test_a_figure_is_told_in_words(figure: str, value: float, text: str) -> None:
    place = BEHAVIOUR.index(figure)
    figures = np.zeros(len(BEHAVIOUR))
    figures[place] = value
    assert _said(place, figures) == text


def test_every_figure_has_its_words() -> None:
    assert set(_WORDS) == set(BEHAVIOUR)
