"""Parity and latency: the exported files answer as the trained models do, and as quickly as what
they would take the place of."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

Floats = npt.NDArray[np.float64]


def parity(differences: Mapping[str, float], recall: float | None, limits: Limits) -> Verdict:
    """`differences`: the largest between torch and ONNX Runtime, by model; `recall` of the index
    against exact search, None where it is exact."""
    checks = [
        Check(
            name,
            value,
            limits.parity,
            value <= limits.parity,
            f"{name}: the file differs from the trained model by {value:.1e} at most, "
            f"{limits.parity:.0e} allowed",
        )
        for name, value in differences.items()
    ]
    if recall is not None:
        said = f"the index finds {recall:.1%} of what exact search finds, as chosen at export"
        checks.append(Check("index recall", recall, None, True, said))
    return Verdict.of("parity", checks)


def latency(champion_ms: Floats, challenger_ms: Floats, limits: Limits) -> Verdict:
    """CPU milliseconds of whole decisions in process, asked in turn with the same checkouts."""
    ours, theirs = float(np.median(challenger_ms)), float(np.median(champion_ms))
    slower, worst = ours / theirs - 1, float(np.quantile(challenger_ms, 0.99))
    return Verdict.of(
        "latency",
        [
            Check(
                "median",
                slower,
                limits.slower,
                slower <= limits.slower,
                f"a decision takes {ours:.2f} ms of CPU, the champion's {theirs:.2f} "
                f"({slower:+.0%}, at most {limits.slower:+.0%} allowed)",
            ),
            Check(
                "p99",
                worst,
                limits.decision_ms,
                worst <= limits.decision_ms,
                f"one decision in a hundred takes {worst:.1f} ms or more, "
                f"at most {limits.decision_ms:g} allowed",
            ),
        ],
    )
