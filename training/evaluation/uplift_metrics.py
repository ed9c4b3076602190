"""How well predicted uplift orders people, and what a policy is worth, from randomised decisions.

Every row counts by the inverse of the propensity of its arm, so that unequal shares of arms do no
harm; `weight` counts rows more or less often, as a bootstrap does. Shapes: N rows, R resamples.
AUUC and Qini are in units of the outcome per row: the area under the curve of what targeting the
best share of people first brings, over all shares from nobody to everybody.
"""

import numpy as np
import numpy.typing as npt

from training.data.offer_log import Floats, OfferLog

_TINY = 1e-12


def best_first(uplift: Floats) -> npt.NDArray[np.intp]:
    """Rows by predicted uplift, the best first; equal ones scattered, not as they lie."""
    scattered = (np.arange(len(uplift)) * 2_654_435_761) % 4_294_967_296
    return np.lexsort((scattered, -uplift))


def uplift_curve(
    outcome: Floats, treated: npt.NDArray[np.bool_], weight: Floats
) -> tuple[Floats, Floats]:
    """Share of people targeted and gain of rows that come best first, [R, N + 1] each.

    `weight` [R, N]. The gain at a share is that share times the difference of the weighted mean
    outcomes of treated and others within it (0 where one of the two is not there yet).
    """
    one, zero = weight * treated, weight * ~treated
    in_one, in_zero = _running(one), _running(zero)
    mean_one = _running(one * outcome) / np.maximum(in_one, _TINY)
    mean_zero = _running(zero * outcome) / np.maximum(in_zero, _TINY)
    both = (in_one > 0) & (in_zero > 0)
    share = (in_one + in_zero) / np.maximum(in_one[:, -1:] + in_zero[:, -1:], _TINY)
    return share, np.where(both, share * (mean_one - mean_zero), 0.0)


def qini_curve(
    outcome: Floats, treated: npt.NDArray[np.bool_], weight: Floats
) -> tuple[Floats, Floats]:
    """As `uplift_curve`, with Radcliffe's gain: what the treated did, less what as many of the
    others did, over all of the treated: (Y1 - Y0 * N1 / N0) / N1(everybody)."""
    one, zero = weight * treated, weight * ~treated
    in_one, in_zero = _running(one), _running(zero)
    did, did_not = _running(one * outcome), _running(zero * outcome)
    share = (in_one + in_zero) / np.maximum(in_one[:, -1:] + in_zero[:, -1:], _TINY)
    as_many = did_not * in_one / np.maximum(in_zero, _TINY)
    gain = (did - as_many) / np.maximum(in_one[:, -1:], _TINY)
    return share, np.where(in_zero > 0, gain, 0.0)


def area(share: Floats, gain: Floats) -> Floats:
    """[R] the area under each curve, by trapezoids."""
    under: Floats = (np.diff(share) * (gain[:, 1:] + gain[:, :-1]) / 2).sum(1)
    return under


def area_over_chance(share: Floats, gain: Floats) -> Floats:
    """[R] the area between the curve and the straight line to its end."""
    return area(share, gain) - gain[:, -1] / 2


def areas(log: OfferLog, arm: int, uplift: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """AUUC and Qini coefficient [R] of `uplift` [N], predicted for `arm` against no offer."""
    rows = np.flatnonzero((log.arm == arm) | (log.arm == 0))
    rows = rows[best_first(uplift[rows])]
    taken = log.arm[rows]
    counted = weight[:, rows] / log.propensity[rows, taken]
    outcome, treated = log.outcome[rows], taken == arm
    auuc = area(*uplift_curve(outcome, treated, counted))
    return auuc, area_over_chance(*qini_curve(outcome, treated, counted))


def policy_value(
    log: OfferLog, chosen: npt.NDArray[np.int64], earned: Floats, weight: Floats
) -> Floats:
    """[R] mean of `earned` [N] if everybody got the arm `chosen` [N]: the rows that did get it, by
    the inverse of its propensity, over the sum of those weights (Hajek)."""
    rows = np.flatnonzero(log.arm == chosen)
    counted = weight[:, rows] / log.propensity[rows, log.arm[rows]]
    value: Floats = (counted * earned[rows]).sum(1) / np.maximum(counted.sum(1), _TINY)
    return value


def calibration(
    log: OfferLog, arm: int, uplift: Floats, bins: int = 10
) -> tuple[Floats, Floats, Floats]:
    """Of `bins` equal parts by predicted uplift of `arm`: mean prediction, observed difference to
    no offer, and its standard error, [bins] each."""
    rows = np.flatnonzero((log.arm == arm) | (log.arm == 0))
    rows = rows[best_first(uplift[rows])[::-1]]
    told, seen, error = [], [], []
    for part in np.array_split(rows, bins):
        got, rest = part[log.arm[part] == arm], part[log.arm[part] == 0]
        (one, var_one), (zero, var_zero) = _mean_of(log, got), _mean_of(log, rest)
        told.append(float(uplift[part].mean()))
        seen.append(one - zero)
        error.append(float(np.sqrt(var_one + var_zero)))
    return np.array(told), np.array(seen), np.array(error)


def _mean_of(log: OfferLog, rows: npt.NDArray[np.intp]) -> tuple[float, float]:
    """The weighted mean outcome of `rows`, and its variance; nan where there are none."""
    if not len(rows):
        return float("nan"), float("nan")
    weight = 1.0 / log.propensity[rows, log.arm[rows]]
    weight = weight / weight.sum()
    mean = float((weight * log.outcome[rows]).sum())
    return mean, float((weight**2 * (log.outcome[rows] - mean) ** 2).sum())


def resamples(size: int, count: int, seed: int) -> Floats:
    """[1 + count, size] how often each row counts: once, then as drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(count)]
    return np.concatenate([np.ones((1, size)), np.reshape(drawn, (count, size))]).astype(np.float64)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap `values`."""
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _running(values: Floats) -> Floats:
    """[R, N + 1] sums of the first 0, 1, ... N values of each row."""
    total: Floats = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    return total
