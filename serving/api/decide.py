"""`POST /v1/checkout/decide`: the hot route. It parses once, answers bytes and writes behind the
answer. What fails on the way to the subject's record makes the answer poorer, never an error."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from contract.clock import to_us
from contract.encoding import OOV
from contract.events import Event, EventItem, unchecked
from serving.api.arrivals import arrival_of, ready_of, waiting_beside
from serving.api.auth import Credential, authenticate, credential_of, is_known
from serving.api.bodies import parse, read_json_body, says_gpc
from serving.api.documentation import body_of
from serving.api.gateway import Gateway, gateway_of
from serving.api.item_ids import refuse_cards
from serving.api.middleware import PROTECTING
from serving.api.one_write import WHOLE
from serving.api.page_limits import foreign_to_shoppers, is_page, makes_subject
from serving.api.problems import ApiProblem, documented
from serving.api.schemas import DecideRequest, DecideResponse
from serving.decision.admission import RETRY_AFTER_S, Overloaded
from serving.decision.experiment_arms import arms_of
from serving.decision.outcome import Decision, SubjectContext
from serving.ingest.subjects import Recognised, Source
from serving.state.sqlite_writer import StoreError

log = logging.getLogger(__name__)
router = APIRouter()

IDENTITY = "identity"
OFFERS = "offers"
T = TypeVar("T")
_OFFERED = "a decision with an offer"
_Settling = asyncio.Task[str | None] | None


class Validated(BaseModel):
    """The answer to `validate_only`: the request is valid and nothing was decided or kept."""

    valid: bool = True
    missing_item_ids: tuple[str, ...] = ()


class Answered(Response):
    """The answer as `body` says it, and what is done once it was given. Its headers are known, so
    nothing of them is encoded or looked for."""

    media_type = "application/json"

    def __init__(self, body: bytes, after: Callable[[], Awaitable[None]] | None = None) -> None:
        self.status_code, self.body, self.background = 200, body, None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), _JSON]
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get(WHOLE):
            head = _HEAD + b"content-length: %d\r\n" % len(self.body)
            await send({"type": WHOLE, "head": head, "body": self.body})
        else:
            status, headers = self.status_code, self.raw_headers
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": self.body})
        if self._after is not None:
            await self._after()


_JSON = (b"content-type", b"application/json")
_HEAD = b"".join(b"%b: %b\r\n" % one for one in (_JSON, *PROTECTING))


@router.post(
    "/v1/checkout/decide",
    summary="Decide a checkout",
    response_model=DecideResponse | Validated,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 503),
    openapi_extra=body_of(DecideRequest, page_token=True),
    tags=["checkout"],
)
async def decide(request: Request) -> Response:
    """Only an invalid request is an error. Everything else degrades within `deadline_ms`, and the
    answer says so: `rung` and `degraded`. An `Idempotency-Key` is ignored: every answer is computed
    afresh, and asking reserves nothing. With `Sec-GPC: 1` or without consent no history is
    touched and nothing is kept. What `consent` says no to is withdrawn, on record."""
    began = arrival_of(request.scope)
    gateway, credential = gateway_of(request), credential_of(request)
    if _comes_too_late(request, credential, gateway):
        return _TOO_MANY.response()
    caller = authenticate(request, gateway, "checkout", page_token=True, credential=credential)
    if from_page := is_page(caller):
        await gateway.page_limits.check(request, caller)
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    asked = parse(DecideRequest, body)
    known = gateway.live.current.vocabulary
    refuse_cards("cart.items[{}].item_id", [one.item_id for one in asked.cart.items], known)
    refuse_cards("recent_items[{}]", asked.recent_items, known)
    if not caller.may_speak_for(asked.user_id):
        raise ApiProblem(403, "user_id: the page token does not name this user in sub.")
    if asked.validate_only:
        return _json(Validated(missing_item_ids=_missing(gateway, asked)))
    if from_page:
        asked = _without_word(asked)
    # Of a crawler nothing is kept and nothing is known, as of a browser that says so.
    nothing = asked.gpc or says_gpc(request) or bool(foreign_to_shoppers(request, gateway, caller))
    if from_page and not nothing:
        nothing = await _is_one_too_many(request, gateway, asked)
    source: Source = "page" if from_page else "request"
    others = waiting_beside(request.scope) > 0
    return await answer(gateway, asked, began, gpc=nothing, source=source, others=others)


async def _is_one_too_many(request: Request, gateway: Gateway, asked: DecideRequest) -> bool:
    """Whether a page asks for more strangers than may come from its address: nobody is remembered
    then, and the answer is anybody's."""
    try:
        new = makes_subject(gateway, asked, gpc=False)
    except StoreError:
        return False  # told when the answer is made
    return new and not await gateway.page_limits.takes_new(request)


async def answer(
    gateway: Gateway,
    asked: DecideRequest,
    began: float,
    *,
    gpc: bool,
    source: Source = "request",
    others: bool = False,
) -> Response:
    """The decision for a valid request; its time runs from `began`. `others`: there are more that
    the loop has read. Raises a 429 problem."""
    who = await _recognise(gateway, asked, gpc=gpc, source=source, others=others)
    settling = _start_settling(gateway, who)
    if who is not None and who.joins_history:
        # What the visitor did before this login is read only once the link is written.
        await _wait(settling, _patience(gateway, asked, began))
        who = _joined(gateway, who)
    subject = SubjectContext()
    if who is not None:
        subject = SubjectContext(who.subject_id, who.purposes, who.histories)
    assigner, now = gateway.experiments.current, gateway.clock.now()
    agreed = subject.purposes
    arms, asked, subject = arms_of(assigner, asked, subject, now)
    try:
        decision = await gateway.decider.decide(asked, subject, began=began)
    except Overloaded as error:
        raise _too_many(error.retry_after_s) from None
    if arms:
        decision = decision.in_experiments(arms, agreed)
    if settling is not None:
        await _wait(settling, _patience(gateway, asked, began))
    response = decision.response
    if who is None or (settling is not None and not _settled(settling)):
        gateway.metrics.identity_degraded.inc()
        response = response.model_copy(update={"degraded": (*response.degraded, IDENTITY)})
    written = False
    if response.offers:
        written = await _promised(gateway, decision, settling, began)
        if not written:  # a promise that is nowhere on record is none
            response = response.model_copy(
                update={"offers": (), "degraded": (*response.degraded, OFFERS)}
            )
            decision = replace(decision, response=response, offers_withdrawn=True)
    return _json(response, partial(_keep, gateway, decision, settling, written=written))


async def _promised(
    gateway: Gateway, decision: Decision, settling: _Settling, began: float
) -> bool:
    """Put a decision that offers something on record before it is answered, and say whether that
    was done in time. Without `analytics` there is nothing to keep, the token is the promise; but
    where shoppers are shown offers so often only, that it was is. What a rule gives counts as well,
    and is shown however often."""
    purposes, subject_id = decision.subject.purposes, decision.subject.subject_id
    shelf, kept = gateway.shelf, "analytics" in purposes
    shown = [one.offer_id for one in decision.response.offers]
    counts = shelf.counts_showing(shown)
    capped = shelf.counts_showing(one for one in shown if one not in decision.offers_ruled)
    if not kept and not counts:
        return True
    if settling is not None:
        subject_id = settling.result() if _settled(settling) else None
    if subject_id is None:
        return not (kept or capped)
    now = gateway.clock.now()
    showing = None
    if counts:
        noted = shelf.note_shown(subject_id, decision.request.session_id, now)
        showing = _begun(gateway, noted, _OFFERED)
        await asyncio.sleep(0)  # so that the one is being written while the other is made
    event = _impression(decision, UUID(subject_id), now) if kept else None
    if showing is not None:
        may_be = await _in_time(showing, decision, began) and showing.result()
        if capped and not may_be:
            return False
    if event is None:
        return True
    writing = _begun(gateway, gateway.impressions.write(event, purposes), _OFFERED)
    return await _in_time(writing, decision, began)


def _begun(gateway: Gateway, write: Coroutine[Any, Any, T], what: str) -> asyncio.Task[T]:
    """Begin to write `what`; it goes on when nobody waits for it any more."""
    task = asyncio.create_task(write)
    gateway.background.add(task)
    task.add_done_callback(partial(_ended, gateway, what))
    return task


def _ended(gateway: Gateway, what: str, task: asyncio.Task[Any]) -> None:
    gateway.background.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s could not be recorded: %s", what, error)


async def _in_time(task: asyncio.Task[Any], decision: Decision, began: float) -> bool:
    """Whether what was begun is done before the answer is due."""
    # Not wait_for: a write that is late goes on, and its repeat by `_keep` is dropped.
    await asyncio.wait((task,), timeout=_left(decision.request, began))
    return _settled(task)


def _comes_too_late(request: Request, credential: Credential, gateway: Gateway) -> bool:
    """Whether to refuse at once what would only make everything later still: without a look at the
    body, and for a key or page token that counted before without one at the store, so that it costs
    next to nothing. Strangers are not even counted as late."""
    if not is_known(credential, gateway):
        return False
    waited_s = time.perf_counter() - ready_of(request.scope)
    behind = gateway.decider.is_behind(waited_s, waiting_beside(request.scope))
    if behind:
        gateway.decider.count_refusal()
    return behind


def _too_many(retry_after_s: int) -> ApiProblem:
    return ApiProblem(
        429,
        "Too many decisions are under way; try again.",
        headers={"Retry-After": str(retry_after_s)},
    )


_TOO_MANY = _too_many(RETRY_AFTER_S)  # made once: it is given when there is no time to lose


def _json(body: BaseModel, after: Callable[[], Awaitable[None]] | None = None) -> Answered:
    # Not model_dump_json: it would make a text of the bytes, which would be encoded once more.
    return Answered(type(body).__pydantic_serializer__.to_json(body), after)


async def _recognise(
    gateway: Gateway, asked: DecideRequest, *, gpc: bool, source: Source, others: bool
) -> Recognised | None:
    """Who is asking, or None when the control store does not say: then nothing is in effect."""
    try:
        return await gateway.subjects.recognise_beside(
            *(asked.visitor_id, asked.user_id, asked.consent),
            gpc=gpc,
            source=source,
            others=others,
        )
    except StoreError as error:
        log.error("a subject could not be recognised: %s", error)
        return None


def _joined(gateway: Gateway, who: Recognised) -> Recognised | None:
    """`who` with the histories that are theirs by now, or None as above."""
    if who.subject_id is None:
        return who
    try:
        return replace(who, histories=gateway.control.histories(who.subject_id))
    except StoreError as error:
        log.error("linked histories could not be read: %s", error)
        return None


def _start_settling(gateway: Gateway, who: Recognised | None) -> _Settling:
    """Begin to write a new subject or link, or what is taken back, beside the decision."""
    if who is None or not who.unsettled:
        return None
    return _begun(gateway, gateway.subjects.settle(who), "a subject")


def _patience(gateway: Gateway, asked: DecideRequest, began: float) -> float:
    """How long to wait for the control store, in seconds: a part of what is left, at most."""
    return min(gateway.settings.identity_wait_ms / 1_000, _left(asked, began) / 2)


def _left(asked: DecideRequest, began: float) -> float:
    """What is left of the deadline, in seconds."""
    return max(0.0, asked.deadline_ms / 1_000 - (time.perf_counter() - began))


async def _wait(settling: _Settling, seconds: float) -> None:
    if settling is not None and not settling.done():
        # Not wait_for: a write that is late goes on.
        await asyncio.wait((settling,), timeout=seconds)


def _settled(settling: asyncio.Task[Any]) -> bool:
    return settling.done() and settling.exception() is None


async def _keep(
    gateway: Gateway, decision: Decision, settling: _Settling, *, written: bool = False
) -> None:
    """After the answer: the impression under `analytics` unless it is `written`, otherwise a
    counter."""
    gateway.shadow.offer(decision)
    subject_id, purposes = decision.subject.subject_id, decision.subject.purposes
    if "analytics" not in purposes:
        gateway.metrics.unlinked.inc()
        gateway.anonymous.decided(decision, to_us(gateway.clock.now()))
        return
    if written:
        return
    try:
        subject_id = await settling if settling is not None else subject_id
    except StoreError:
        subject_id = None
    if subject_id is None:
        gateway.impressions.lost(1)
        return
    now = gateway.clock.now()
    gateway.impressions.offer(partial(_impression, decision, UUID(subject_id), now), purposes)


def _impression(decision: Decision, subject_id: UUID, now: datetime) -> Event:
    asked, shown = decision.request, decision.response.recommendations
    # All of it was validated with the request or comes from the release.
    return unchecked(
        Event,
        {
            **_BLANK_EVENT,
            "event_id": decision.response.decision_id,
            "event_name": "decision",
            "occurred_at": now,
            "received_at": now,
            "session_id": asked.session_id,
            "subject_id": subject_id,
            "items": tuple([_item(one.item_id, place) for place, one in enumerate(shown)]),
            "currency": asked.cart.currency,
            "context": asked.context.event_context(),
            "purposes": tuple(sorted(decision.subject.purposes)),
            "decision": decision.event_body(),
        },
    )


@lru_cache(maxsize=8_192)  # many are shown the same
def _item(item_id: str, place: int) -> EventItem:
    return unchecked(EventItem, {**_BLANK_ITEM, "item_id": item_id, "index": place})


def _blank(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.get_default() for name, field in model.model_fields.items()}


_BLANK_EVENT, _BLANK_ITEM = _blank(Event), _blank(EventItem)


def _without_word(asked: DecideRequest) -> DecideRequest:
    """`asked` without what only the shop's own server knows and anybody could write in a page."""
    context = asked.context.model_copy(update={"first_order": None})
    return asked.model_copy(update={"context": context})


def _missing(gateway: Gateway, asked: DecideRequest) -> tuple[str, ...]:
    """The items of the request that the catalogue does not know, each once."""
    named = dict.fromkeys((*(line.item_id for line in asked.cart.items), *asked.recent_items))
    vocabulary = gateway.live.current.vocabulary
    return tuple(item_id for item_id in named if vocabulary.index(item_id) == OOV)
