"""`POST /v1/rules/check`: what a draft of the rules would make of sample checkouts, by the same
code and the same models that would decide them."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contract.encoding import FIRST_ITEM
from contract.expression_variables import Value
from contract.rules import RuleBook
from serving.api.auth import authenticate
from serving.api.bodies import parse, read_written_body
from serving.api.documentation import body_of
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, documented
from serving.api.rules import check
from serving.decision.admission import Overloaded
from serving.decision.messages import Cart, CartLine, DecideRequest, Name
from serving.decision.outcome import Decision, SubjectContext
from serving.state.sqlite_writer import StoreError

router = APIRouter()

MOST_SAMPLES = 50
_MADE_UP = 5
_DEADLINE_MS = 1_000


class Assumed(BaseModel):
    """What conditions are to take for so in a sample, whoever the shopper is."""

    model_config = ConfigDict(extra="forbid")

    segments: Annotated[list[Name], Field(max_length=100)] | None = None
    orders: Annotated[int, Field(ge=0, le=10**6)] | None = None

    def values(self) -> Mapping[str, Value]:
        """As the conditions' variables."""
        values: dict[str, Value] = {}
        if self.segments is not None:
            values["segments"] = self.segments
        if self.orders is not None:
            values |= {"shopper.orders": self.orders, "shopper.known": True}
        return values


class Sample(DecideRequest):
    """A checkout as `decide` would be asked, of which everything may be left out."""

    name: Annotated[str, StringConstraints(max_length=100)] = ""
    assume: Assumed = Assumed()
    visitor_id: str = "sample"
    session_id: str = "sample"
    cart: Cart | None = None  # type: ignore[assignment]

    def request(self, currency: str) -> DecideRequest:
        """The question itself."""
        said = self.model_dump(exclude={"name", "assume"}, exclude_unset=True)
        empty = {"cart_id": "sample", "currency": currency}
        usual = {"visitor_id": "sample", "session_id": "sample", "cart": empty}
        body = usual | {name: value for name, value in said.items() if value is not None}
        return DecideRequest.model_validate(body | {"deadline_ms": _DEADLINE_MS})


class CheckedRules(RuleBook):
    """The request: the draft, and sample checkouts; without any, carts of popular items. `version`
    and `note` are taken as `PUT /v1/rules` takes them, and mean nothing here."""

    samples: Annotated[tuple[Sample, ...], Field(max_length=MOST_SAMPLES)] = ()
    version: int | None = None
    note: str = ""


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
    """The answer. `version`: of the rules in force."""

    version: int
    changed: int
    samples: list[SampleTold]


@router.post(
    "/v1/rules/check",
    summary="Try a draft of the rules",
    response_model=RulesChecked,
    responses=documented(400, 401, 403, 413, 415, 422, 429, 503),
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
    asked = parse(CheckedRules, body)
    draft = await check(asked)
    held = gateway.rules.current
    samples = asked.samples or made_up(gateway)
    currency = gateway.live.current.catalogue.currency
    told = []
    for place, sample in enumerate(samples):
        question = sample.request(currency)
        try:
            before, after = await gateway.decider.preview(
                question, subject_of(gateway, question), (held, draft), sample.assume.values()
            )
        except Overloaded as error:
            wait = {"Retry-After": str(error.retry_after_s)}
            raise ApiProblem(429, "The gateway is busy; try again.", headers=wait) from None
        told.append(_told(sample.name or f"sample {place + 1}", before, after))
    answer = RulesChecked(
        version=gateway.rules.version, changed=sum(one.changed for one in told), samples=told
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def subject_of(gateway: Gateway, question: DecideRequest) -> SubjectContext:
    """Whom the sample names, as a decision would find them; nothing is written."""
    try:
        who = gateway.subjects.recognise(
            question.visitor_id, question.user_id, question.consent, gpc=question.gpc
        )
    except StoreError:
        return SubjectContext()
    return SubjectContext(who.subject_id, who.purposes, who.histories)


def made_up(gateway: Gateway) -> tuple[Sample, ...]:
    """An empty cart, and carts of one popular item each."""
    release = gateway.live.current
    popular = [one for one in release.by_popularity.tolist() if one >= FIRST_ITEM][: _MADE_UP - 1]
    price = release.catalogue.now.price
    carts = [
        Cart(
            cart_id="sample",
            currency=release.catalogue.currency,
            items=(
                CartLine(
                    item_id=release.vocabulary.item_id(one),
                    price=int(price[one]) if price[one] >= 0 else None,
                ),
            ),
        )
        for one in popular
    ]
    return (
        Sample(name="empty cart"),
        *(Sample(name=f"cart of {cart.items[0].item_id}", cart=cart) for cart in carts),
    )


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
