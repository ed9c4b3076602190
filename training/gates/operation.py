"""Parity and latency: the exported files answer as the trained models do, and as quickly as what
they would take the place of."""

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Timed:
    """Milliseconds of the same N decisions by champion and challenger, asked in turn: of the round
    trip to a gateway each, with the shares of `full` answers, or of CPU in this process (`full`
    None). `failed`: why no gateway serves the challenger."""

    champion_ms: Floats
    challenger_ms: Floats
    full: tuple[float, float] | None = None
    failed: str | None = None


def latency(timed: Timed, limits: Limits) -> Verdict:
    """Whether whole decisions are as quick as before."""
    if timed.failed is not None:
        return Verdict.of("latency", [Check("served", 0.0, None, False, timed.failed)])
    where = "of CPU" if timed.full is None else "at a gateway's door"
    ours, theirs = float(np.median(timed.challenger_ms)), float(np.median(timed.champion_ms))
    worst, before = (
        float(np.quantile(ms, 0.99)) for ms in (timed.challenger_ms, timed.champion_ms)
    )
    slower = ours / theirs - 1
    # On a slow or busy machine both take long, and say nothing of each other.
    allowed = max(limits.decision_ms, before * (1 + limits.slower))
    checks = [
        Check(
            "median",
            slower,
            limits.slower,
            slower <= limits.slower,
            f"a decision takes {ours:.2f} ms {where}, the champion's {theirs:.2f} "
            f"({slower:+.0%}, at most {limits.slower:+.0%} allowed)",
        ),
        Check(
            "p99",
            worst,
            allowed,
            worst <= allowed,
            f"one decision in a hundred takes {worst:.1f} ms or more {where}, of the champion's "
            f"{before:.1f}; at most {allowed:.1f} allowed",
        ),
    ]
    if timed.full is not None:
        was, now = timed.full
        said = f"{now:.1%} of the answers are full ones, of the champion's {was:.1%}"
        checks.append(Check("full", now, was, now >= was - limits.less_full, said))
    return Verdict.of("latency", checks)
