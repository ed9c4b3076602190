"""Fairness: are groups of people served and shown as much as others, and above all offered as much?

The figures and the audit are `contract.fairness`. Groups buy differently, so they are never served
exactly alike: of quality and exposure is refused what falls below the least ratio and was better
with the champion. Of offers there is no such excuse.
"""

from collections.abc import Sequence

from contract.fairness import Comparison, FairnessLimits, FairnessReport, breaches
from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

_NO_WORSE = 0.02  # of a ratio, which is an estimate


def offers(
    found: FairnessReport | None,
    limits: Limits,
    named: Sequence[str] = (),
    unjudged: Sequence[str] = (),
) -> Verdict:
    """Who is offered something, by the log and by the release's network; None where there is no
    offer to judge. Each of the `named` attributes has to be judged where there is one; `unjudged`
    says what goes out and can not be."""
    checks: list[Check] = []
    if found is not None:
        checks = [_offered(one, found, _allowed(limits)) for one in found.comparisons]
        if not checks:
            checks = [_nothing("offers were made to nobody whose group is known")]
        checks += _missed(found, named, "offers")
    checks += [_nothing(said) for said in unjudged]
    if not checks:
        checks = [_nothing("no offers in the window and none in the release")]
    return Verdict.of("fairness", checks)


def served(
    challenger: FairnessReport,
    champion: FairnessReport,
    limits: Limits,
    named: Sequence[str] = (),
) -> Verdict:
    """The same measures of both sides' answers; each of the `named` attributes has to be judged."""
    checks = [
        _served(one, champion.find(one.attribute, one.measure), _allowed(limits))
        for one in challenger.comparisons
    ]
    checks += _missed(challenger, named, "answers")
    return Verdict.of("fairness", checks or [_nothing("nobody's group is known")])


def _nothing(said: str) -> Check:
    return Check("groups", 0.0, None, True, said, judged=False)


def _missed(found: FairnessReport, named: Sequence[str], of: str) -> list[Check]:
    """A refusal for every attribute that somebody named and that nothing could be said of."""
    judged = {one.attribute for one in found.comparisons if one.judged}
    said = f"no two groups of {found.least_people} people or more to compare"
    return [
        Check(name, 0.0, None, False, f"{of} by {name}: {said}; its ids may be other ones")
        for name in named
        if name not in judged
    ]


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
        return _nothing(f"{name}: no two groups large enough to compare")
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
        return _nothing(f"{name}: no two groups large enough to compare")
    told = [b.text for b in breaches(FairnessReport((one,), report.least_people), allowed)]
    said = told[0] if told else f"{name}: {one.lowest} has {one.ratio:.2f} of {one.highest}"
    return Check(name, one.ratio, allowed.of(one.kind), not told, said)
