"""Quality, by slice and for the cold start: is the challenger at least as good as the champion, and
is nobody much worse off?

Overall it must be shown not to lose more than the limit: the whole interval lies above. A slice is
refused for the opposite: a loss that is beyond chance and beyond the limit. Many slices are looked
at, so each is judged on a wider interval (Bonferroni), or chance would refuse every other week.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from training.gates.limits import Limits
from training.gates.paired import Floats, Paired, paired
from training.gates.verdict import Check, Verdict

Marks = npt.NDArray[np.bool_]
Units = npt.NDArray[np.int64]


def quality(champion: Floats, challenger: Floats, unit: Units, limits: Limits) -> Verdict:
    """NDCG@5 of the same questions [T] by both, `unit` the shopper of each."""
    found = paired(champion, challenger, unit)
    low = found.relative(found.low)
    passed = low >= -limits.quality_loss
    said = (
        f"NDCG@5 {found.challenger:.4f} against the champion's {found.champion:.4f} "
        f"({found.relative(found.difference):+.1%}, 95 % from {low:+.1%} to "
        f"{found.relative(found.high):+.1%})"
    )
    if not passed:
        said += f": a loss of more than {limits.quality_loss:.0%} is not ruled out"
    return Verdict.of("quality", [Check("NDCG@5", low, -limits.quality_loss, passed, said)])


def slices(
    champion: Mapping[str, Floats],
    challenger: Mapping[str, Floats],
    unit: Mapping[str, Units],
    limits: Limits,
) -> tuple[Verdict, dict[str, Paired]]:
    """The figures of each slice (its own questions), and the comparison of each."""
    return judged("slices", champion, challenger, unit, limits.slice_loss, limits.min_slice)


def cold_start(
    champion: Mapping[str, Floats],
    challenger: Mapping[str, Floats],
    unit: Mapping[str, Units],
    limits: Limits,
) -> tuple[Verdict, dict[str, Paired]]:
    """The same for new items and shoppers of whom little or nothing is known."""
    return judged("cold_start", champion, challenger, unit, limits.cold_loss, limits.min_slice)


def judged(
    gate: str,
    champion: Mapping[str, Floats],
    challenger: Mapping[str, Floats],
    unit: Mapping[str, Units],
    loss: float,
    least: int,
) -> tuple[Verdict, dict[str, Paired]]:
    """Refuses a slice of `least` questions or more that loses over `loss`, and surely loses."""
    names: Sequence[str] = [name for name, values in champion.items() if len(values)]
    large = sum(len(champion[name]) >= least for name in names)
    confidence = 1 - 0.05 / max(1, large)
    checks, compared = [], {}
    for name in names:
        found = paired(champion[name], challenger[name], unit[name], confidence=confidence)
        compared[name] = found
        enough = found.questions >= least
        change = found.relative(found.difference)
        passed = not (enough and found.high < 0 and change < -loss)
        size = f"{found.questions} questions" + ("" if enough else ", too few to judge")
        said = (
            f"{name}: {found.challenger:.4f} against {found.champion:.4f} ({change:+.1%}; {size})"
        )
        if not passed:
            said += f", a sure loss of more than {loss:.0%}"
        checks.append(Check(name, change, -loss if enough else None, passed, said))
    if not checks:
        nothing = Check(
            "questions", 0.0, None, True, "no question of this kind in the window", judged=False
        )
        checks.append(nothing)
    return Verdict.of(gate, checks), compared
