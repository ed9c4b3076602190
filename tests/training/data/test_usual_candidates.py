"""The background of reasons: some of it usual candidates, most of it what is shown."""

import numpy as np
import pytest

from contract.pair_features import PAIR_FEATURES
from training.data.ranking_examples import RankingExamples
from training.data.usual_candidates import usual_items

WIDE = len(PAIR_FEATURES)


def examples(*rows: float) -> RankingExamples:
    """One case whose candidates have each of `rows` as all of their features."""
    features = np.zeros((1, len(rows) + 2, WIDE), np.float16)
    features[0, : len(rows)] = np.array(rows)[:, None]
    index = np.zeros((1, len(rows) + 2), np.int64)
    index[0, : len(rows)] = np.arange(2, 2 + len(rows))
    none = np.zeros(index.shape, bool)
    return RankingExamples(index, features, none, none, np.ones(1, np.float32))


def test_most_of_it_is_shown_and_the_rest_are_candidates() -> None:
    shown = np.full((6, WIDE), 9.0, np.float32)
    shown[:3] = 7.0
    usual = usual_items(examples(1.0, 1.0, 1.0, 3.0), shown, seed=0)
    found = sorted(zip(usual.rows[:, 0].tolist(), usual.weight.tolist(), strict=True))
    assert found == [
        (1.0, pytest.approx(0.15 * 3 / 4)),
        (3.0, pytest.approx(0.15 * 1 / 4)),
        (7.0, pytest.approx(0.85 / 2)),
        (9.0, pytest.approx(0.85 / 2)),
    ]


def test_few_rows_make_few_points() -> None:
    usual = usual_items(examples(1.0), np.full((1, WIDE), 5.0, np.float32), seed=0)
    assert usual.rows[:, 0].tolist() == [1.0, 5.0]
    assert usual.weight.tolist() == [pytest.approx(0.15), pytest.approx(0.85)]
