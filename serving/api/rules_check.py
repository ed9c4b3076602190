"""`POST /v1/rules/check`: what a draft of the rules would make of sample checkouts, by the same
code and the same models that would decide them."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from contract.rules import RuleBook
from serving.api.auth import authenticate
from serving.api.bodies import parse_document, read_written_body
from serving.api.documentation import body_of
from serving.api.gateway import gateway_of
from serving.api.problems import documented
from serving.api.rules import check
from serving.api.samples import Checked, previewed
from serving.api.unknown_names import unknown_in_rules
from serving.decision.outcome import Decision

router = APIRouter()


class CheckedRules(Checked, RuleBook):
    """The request: the draft, and sample checkouts; without any, carts of popular items. `version`
    and `note` are taken as `PUT /v1/rules` takes them, and mean nothing here."""


class Decided(BaseModel):
    """What a shopper would be shown."""

    items: list[str]
    offers: list[str]
    payment_method_order: list[str]
    shipping_option_order: list[str]
    applied_rules: list[str]


class NoteTold(BaseModel):
    """What a rule could not do, and why."""

    rule_id: str
    text: str


class SampleTold(BaseModel):
    """One sample: its decision under the rules in force and under the draft. `failed`: rules whose
    condition could not be evaluated, so that they did not hold."""

    name: str
    rung: str
    before: Decided
    after: Decided
    changed: bool
    notes: list[NoteTold]
    failed: list[str]


class RulesChecked(BaseModel):
    """The answer. `version`: of the rules in force; `warnings`: what the draft speaks of and this
    shop does not have."""

    version: int
    changed: int
    samples: list[SampleTold]
    warnings: list[str]


@router.post(
    "/v1/rules/check",
    summary="Try a draft of the rules",
    response_model=RulesChecked,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 503),
    openapi_extra=body_of(CheckedRules, yaml=True),
    tags=["rules"],
)
async def check_rules(request: Request) -> Response:
    """Writes nothing. Every sample is put to the models once; the rules in force and the draft are
    then applied to what they found, as in a decision. A `user_id` or `visitor_id` of a shopper is
    looked up, so that their history counts under their consent; `assume` sets what is known of a
    shopper for the conditions of rules and offers alone."""
    gateway = gateway_of(request)
    authenticate(request, gateway, "admin")
    body = await read_written_body(request, gateway.settings.body_limit_bytes)
    asked = parse_document(CheckedRules, body)
    draft = await check(asked)
    held = gateway.rules.current
    currency = gateway.live.current.catalogue.currency
    told = []
    for name, sample in asked.named_samples(gateway):
        before, after = await previewed(gateway, sample, sample.request(currency), (held, draft))
        told.append(_told(name, before, after))
    answer = RulesChecked(
        version=gateway.rules.version,
        changed=sum(one.changed for one in told),
        samples=told,
        warnings=unknown_in_rules(gateway, asked),
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _told(name: str, before: Decision, after: Decision) -> SampleTold:
    record: dict[str, Any] = after.rules or {}
    sides = [_decided(before), _decided(after)]
    return SampleTold(
        name=name,
        rung=after.response.rung,
        before=sides[0],
        after=sides[1],
        changed=sides[0] != sides[1],
        notes=[NoteTold(rule_id=one, text=text) for one, text in record.get("notes", ())],
        failed=record.get("failed", []),
    )


def _decided(decision: Decision) -> Decided:
    said = decision.response
    return Decided(
        items=[one.item_id for one in said.recommendations],
        offers=[one.offer_id for one in said.offers],
        payment_method_order=list(said.payment_method_order),
        shipping_option_order=list(said.shipping_option_order),
        applied_rules=list(said.applied_rules),
    )
