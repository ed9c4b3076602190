"""Drift statistics against arithmetic that a reader can redo."""

import math
from typing import Any

import numpy as np
import pytest

from contract.drift import drift, excess, psi
from contract.drift_profile import Profile, baseline_of


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


def columns(draw: np.random.Generator, size: int, move: float = 0.0) -> dict[str, Any]:
    zeros = np.where(draw.random(size) < 0.6, 0.0, draw.exponential(size=size))
    return {
        "score": draw.normal(move, 1.0, size),
        "baskets": zeros,
        "device": draw.choice(["phone", "desk"], size, p=[0.7, 0.3]),
    }


def test_bins_isolate_a_value_that_stands_for_many() -> None:
    """Six of ten are zero: below, zero itself, and the quantiles above it."""
    column = baseline_of({"baskets": np.array([0.0] * 6 + [1.0, 2.0, 3.0, 4.0])}, 10).columns[0]
    assert column.counts[:2] == (0, 6)
    assert column.edges[:2] == (0.0, np.nextafter(0.0, 1.0))
    assert column.counted(np.array([-1.0, 0.0, 0.5, np.nan])).counts[:3] == (1, 1, 1)
    assert column.counted(np.array([-1.0, np.nan])).missing == 1


def test_profiles_of_two_days_add_up() -> None:
    draw = np.random.default_rng(3)
    first, second = columns(draw, 300), columns(draw, 200)
    vectors = draw.normal(size=(500, 4))
    base = baseline_of(columns(draw, 400), 400, {"query": draw.normal(size=(50, 4))})
    together = {name: np.concatenate([first[name], second[name]]) for name in first}
    whole = base.counted(together, 500, {"query": vectors})
    parts = base.counted(first, 300, {"query": vectors[:300]}).plus(
        base.counted(second, 200, {"query": vectors[300:]})
    )
    assert parts.columns == whole.columns
    assert parts.units == 500
    assert parts.vectors[0].mean == pytest.approx(vectors.mean(axis=0))
    assert parts.vectors[0].covariance == pytest.approx(np.cov(vectors.T, bias=True))
    assert Profile.model_validate_json(whole.model_dump_json()) == whole
    with pytest.raises(ValueError, match="can not be added"):
        base.plus(baseline_of(columns(draw, 400), 400))


def test_drift_names_what_moved_and_nothing_else() -> None:
    """The normal column moves by .8 deviations: PSI .64, KS 2 * Phi(.4) - 1 = .31."""
    draw = np.random.default_rng(5)
    base = baseline_of(columns(draw, 20_000), 20_000)
    report = drift(base, base.counted(columns(draw, 5_000, move=0.8), 5_000))
    assert [one.name for one in report.shifted] == ["score"]
    assert report.columns[0].psi == pytest.approx(0.64, rel=0.15)
    assert report.columns[0].ks == pytest.approx(0.31, abs=0.03)
    assert report.problems[0].startswith("score is not what it was: PSI 0.6")
    assert {one.verdict for one in report.columns[1:]} == {"stable"}


def test_chance_is_no_drift_however_few_the_shoppers() -> None:
    draw = np.random.default_rng(7)
    base = baseline_of(columns(draw, 2_000), 2_000)
    verdicts = [
        one.verdict
        for _ in range(300)
        for one in drift(base, base.counted(columns(draw, 200), 200)).columns
    ]
    assert verdicts.count("shifted") <= 1
    few = drift(base, base.counted(columns(draw, 150, move=3.0), 150))
    assert {one.verdict for one in few.columns} == {"too_few"}
    # The rows of ten shoppers say as little as ten rows.
    rows = drift(base, base.counted(columns(draw, 5_000, move=3.0), 10))
    assert {one.verdict for one in rows.columns} == {"too_few"}


def test_a_feature_that_is_gone_has_drifted() -> None:
    draw = np.random.default_rng(9)
    base = baseline_of(columns(draw, 2_000), 2_000)
    live = columns(draw, 1_000) | {"score": np.full(1_000, np.nan)}
    (gone,) = drift(base, base.counted(live, 1_000)).shifted
    assert (gone.name, gone.missing) == ("score", 1.0)


@pytest.mark.parametrize(
    ("scale", "move", "verdict"), [(1.0, 0.0, "stable"), (1.0, 0.7, "shifted"), (2.0, 0, "shifted")]
)
def test_vectors_move_and_spread(scale: float, move: float, verdict: str) -> None:
    """Along one axis of 16; normal distributions a variance ratio r apart have PSI (r + 1/r)/2 - 1,
    so .25 for four times the variance in the deviation's square root of two."""
    draw = np.random.default_rng(11)
    spread = np.array([3.0] + [1.0] * 15)
    base = baseline_of({}, 5_000, {"query": draw.normal(size=(5_000, 16)) * spread})
    found = draw.normal(size=(2_000, 16)) * spread
    found[:, 0] = found[:, 0] * scale + move * 3.0
    (one,) = drift(base, base.counted({}, 2_000, {"query": found})).columns
    assert one.verdict == verdict
    expected = {(1.0, 0.0): 0.0, (1.0, 0.7): 0.49, (2.0, 0): (4 + 0.25) / 2 - 1}[scale, move]
    assert one.psi == pytest.approx(expected, abs=0.08)
    # Of all variance, 9 + 15: what the move, or the deviation that grew, has of it.
    moved = ((move * 3) ** 2 + (3 * scale - 3) ** 2) / 24
    assert one.frechet == pytest.approx(moved, abs=0.03)


def test_drift_refuses_other_bins() -> None:
    draw = np.random.default_rng(13)
    base, other = (baseline_of(columns(draw, 400), 400) for _ in range(2))
    with pytest.raises(ValueError, match="not counted in the baseline's bins"):
        drift(base, other)
