"""Fairness: are groups of people served and shown as much as others, and above all offered as much?

The figures and the audit are `contract.fairness`. Groups buy differently, so they are never served
exactly alike: of quality and exposure is refused what falls below the least ratio and was better
with the champion. Of offers there is no such excuse.
"""

from contract.fairness import Comparison, FairnessLimits, FairnessReport, breaches
from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

_NO_WORSE = 0.02  # of a ratio, which is an estimate


def fairness(
    challenger: FairnessReport,
    champion: FairnessReport,
    offers: FairnessReport | None,
    limits: Limits,
) -> Verdict:
    """`challenger` and `champion`: the same measures of their answers; `offers`: who is offered
    something, None where neither the log nor the release holds any."""
    allowed = FairnessLimits(
        offers=limits.offer_ratio,
        opportunity=limits.offer_ratio,
        exposure=limits.exposure_ratio,
        quality=limits.quality_ratio,
    )
    checks = [
        _served(one, champion.find(one.attribute, one.measure), allowed)
        for one in challenger.comparisons
    ]
    if offers is None:
        said = "no offers in the window and none in the release: nothing to judge"
        checks.append(Check("offers", 0.0, None, True, said))
    else:
        checks += [_offered(one, offers, allowed) for one in offers.comparisons]
    return Verdict.of("fairness", checks)


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
