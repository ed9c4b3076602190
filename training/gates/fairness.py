"""Fairness: are groups of people served and shown as much as others, and above all offered as much?

The figures and the audit are `contract.fairness`. Groups buy differently, so they are never served
exactly alike: of quality and exposure is refused what falls below the least ratio and was better
with the champion. Of offers there is no such excuse.
"""

from contract.fairness import Comparison, FairnessLimits, FairnessReport, breaches
from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

_NO_WORSE = 0.02  # of a ratio, which is an estimate


def offers(found: FairnessReport | None, limits: Limits) -> Verdict:
    """Who is offered something, by the log and by the release's network; None where there is no
    offer to judge."""
    if found is None:
        said = "no offers in the window and none in the release: nothing to judge"
        return Verdict.of("fairness", [Check("offers", 0.0, None, True, said)])
    checks = [_offered(one, found, _allowed(limits)) for one in found.comparisons]
    if not checks:
        said = "offers were made to nobody whose group is known: nothing to judge"
        checks = [Check("offers", 0.0, None, True, said)]
    return Verdict.of("fairness", checks)


def served(challenger: FairnessReport, champion: FairnessReport, limits: Limits) -> Verdict:
    """The same measures of both sides' answers."""
    checks = [
        _served(one, champion.find(one.attribute, one.measure), _allowed(limits))
        for one in challenger.comparisons
    ]
    if not checks:
        said = "nobody's group is known: nothing to compare"
        checks = [Check("groups", 0.0, None, True, said)]
    return Verdict.of("fairness", checks)


def _allowed(limits: Limits) -> FairnessLimits:
    return FairnessLimits(
        offers=limits.offer_ratio,
        opportunity=limits.offer_ratio,
        exposure=limits.exposure_ratio,
        quality=limits.quality_ratio,
    )


def _served(one: Comparison, before: Comparison, allowed: FairnessLimits) -> Check:
    name, limit = f"{one.measure} by {one.attribute}", allowed.of(one.kind)
    if not one.judged:
        return Check(name, 1.0, None, True, f"{name}: no two groups large enough to compare")
    worse = one.ratio < before.ratio - _NO_WORSE
    passed = not (one.proven and one.ratio < limit and worse)
    said = (
        f"{name}: {one.lowest} has {one.ratio:.2f} of {one.highest} (champion {before.ratio:.2f})"
    )
    if not passed:
        said += f", less than {limit:g} and less than before"
    return Check(name, one.ratio, limit, passed, said)


def _offered(one: Comparison, report: FairnessReport, allowed: FairnessLimits) -> Check:
    name = f"{one.measure} by {one.attribute}"
    if not one.judged:
        return Check(name, 1.0, None, True, f"{name}: no two groups large enough to compare")
    told = [b.text for b in breaches(FairnessReport((one,), report.least_people), allowed)]
    said = told[0] if told else f"{name}: {one.lowest} has {one.ratio:.2f} of {one.highest}"
    return Check(name, one.ratio, allowed.of(one.kind), not told, said)
