"""Calibration: does the probability that the ranker gives an item come true among purchases?

The ranker is a softmax over the candidates of a checkout: of all purchases, a candidate with
probability p should get the share p. Bins hold what was promised and what came; the error is half
of the summed differences: the share of the probability that stands in the wrong bin.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

Floats = npt.NDArray[np.float64]
EDGES = np.array([0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0])


@dataclass(frozen=True)
class Reliability:
    """Sums over checkouts that had something to be found, for each of len(EDGES) - 1 bins of
    probability: `promised` and `came`, both of total `checkouts`; `held` candidates."""

    checkouts: int
    promised: Floats
    came: Floats
    held: Floats

    @property
    def error(self) -> float:
        """From 0 (every bin as promised) to 1."""
        return float(np.abs(self.promised - self.came).sum() / (2 * max(self.checkouts, 1)))


def binned(probability: Floats, relevant: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Promised, came and held by bin for the candidates [C] of one checkout, of which at least one
    is `relevant`; each of the relevant ones counts as its share of the purchases."""
    place = np.clip(np.searchsorted(EDGES, probability, side="right") - 1, 0, len(EDGES) - 2)
    bins = len(EDGES) - 1
    return (
        np.bincount(place, probability, bins).astype(np.float64),
        np.bincount(place, relevant / relevant.sum(), bins).astype(np.float64),
        np.bincount(place, minlength=bins).astype(np.float64),
    )


def calibration(champion: Reliability, challenger: Reliability, limits: Limits) -> Verdict:
    """Refuses probabilities that are far off, or clearly worse than the champion's."""
    worse = challenger.error - champion.error
    off, behind = limits.calibration_error, limits.calibration_worse
    return Verdict.of(
        "calibration",
        [
            Check(
                "error",
                challenger.error,
                off,
                challenger.error <= off,
                f"{challenger.error:.1%} of the ranker's probability is in the wrong place, "
                f"at most {off:.0%} allowed",
            ),
            Check(
                "against the champion",
                worse,
                behind,
                worse <= behind,
                f"that is {abs(worse):.1%} {'more' if worse > 0 else 'less'} than the champion's "
                f"{champion.error:.1%}, at most {behind:.0%} more allowed",
            ),
        ],
    )
