"""Propensity to redeem: its measure by hand, and the real campaigns."""

import numpy as np
import pytest

from training.data.campaigns import FEATURES, read_campaigns
from training.evaluation.redeem_table import NAME, auc, redeem_table


def test_auc_counts_pairs() -> None:
    redeemed = np.array([True, False, True, False])
    # pairs: (.9, .5) right, (.9, .1) right, (.5, .5) half, (.5, .1) right
    assert auc(redeemed, np.array([0.9, 0.5, 0.5, 0.1])) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert auc(redeemed, np.ones(4)) == 0.5


def test_nothing_later_is_known_and_the_model_says_more_than_a_rate() -> None:
    rows = read_campaigns()
    first = rows.where(rows.starts == rows.starts.min())
    column = FEATURES.index("campaigns_before")
    assert first.features[:, column].max() <= 4  # those that began before 2017, and 27 in February
    assert (rows.features[:, FEATURES.index("redeemed_before")] <= rows.features[:, column]).all()
    figures = redeem_table(1)
    told = {row["name"]: row["metrics"] for row in figures.rows}
    assert told[NAME]["AUC"]["mean"] > told["base-rate-of-type"]["AUC"]["mean"]
    assert any("no uplift" in note for note in figures.notes)
