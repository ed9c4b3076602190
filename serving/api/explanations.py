"""`GET /v1/decisions/{decision_id}/explanation`: why this was shown, for the shop's support and, in
its sentences, for the shopper."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from contract.consent import NOTHING, in_effect
from contract.events import Event, FeedbackKind
from serving.api.auth import authenticate
from serving.api.bodies import says_gpc
from serving.api.consent import named_subject
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, documented
from serving.decision.messages import Reason
from serving.decision.reason_texts import PERSONAL, Texts, of_offer

router = APIRouter()

_NO_RECORD = "There is no record of this decision."

_DECISION = {
    "name": "decision_id",
    "in": "path",
    "required": True,
    "description": "As `decide` answered it.",
    "schema": {"type": "string", "format": "uuid"},
}
_SUBJECT = {
    "name": "subject_id",
    "in": "query",
    "description": "Whose decision it was; needed where events are kept in Kafka, which finds "
    "nothing by its id.",
    "schema": {"type": "string", "format": "uuid"},
}


class ExplainedItem(BaseModel):
    """One suggestion. `attributions`: what each kind of evidence added to its score against usual
    candidates (Shapley values, they add up); null for callers other than admin, where not the
    ranker but a lower rung chose, and where they come of a history not to be used any more."""

    item_id: str
    title: str
    reasons: list[Reason]
    score: float
    propensity: float
    attributions: dict[str, float] | None


class ExplainedOffer(BaseModel):
    """An offer that was shown. `propensity`: how likely it was; `expected_gain`: the margin that it
    was expected to bring over none, minor units. Both are null for callers other than admin."""

    offer_id: str
    reasons: list[Reason]
    propensity: float | None
    expected_gain: float | None


class OrderReason(BaseModel):
    """Why an order is as it is."""

    code: str
    text: str


class ExplainedOrder(BaseModel):
    """The ways to pay, or to have things delivered, in the order of the models. Rules may have
    changed it: `applied_rules`."""

    order: list[str]
    reason: OrderReason


class RefusedItem(BaseModel):
    """An item that was left out, and the shopper's word for it."""

    item_id: str
    title: str
    feedback: FeedbackKind


class Explanation(BaseModel):
    """What was decided and why. `segments`, `refused`, personal reasons and what was reckoned from
    the shopper's history only while they agree to personalization, and without `Sec-GPC: 1`; an
    order that follows from it is not told without. `payment`, `shipping`: null where not asked
    for."""

    decision_id: UUID
    occurred_at: datetime
    release_id: str
    rung: str
    degraded: list[str]
    segments: list[str]
    recommendations: list[ExplainedItem]
    refused: list[RefusedItem]
    offers: list[ExplainedOffer]
    payment: ExplainedOrder | None
    shipping: ExplainedOrder | None
    applied_rules: list[str]


@router.get(
    "/v1/decisions/{decision_id}/explanation",
    summary="Explain a decision",
    response_model=Explanation,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra={"parameters": [_DECISION, _SUBJECT]},
    tags=["checkout"],
)
async def get_explanation(request: Request) -> Response:
    """From the record of the decision, as it was made: none is told without `analytics` then and
    now, after an erasure and when its time of retention is over. Figures are for admin keys."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout")
    event = await _recorded(request, gateway)
    consent = gateway.control.consent_of(str(event.subject_id))
    agreed = NOTHING if consent is None else consent.purposes
    if "analytics" not in agreed:
        raise ApiProblem(404, _NO_RECORD)
    # The browser's signal is about what is used from now on; that there is a record was agreed to.
    personal = "personalization" in in_effect(agreed, None, gpc=says_gpc(request))
    told = explanation(gateway, event, personal=personal, figures=caller.role == "admin")
    return Response(told.model_dump_json(), media_type="application/json")


async def _recorded(request: Request, gateway: Gateway) -> Event:
    """The record of the decision that the path names. Raises a 404 or 422 problem."""
    said = request.query_params.get("subject_id")
    subject_id = None if said is None else named_subject(gateway, said)
    try:
        decision_id = UUID(request.path_params["decision_id"])
    except ValueError:
        raise ApiProblem(422, "decision_id: is no UUID.") from None
    if subject_id is None and not gateway.event_log.finds_by_id:
        raise ApiProblem(422, "subject_id: is needed, because events are kept in Kafka.")
    subjects = () if subject_id is None else (subject_id,)
    # On a thread: where events are in Kafka all of a topic is gone through.
    event = await asyncio.to_thread(gateway.event_log.find, decision_id, subjects)
    if event is None or event.decision is None:
        raise ApiProblem(404, _NO_RECORD)
    if subject_id is not None and str(event.subject_id) != subject_id:
        raise ApiProblem(404, _NO_RECORD)
    return event


def explanation(gateway: Gateway, event: Event, *, personal: bool, figures: bool) -> Explanation:
    """What the record `event` of a decision says, as far as it may be said."""
    record: dict[str, Any] = dict(event.decision or {})
    # Every kind of evidence knows something of the history, if any was used.
    figures = figures and (personal or "personalization" not in event.purposes)
    texts = gateway.decider.settings.texts
    return Explanation(
        decision_id=event.event_id,
        occurred_at=event.occurred_at,
        release_id=record["release_id"],
        rung=record["rung"],
        degraded=record["degraded"],
        segments=record.get("segments", []) if personal else [],
        recommendations=[
            ExplainedItem(
                item_id=one["item_id"],
                title=gateway.live.current.title(one["item_id"]),
                reasons=_reasons(texts, one["reasons"], personal=personal),
                score=one["score"],
                propensity=one["propensity"],
                attributions=one.get("attributions") if figures else None,
            )
            for one in record["shown"]
        ],
        refused=[
            RefusedItem(item_id=item_id, title=gateway.live.current.title(item_id), feedback=word)
            for item_id, word in record.get("refused", {}).items()
            if personal
        ],
        offers=_offers(texts, record.get("offers") or {}, figures=figures),
        payment=_order(texts, record.get("payment_methods"), personal=personal),
        shipping=_order(texts, record.get("shipping_options"), personal=personal),
        applied_rules=(record.get("rules") or {}).get("applied", []),
    )


def _offers(texts: Texts, record: dict[str, Any], *, figures: bool) -> list[ExplainedOffer]:
    """What was shown of the `offers` of a record."""
    policy, explored = record.get("policy", "unconditional"), record.get("explored", False)
    return [
        ExplainedOffer(
            offer_id=arm["offer_id"],
            reasons=[
                texts.by_code[of_offer(policy, explored=explored, forced=_forced(record, arm))]
            ],
            propensity=arm["propensity"] if figures else None,
            expected_gain=arm.get("expected_gain") if figures else None,
        )
        for arm in record.get("arms", ())
        if arm["shown"]
    ]


def _forced(record: dict[str, Any], arm: dict[str, Any]) -> bool:
    return arm["offer_id"] in record["rules"]


def _order(texts: Texts, record: dict[str, Any] | None, *, personal: bool) -> ExplainedOrder | None:
    if record is None or (record["reason"] == "chosen_before" and not personal):
        return None
    reason = OrderReason(code=record["reason"], text=texts.orders[record["reason"]])
    return ExplainedOrder(order=record["order"], reason=reason)


def _reasons(texts: Texts, codes: list[Any], *, personal: bool) -> list[Reason]:
    found = texts.by_code
    return [found[code] for code in codes if code in found and (personal or code not in PERSONAL)]
