"""The life of a coupon: reserve what a decision has offered, redeem it with the final cart, or
release it; roll a redemption back. Every call may be repeated: it answers the same and does nothing
twice, with an `Idempotency-Key` or without."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints

from contract.catalogue import MinorUnits
from contract.clock import to_us
from contract.events import RawId, no_card
from contract.fields import one_line
from contract.offers import Offer
from contract.pacing import usable
from contract.policy import Budget
from serving.api import idempotency
from serving.api.auth import authenticate
from serving.api.bodies import parse, read_json_body
from serving.api.documentation import body_of, path_parameter
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, documented
from serving.api.schemas import Cart
from serving.decision.offer_tokens import ExpiredToken, Grant
from serving.decision.tokens import InvalidToken
from serving.state.coupon_ledger import (
    Claim,
    CouponRefused,
    DayLimit,
    Redemption,
    RefusalReason,
    Reservation,
    Settlement,
    State,
)

router = APIRouter()
T = TypeVar("T")

_NOT_THERE = {"CouponNotFound", "ReservationNotFound", "RedemptionNotFound"}
_MOST_TOGETHER = 10


TransactionId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(no_card),
    AfterValidator(one_line),
]
Amount = Annotated[MinorUnits, Strict()]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReservationRequest(_Body):
    """The request: the token of the decision, and the ids that it was made for."""

    offer_token: Annotated[str, StringConstraints(min_length=1, max_length=4_096)]
    visitor_id: RawId
    user_id: RawId | None = None


class ReservationAnswer(BaseModel):
    """A reservation. `amount` in minor units is at most what the offer takes off the cart."""

    reservation_id: str
    offer_id: str
    state: State
    amount: int
    currency: str
    expires_at: datetime


class Shipping(_Body):
    """The delivery that was chosen, and its price before reductions."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    price: Amount


class RedemptionRequest(_Body):
    """The request: the final checkout. `total` is what is paid for the goods and their delivery
    with everything taken off, in minor units; every line has its price. `transaction_id` is the
    shop's own and counts once. `combined_with`: other reservations that are redeemed with it."""

    transaction_id: TransactionId
    cart: Cart
    total: Amount
    shipping: Shipping | None = None
    combined_with: Annotated[list[UUID], Field(max_length=_MOST_TOGETHER)] = []


class TakenOff(BaseModel):
    """What one reservation took off."""

    reservation_id: str
    amount: int


class RedemptionAnswer(BaseModel):
    """A redemption."""

    redemption_id: str
    transaction_id: str
    discounts: list[TakenOff]
    currency: str
    total: int
    redeemed_at: datetime
    rolled_back_at: datetime | None


def _named(name: str) -> dict[str, object]:
    form = "uuid" if name != "offer_id" else "string"
    parameter = path_parameter(name, "As the answer before gave it.", form)
    return {"parameters": [parameter, idempotency.PARAMETER], "security": [{"api_key": []}]}


_PROBLEMS = documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503)


@router.post(
    "/v1/offers/{offer_id}/reservations",
    summary="Reserve an offer",
    response_model=ReservationAnswer,
    responses=_PROBLEMS,
    openapi_extra=_named("offer_id") | body_of(ReservationRequest),
    tags=["offers"],
)
async def reserve(request: Request) -> Response:
    """Holds the offer for some minutes: it counts as a use and as spend until it is released or its
    time is over. The same token again is answered with the reservation that it has. 409 says in
    `rejection_reason` why not."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout")
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    asked = parse(ReservationRequest, body)

    async def act() -> Response:
        now = gateway.clock.now()
        grant, over = _grant(gateway, request.path_params["offer_id"], asked)
        if over:  # whoever has lost the answer is told it, also when the token's time is over
            held = await gateway.ledger.of_token(grant.token_id, now)
            if held is None:
                raise CouponRefused("CouponExpired", "offer_token: it has expired; decide anew.")
            return _reserved(held)
        offer = _on_offer(gateway, grant, now)
        holders = _holders(gateway, offer, asked)
        claim = Claim(
            grant.token_id,
            grant.decision_id,
            grant.offer_id,
            grant.discount,
            grant.amount,
            grant.currency,
            grant.cart_digest,
            grant.group,
            holders,
            offer.external_code,
            _day_limit(gateway, offer, now),
            grant.most_in_all,
        )
        until = now + timedelta(minutes=gateway.settings.reservation_minutes)
        if offer.schedule.valid_until is not None:
            until = min(until, offer.schedule.valid_until)
        return _reserved(
            await _heard(gateway, gateway.ledger.reserve(claim, offer.limits, now, until))
        )

    return await idempotency.once(request, gateway, caller, body, lambda: _refusing(act))


@router.post(
    "/v1/reservations/{reservation_id}/redeem",
    summary="Redeem a reservation",
    response_model=RedemptionAnswer,
    responses=_PROBLEMS,
    openapi_extra=_named("reservation_id") | body_of(RedemptionRequest),
    tags=["offers"],
)
async def redeem(request: Request) -> Response:
    """Final: what is taken off is computed anew from the cart, and another cart, another total or a
    transaction that was redeemed before is refused. The same call again is answered the same."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout")
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    asked = parse(RedemptionRequest, body)

    async def act() -> Response:
        now, value = gateway.clock.now(), asked.cart.value
        if value is None:
            raise ApiProblem(422, "cart.items: every line of a final cart has its price.")
        first = _id_of(request, "reservation_id", "ReservationNotFound")
        wanted = list(dict.fromkeys((first, *map(str, asked.combined_with))))
        for one in wanted:
            await _refuse_ended(gateway, one, now)
        settlement = Settlement(
            asked.transaction_id, asked.cart.digest, asked.cart.currency, value, asked.total
        )
        if asked.shipping is not None:
            settlement = replace(
                settlement, shipping_id=asked.shipping.id, shipping_price=asked.shipping.price
            )
        return _redeemed(await _heard(gateway, gateway.ledger.redeem(wanted, settlement, now)))

    return await idempotency.once(request, gateway, caller, body, lambda: _refusing(act))


@router.post(
    "/v1/reservations/{reservation_id}/release",
    summary="Release a reservation",
    response_model=ReservationAnswer,
    responses=documented(400, 401, 403, 404, 409, 503),
    openapi_extra=_named("reservation_id"),
    tags=["offers"],
)
async def release(request: Request) -> Response:
    """Gives the use back. No body is read."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout")

    async def act() -> Response:
        wanted = _id_of(request, "reservation_id", "ReservationNotFound")
        step = gateway.ledger.release(wanted, gateway.clock.now())
        return _reserved(await _heard(gateway, step))

    return await idempotency.once(request, gateway, caller, b"", lambda: _refusing(act))


@router.post(
    "/v1/redemptions/{redemption_id}/rollback",
    summary="Roll a redemption back",
    response_model=RedemptionAnswer,
    responses=documented(400, 401, 403, 404, 409, 503),
    openapi_extra=_named("redemption_id"),
    tags=["offers"],
)
async def roll_back(request: Request) -> Response:
    """For an order that was undone: uses and spend are free again; the transaction stays used. No
    body is read."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout")

    async def act() -> Response:
        wanted = _id_of(request, "redemption_id", "RedemptionNotFound")
        step = gateway.ledger.roll_back(wanted, gateway.clock.now())
        return _redeemed(await _heard(gateway, step))

    return await idempotency.once(request, gateway, caller, b"", lambda: _refusing(act))


async def _heard(gateway: Gateway, step: Awaitable[T]) -> T:
    """What a `step` of the ledger gives; once it is answered, decisions of this gateway know what
    it left."""
    taken = await step
    await gateway.shelf.hear_of_use(gateway.clock.now())
    return taken


async def _refusing(act: Callable[[], Awaitable[Response]]) -> Response:
    """`act`, with the ledger's refusals as problems."""
    try:
        return await act()
    except CouponRefused as refused:
        status = 404 if refused.reason in _NOT_THERE else 409
        raise ApiProblem(
            status, str(refused), rejection_reason=refused.reason, due=refused.due
        ) from None


def _grant(gateway: Gateway, offer_id: str, asked: ReservationRequest) -> tuple[Grant, bool]:
    """What the token promises, and whether its time is over."""
    signer, over = gateway.shelf.signer, False
    try:
        grant = signer.read(asked.offer_token)
    except ExpiredToken as late:
        grant, over = late.grant, True
    except InvalidToken:
        raise ApiProblem(422, "offer_token: not one that this shop has signed.") from None
    if grant.offer_id != offer_id:
        raise ApiProblem(422, "offer_token: it is of another offer.")
    if not signer.is_for(grant, asked.visitor_id, asked.user_id):
        raise CouponRefused("CouponRecipientDoesNotMatch", "The offer was made to somebody else.")
    return grant, over


def _on_offer(gateway: Gateway, grant: Grant, now: datetime) -> Offer:
    """The offer as the shop has it now; whether it is right for this cart, the token says, but not
    whether budgets that were set since can be reckoned in its currency."""
    book, offer_id = gateway.shelf.current.book, grant.offer_id
    offer = book.find(offer_id)
    if offer is None or not offer.active:
        raise CouponRefused("CouponNotFound", f"offer {offer_id}: it was withdrawn.")
    if not offer.schedule.begun(now):
        raise CouponRefused("CouponStartDateInFuture", f"offer {offer_id}: it has not begun.")
    if offer.schedule.over(now):
        raise CouponRefused("CouponExpired", f"offer {offer_id}: it is over.")
    if grant.currency != offer.currency and book.in_money(offer):
        told = f"offer {offer_id}: it is reckoned in {offer.currency}."
        raise CouponRefused("CouponRejectedByCondition", told)
    return offer


def _holders(gateway: Gateway, offer: Offer, asked: ReservationRequest) -> tuple[str, ...]:
    """Under whose name the use counts, where each shopper has only so many. Nobody becomes a
    subject by it, nor are two of them linked: that takes consent, which is not asked for here. The
    names without a subject are looked at as well, for uses before the shopper agreed."""
    if offer.limits.per_subject is None:
        return ()
    visitor, user = gateway.subjects.pseudonyms(asked.visitor_id, asked.user_id)
    subject_id = gateway.control.look_up(visitor, user).subject_id
    known: tuple[str, ...] = ()
    if subject_id is not None:
        known = gateway.holders.of(subject_id).names([offer.offer_id])[offer.offer_id]
    unknown = gateway.holders.names_of_nobody(offer.offer_id, asked.visitor_id, asked.user_id)
    return known + unknown


def _day_limit(gateway: Gateway, offer: Offer, now: datetime) -> DayLimit | None:
    """What of the day's budget may be spent by now, where the offer is one of those it is for."""
    book = gateway.shelf.current.book
    budget = book.daily_budget
    if budget is None or not book.budgeted(offer):
        return None
    day = budget.day(now)
    return DayLimit(day.name, usable(Budget(budget.amount), day, to_us(now)))


async def _refuse_ended(gateway: Gateway, reservation_id: str, now: datetime) -> None:
    """Withdrawing an offer, or moving its end, is how a shop stops it at once, whatever is
    reserved. The hour, the weekday and the place were looked at when it was offered: a reservation
    holds them for its minutes."""
    held = await gateway.ledger.find(reservation_id)
    if held is not None and held.state == "reserved":
        offer = gateway.shelf.current.book.find(held.offer_id)
        if offer is None or not offer.active:
            raise CouponRefused("CouponNotFound", f"offer {held.offer_id}: it was withdrawn.")
        if held.expires_at > now and offer.schedule.over(now):
            raise CouponRefused("CouponExpired", f"offer {held.offer_id}: it is over.")


def _id_of(request: Request, name: str, reason: RefusalReason) -> str:
    try:
        return str(UUID(request.path_params[name]))
    except ValueError:
        what = name.removesuffix("_id")
        raise CouponRefused(reason, f"There is no such {what}.") from None


def _reserved(one: Reservation) -> Response:
    answer = ReservationAnswer(
        reservation_id=one.reservation_id,
        offer_id=one.offer_id,
        state=one.state,
        amount=one.amount,
        currency=one.currency,
        expires_at=one.expires_at,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _redeemed(one: Redemption) -> Response:
    answer = RedemptionAnswer(
        redemption_id=one.redemption_id,
        transaction_id=one.transaction_id,
        discounts=[TakenOff(reservation_id=key, amount=off) for key, off in one.amounts.items()],
        currency=one.currency,
        total=one.total,
        redeemed_at=one.redeemed_at,
        rolled_back_at=one.rolled_back_at,
    )
    return Response(answer.model_dump_json(), media_type="application/json")
