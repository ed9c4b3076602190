"""Whether two samples come from the same source: shares that differ by more than chance, the
population stability index of two samples of numbers, and how far a profile of live features, scores
and vectors has moved from that of the training window."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from contract.drift_profile import Column, Profile, Vectors

Sample = npt.NDArray[np.floating[Any]]
BINS = 10


def psi(expected: Sample, found: Sample, bins: int = BINS) -> float:
    """The population stability index of `found` [M] against `expected` [N]:
    sum over bins of (q - p) * ln(q / p).

    Bins are the quantiles of `expected`; equal quantiles are one bin, and values beyond the ends
    fall into the outer bins. Half a count is added to every bin, so that an empty one does not make
    the sum infinite. Read it as usual (N. Siddiqi, Credit Risk Scorecards, 2006): below 0.1 stable,
    above 0.25 another population. By chance alone about (bins - 1) * (1/N + 1/M).
    ValueError where a sample is empty or holds a value that is not finite.
    """
    for name, sample in (("expected", expected), ("found", found)):
        if not len(sample) or not np.isfinite(sample).all():
            raise ValueError(f"{name} must be finite numbers, at least one")
    inner = np.unique(np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1]))
    if len(inner) == 1 < bins - 1:  # nearly all values are one: below it, it, above it
        inner = np.array([inner[0], np.nextafter(inner[0], np.inf)])
    p, q = _shares(expected, inner), _shares(found, inner)
    return float(np.sum((q - p) * np.log(q / p)))


def _shares(sample: Sample, inner: Sample) -> npt.NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(inner, sample, side="right"), minlength=len(inner) + 1)
    return _smoothed(counts)


def excess(hits: int, of: int, base_hits: int, base_of: int) -> float:
    """How many standard errors the share hits/of lies above base_hits/base_of (the pooled z of two
    proportions; negative below). 0 where neither or everything is a hit. ValueError for an empty
    sample."""
    if of < 1 or base_of < 1:
        raise ValueError("a share needs at least one case")
    pooled = (hits + base_hits) / (of + base_of)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / base_of))
    return (hits / of - base_hits / base_of) / error if error else 0.0


Verdict = Literal["stable", "moved", "shifted", "too_few"]
# Of the rules of thumb in credit scoring. For a normal column that moves by d deviations PSI is d^2
# and KS 2 * Phi(d / 2) - 1, so the pairs below are one and the same move: .5 and .32 deviations.
_SHIFTED, _MOVED = (0.25, 0.20), (0.10, 0.126)
_DIRECTIONS = 8


@dataclass(frozen=True)
class DriftLimits:
    """From which drift on something is `shifted` or `moved`: (PSI, KS). Nothing is said of chance:
    of `alpha` in all, that much drift must be unlikely among so few shoppers. Below `min_units`
    shoppers nothing is said at all."""

    shifted: tuple[float, float] = _SHIFTED
    moved: tuple[float, float] = _MOVED
    min_units: int = 200
    alpha: float = 0.001


@dataclass(frozen=True)
class Drifted:
    """How far one column or one kind of vector has moved. Of vectors `psi` is that of normal
    distributions along the direction that moved most, of the main ones of the baseline, `ks` that
    of the same, and `frechet` the Frechet distance as a share of the baseline's total variance."""

    name: str
    kind: Literal["numeric", "category", "vectors"]
    psi: float
    ks: float
    verdict: Verdict
    cases: int
    frechet: float | None = None
    missing: float = 0.0  # share of the live cases without a value


@dataclass(frozen=True)
class DriftReport:
    """Everything that was compared, what moved most first."""

    columns: tuple[Drifted, ...]
    units: int

    @property
    def shifted(self) -> tuple[Drifted, ...]:
        """What is of another population than the baseline."""
        return tuple(one for one in self.columns if one.verdict == "shifted")

    @property
    def problems(self) -> tuple[str, ...]:
        """The same, a line each, as a gate tells it."""
        return tuple(
            f"{one.name} is not what it was: PSI {one.psi:.2f}, KS {one.ks:.2f}"
            for one in self.shifted
        )


def drift(baseline: Profile, profile: Profile, limits: DriftLimits = DriftLimits()) -> DriftReport:
    """How far `profile` has moved from `baseline`, whose bins it was counted in.

    A column is `shifted` where it moved further than `limits` allow and further than chance would
    move it in one of a thousand comparisons of all columns. A column without a single live value
    is compared as what is missing. ValueError where the bins are not the same.
    """
    held = {one.name: one for one in profile.columns}
    vectors = {one.name: one for one in profile.vectors}
    alpha = limits.alpha / max(len(baseline.columns) + len(baseline.vectors), 1)
    found = []
    for column in baseline.columns:
        live = held.get(column.name)
        if live is None or not column.same_bins(live):
            raise ValueError(f"{column.name}: not counted in the baseline's bins")
        found.append(_column(column, live, baseline.units, profile.units, limits, alpha))
    for one in baseline.vectors:
        other = vectors.get(one.name)
        if other is None or len(other.total) != len(one.total):
            raise ValueError(f"{one.name}: vectors of another size than the baseline's")
        found.append(_vectors(one, other, baseline.units, profile.units, limits, alpha))
    order: dict[Verdict, int] = {"shifted": 0, "moved": 1, "stable": 2, "too_few": 3}
    ranked = sorted(found, key=lambda one: (order[one.verdict], -one.psi, one.name))
    return DriftReport(tuple(ranked), profile.units)


def _column(
    base: Column, live: Column, units: int, live_units: int, limits: DriftLimits, alpha: float
) -> Drifted:
    cases = sum(live.counts) + live.missing
    # What is missing is one more bin: a feature that is no longer there has drifted.
    p, q = (
        _smoothed(np.array([*one.counts, *([one.missing] if base.missing + live.missing else [])]))
        for one in (base, live)
    )
    psi_found = float(np.sum((q - p) * np.log(q / p)))
    between = np.abs(np.cumsum(q - p))
    ks = float(between.max() if base.kind == "numeric" else np.abs(q - p).sum() / 2)
    n, m = _independent(sum(base.counts) + base.missing, units), _independent(cases, live_units)
    chance = _chance(len(p) - 1, n, m, alpha)
    verdict = _verdict(psi_found, ks, chance, min(n, m), limits)
    missing = live.missing / cases if cases else 0.0
    return Drifted(base.name, base.kind, psi_found, ks, verdict, cases, missing=missing)


def _vectors(
    base: Vectors, live: Vectors, units: int, live_units: int, limits: DriftLimits, alpha: float
) -> Drifted:
    n, m = _independent(base.count, units), _independent(live.count, live_units)
    if min(n, m) < max(limits.min_units, 2):
        return Drifted(base.name, "vectors", 0.0, 0.0, "too_few", live.count, 0.0)
    variances, axes = np.linalg.eigh(base.covariance)
    total = float(np.clip(variances, 0, None).sum())
    if total <= 0:
        raise ValueError(f"{base.name}: all vectors of the baseline are the same")
    main = np.argsort(-variances)[:_DIRECTIONS]
    main = main[variances[main] > 1e-9 * total]
    moved = (live.mean - base.mean) @ axes[:, main]
    before = variances[main]
    now = np.maximum(np.einsum("dk,de,ek->k", axes[:, main], live.covariance, axes[:, main]), 1e-12)
    apart = 0.5 * ((before + moved**2) / now + (now + moved**2) / before) - 1.0
    worst = int(np.argmax(apart))
    psi_found = float(apart[worst])
    ks = math.erf(math.sqrt(psi_found / 8.0))  # of a move of sqrt(PSI) deviations
    chance = _chance(2, n, m, alpha / len(main))
    verdict = _verdict(psi_found, ks, chance, min(n, m), limits)
    distance = _frechet(base, live) / total
    return Drifted(base.name, "vectors", psi_found, ks, verdict, live.count, distance)


def _frechet(base: Vectors, live: Vectors) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2)."""
    variances, axes = np.linalg.eigh(base.covariance)
    root = (axes * np.sqrt(np.clip(variances, 0, None))) @ axes.T
    inner = np.clip(np.linalg.eigvalsh(root @ live.covariance @ root), 0, None)
    apart = live.mean - base.mean
    spread = np.trace(base.covariance) + np.trace(live.covariance) - 2 * np.sqrt(inner).sum()
    return max(float(apart @ apart + spread), 0.0)


def _independent(cases: int, units: int) -> int:
    return min(cases, units)


def _smoothed(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    smoothed = counts.astype(np.float64) + 0.5
    shares: npt.NDArray[np.float64] = smoothed / smoothed.sum()
    return shares


def _chance(freedom: int, n: int, m: int, alpha: float) -> tuple[float, float]:
    """PSI and KS that chance exceeds with probability `alpha`. PSI * nm / (n + m) is about
    chi-square with `freedom` (B. Yurdakul, Statistical Properties of Population Stability Index,
    2018), here by Wilson and Hilferty's cube root; KS by Kolmogorov's first term."""
    if not n or not m:
        return math.inf, math.inf
    z = NormalDist().inv_cdf(1 - alpha)
    part = 2 / (9 * freedom)
    quantile = freedom * (1 - part + z * math.sqrt(part)) ** 3
    each = 1 / n + 1 / m
    return quantile * each, math.sqrt(-math.log(alpha / 2) / 2 * each)


def _verdict(
    psi_found: float, ks: float, chance: tuple[float, float], units: int, limits: DriftLimits
) -> Verdict:
    if units < limits.min_units:
        return "too_few"
    for limit, said in ((limits.shifted, "shifted"), (limits.moved, "moved")):
        if any(
            found > max(most, by_chance)
            for found, most, by_chance in zip((psi_found, ks), limit, chance, strict=True)
        ):
            return cast(Verdict, said)
    return "stable"
