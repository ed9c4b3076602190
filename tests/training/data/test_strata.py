"""Draws keep the shares of every kind of shopper, and the sparse kinds never vanish."""

import numpy as np
import pytest

from training.data.source import Source
from training.data.strata import LEAST, NUM_STRATA, allotted, strata, stratified
from training.data.synthetic_baskets import partners, recombined


def test_a_stratum_says_what_the_rhythm_says(source: Source) -> None:
    baskets, timelines = source.baskets, source.timelines
    numbers = np.arange(0, len(baskets), 7)
    for frozen_us in (None, int(baskets.occurred_us[len(baskets) // 2])):
        codes = strata(baskets, numbers, frozen_us)
        for number, code in zip(numbers.tolist(), codes.tolist(), strict=True):
            now_us = int(baskets.occurred_us[number])
            until = now_us if frozen_us is None else min(now_us, frozen_us)
            view = timelines.view(baskets.subjects[baskets.subject[number]], until, now_us)
            before, since, _, size = view.rhythm.tolist()
            activity = 3 if before >= 24 else min(int(before), 2)
            lapsing, large = before > 0 and since >= 45, size >= 15
            assert code == activity * 4 + lapsing * 2 + large
    assert len(set(strata(baskets, np.arange(len(baskets)), None).tolist())) >= 3


def test_shares_are_kept_and_sparse_strata_never_vanish() -> None:
    stratum = np.repeat([0, 1, 5, 9], [8_000, 1_900, 96, 4])
    shuffled = np.random.default_rng(0).permutation(stratum)
    for seed in range(5):
        drawn = stratified(shuffled, 1_000, np.random.default_rng(seed))
        assert len(drawn) == len(set(drawn.tolist())) == 1_000
        counts = np.bincount(shuffled[drawn], minlength=10)
        # 800, 190 and 9.6 by share; the last would be 0.4, and three of its four are kept.
        assert counts[9] == LEAST
        assert abs(counts[0] - 800) <= 2
        assert abs(counts[1] - 190) <= 2
        assert abs(counts[5] - 9.6) <= 1


@pytest.mark.parametrize("limit", [1, 5, 37, 999, 5_000])
def test_the_draw_has_the_size_that_was_asked_for(limit: int) -> None:
    counts = np.zeros(NUM_STRATA, np.int64)
    counts[[0, 2, 3, 8]] = [700, 250, 49, 1]
    drawn = allotted(counts, limit)
    assert (drawn <= counts).all()
    assert (drawn >= np.minimum(counts, LEAST)).all()
    # Only a limit below what each stratum must have is exceeded.
    assert drawn.sum() == min(1_000, max(limit, 3 * LEAST + 1))


def test_made_up_baskets_join_two_of_one_sparse_kind() -> None:
    stratum = np.repeat([0, 4, 8], [950, 30, 20])
    pairs = partners(stratum, 200, np.random.default_rng(1))
    assert len(pairs) == 200
    kinds = [int(stratum[own]) for own, _ in pairs]
    assert all(own != other and stratum[own] == stratum[other] for own, other in pairs)
    assert 0 not in kinds
    assert 70 < kinds.count(4) < 130  # each sparse kind as likely as another
    assert partners(np.zeros(50, np.int64), 10, np.random.default_rng(1)) == []
    own, other = np.array([1, 2, 3, 4]), np.array([4, 5, 6, 7, 8])
    made = recombined(own, other, np.random.default_rng(2))
    assert len(made) >= 4
    assert set(made) <= set(own) | set(other)
    assert set(made) & set(own)
    assert set(made) & {5, 6, 7, 8}
