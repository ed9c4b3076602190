"""Uplift: do the offers that a new network would make pay for themselves?

It is judged by the decisions that it was learned from, each by members that have not learned from
the person (training.uplift.evidence), so nothing of the fresh window is needed.
"""

from training.gates.verdict import Check, Verdict
from training.uplift.evidence import Evidence


def pays(evidence: Evidence | None) -> Verdict:
    """Refuses a network whose offers are not shown to earn more than none; None: no new one goes
    out."""
    if evidence is None:
        said = "there is no new uplift network: the champion's goes along, where it has one"
        nothing = Check("gain", 0.0, None, True, said, judged=False)
        return Verdict.of("uplift", [nothing])
    refused = evidence.refused
    check = Check("gain", evidence.low, 0.0, refused is None, refused or evidence.said)
    return Verdict.of("uplift", [check])
