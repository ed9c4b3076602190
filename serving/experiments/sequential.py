"""Inference that stays valid however often somebody looks.

Asymptotic confidence sequences: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences" (2021, arXiv:2103.06476), whose boundary
is the normal mixture of Robbins (1970), the same as the mixture SPRT of Johari, Koomen, Pekelis and
Walsh, "Always Valid Inference" (2015, arXiv:1512.04922). With a chance of at least 1 - alpha the
truth lies within the interval at every look, not just at one that was planned.

Counts are judged with the Dirichlet mixture of Lindon and Malek, "Anytime-Valid Inference for
Multinomial Count Data" (2020, arXiv:2011.03567). Where one side has nothing at all there is no
variance; then counts as events fall to one side or the other (Przyborowski and Wilenski, 1940).

The boundary is tightest near `planned` units; it holds at every number of them. It holds for sums
that are near to normal, which a few units are not: MIN_UNITS in each variant come first.
"""

import math
from collections.abc import Sequence

MIN_UNITS = 100


def mixture(planned: float, alpha: float) -> float:
    """The variance of the mixture, rho squared, with which the boundary is tightest at `planned`
    units (equation 25 of the paper)."""
    log = -2 * math.log(alpha)
    return (log + math.log(log + 1)) / planned


def critical(units: float, planned: float, alpha: float) -> float:
    """How many standard errors an effect must have after `units`; 1.96 is the number for one look
    at alpha = .05."""
    grown = units * mixture(planned, alpha)
    return math.sqrt(2 * (grown + 1) / grown * math.log(math.sqrt(grown + 1) / alpha))


def p_value(z: float, units: float, planned: float, alpha: float = 0.05) -> float:
    """The smallest level at which `critical` is reached by `z` standard errors, with the mixture of
    `alpha`: below alpha at any look is significant."""
    grown = units * mixture(planned, alpha)
    exponent = -z * z * grown / (2 * (grown + 1))
    return min(1.0, math.sqrt(grown + 1) * math.exp(exponent))


def shares_p(counts: Sequence[int], fractions: Sequence[float]) -> float:
    """The p value, at whatever look this is, of `counts` where each of them was to have its one of
    `fractions`: one over the Bayes factor of any other shares (uniform) against these."""
    if any(one and not part for one, part in zip(counts, fractions, strict=True)):
        return 0.0
    size, total = len(counts), sum(counts)
    other = math.lgamma(size) - math.lgamma(size + total)
    other += sum(math.lgamma(1 + one) for one in counts)
    asked = sum(one * math.log(part) for one, part in zip(counts, fractions, strict=True) if one)
    return math.exp(min(0.0, asked - other))


def none_p(events: float, size: float, empty: float) -> float:
    """The p value, at whatever look this is, of `events` that all fell to a side of `size` and none
    to one of `empty`, where both have as many for their size. Every one falls to the fuller side
    with the chance of its size, so the first so many all do with that chance to that power."""
    return float((size / (size + empty)) ** events)
