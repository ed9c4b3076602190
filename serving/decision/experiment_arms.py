"""The variants that a checkout belongs to, and what they take away from its decision."""

from dataclasses import replace
from datetime import datetime
from typing import Final

from contract.experiments import Assigner, ExperimentBook
from serving.decision.messages import DecideRequest, ExperimentArm
from serving.decision.outcome import SubjectContext

DOCUMENT: Final = "experiments"


def assigner_of(body: str) -> Assigner:
    """The document `body` as decisions use it. Raises ValueError."""
    return Assigner(ExperimentBook.model_validate_json(body).experiments)


def arms_of(
    assigner: Assigner, request: DecideRequest, subject: SubjectContext, now: datetime
) -> tuple[tuple[ExperimentArm, ...], DecideRequest, SubjectContext]:
    """The variants in effect, and the request and subject as these want the decision to see them.

    It goes by the visitor, whom every checkout names: a subject is not known yet at the first. The
    id is hashed and forgotten. A purpose that a variant takes away is gone from the record too, so
    that models do not learn from histories that were not looked at.
    """
    assigned = assigner.assign(request.visitor_id, now, personal=subject.personal)
    if not assigned:
        return (), request, subject
    changes = assigner.changes(assigned)
    if not changes.personalization:
        subject = replace(subject, purposes=subject.purposes - {"personalization"})
    if not changes.offers and "offers" in request.placements:
        left = tuple(one for one in request.placements if one != "offers")
        request = request.model_copy(update={"placements": left})
    arms = tuple(ExperimentArm(key=key, variant=variant) for key, variant in assigned)
    return arms, request, subject
