"""`POST /v1/offers/check`: what a draft of the offers would make of sample checkouts, by the same
code that would decide them."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from contract.offers import OfferBook
from serving.api.auth import authenticate
from serving.api.bodies import parse_document, read_written_body
from serving.api.documentation import body_of
from serving.api.gateway import gateway_of
from serving.api.offers import check
from serving.api.problems import documented
from serving.api.samples import Checked, previewed
from serving.api.unknown_names import unknown_in_offers
from serving.decision.messages import RejectedOffer
from serving.decision.outcome import Decision

router = APIRouter()


class CheckedOffers(Checked, OfferBook):
    """The request: the draft, and sample checkouts; without any, carts of popular items. `version`
    and `note` are taken as `PUT /v1/offers` takes them, and mean nothing here."""


class ShownOffer(BaseModel):
    """An offer that would be shown, and at most how much it takes off, minor units."""

    offer_id: str
    amount: int


class Offering(BaseModel):
    """What a shopper would be offered. `chances`: of every offer that this checkout may have;
    `held_out`: this one is among those who are shown nothing by chance."""

    offers: list[ShownOffer]
    rejected_offers: list[RejectedOffer]
    chances: dict[str, float]
    held_out: bool
    applied_rules: list[str]


class OffersSampleTold(BaseModel):
    """One sample, under the offers in force and under the draft; `degraded` names what could not be
    said in time."""

    name: str
    before: Offering
    after: Offering
    changed: bool
    degraded: list[str]


class OffersChecked(BaseModel):
    """The answer. `version`: of the offers in force; `warnings`: what the draft's conditions speak
    of and this shop does not have."""

    version: int
    changed: int
    samples: list[OffersSampleTold]
    warnings: list[str]


@router.post(
    "/v1/offers/check",
    summary="Try a draft of the offers",
    response_model=OffersChecked,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 503),
    openapi_extra=body_of(CheckedOffers, yaml=True),
    tags=["offers"],
)
async def check_offers(request: Request) -> Response:
    """Writes nothing, reserves nothing and counts nothing. Every sample is decided under the offers
    in force and under the draft, with what was used of them so far and the rules in force. A
    `user_id` or `visitor_id` of a shopper is looked up, so that their history counts under their
    consent; `assume` sets what is known of a shopper for the conditions of rules and offers."""
    gateway = gateway_of(request)
    authenticate(request, gateway, "admin")
    body = await read_written_body(request, gateway.settings.body_limit_bytes)
    asked = parse_document(CheckedOffers, body)
    drafted = gateway.shelf.with_draft(await check(gateway, asked))
    currency = gateway.live.current.catalogue.currency

    rules = (gateway.rules.current,)
    told = []
    for name, sample in asked.named_samples(gateway):
        question = sample.request(currency).model_copy(update={"placements": ("offers",)})
        (before,) = await previewed(gateway, sample, question, rules, gateway.shelf)
        (after,) = await previewed(gateway, sample, question, rules, drafted)
        told.append(_told(name, before, after))
    answer = OffersChecked(
        version=gateway.shelf.version,
        changed=sum(one.changed for one in told),
        samples=told,
        warnings=unknown_in_offers(gateway, asked),
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _told(name: str, before: Decision, after: Decision) -> OffersSampleTold:
    sides = _offering(before), _offering(after)
    return OffersSampleTold(
        name=name,
        before=sides[0],
        after=sides[1],
        changed=sides[0] != sides[1],
        degraded=list(after.response.degraded),
    )


def _offering(decision: Decision) -> Offering:
    said, record = decision.response, decision.offers() if decision.offers else {}
    arms: list[dict[str, Any]] = record.get("arms", [])
    return Offering(
        offers=[
            ShownOffer(offer_id=one.offer_id, amount=one.discount.amount) for one in said.offers
        ],
        rejected_offers=list(said.rejected_offers),
        chances={arm["offer_id"]: arm["propensity"] for arm in arms},
        held_out=record.get("holdout", False),
        applied_rules=list(said.applied_rules),
    )
