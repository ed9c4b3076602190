"""`POST /v1/events`: behaviour, up to 500 events a request, each answered for itself."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID, uuid5

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from contract.encoding import Vocabulary
from contract.events import FEEDBACK_OF_SERVERS, SERVER_ONLY, ClientEvent
from serving.api import idempotency
from serving.api.auth import Caller, authenticate, is_beacon
from serving.api.bodies import read_json_body, says_gpc
from serving.api.documentation import body_of
from serving.api.gateway import Gateway, gateway_of
from serving.api.item_ids import LIKE_A_CARD, first_like_card
from serving.api.page_limits import foreign_to_shoppers, is_page, makes_subject
from serving.api.problems import ApiProblem, documented
from serving.api.sent_events import (
    MOST_EVENTS,
    Reason,
    Result,
    Status,
    id_of,
    listed,
    read_some,
    rejected,
)
from serving.ingest.accept import Outcome
from serving.ingest.subjects import Source
from serving.ingest.traffic import Foreign

router = APIRouter()

_PAGES = UUID("c0a57d5c-6f0e-4d57-9b3c-0a4a3d1f7a7e")  # drawn once, never to be changed
# Of a request of which nothing may be written with that key.
_FORBIDDEN = {
    "collect": "A collect key writes behaviour only; use a checkout key.",
    "checkout": "A decision is written by the gateway only.",
}
_TOO_MANY_NEW = "too many new visitors from this address; nothing was stored, try again"
# A large batch gives way to waiting checkouts after this many events; they are validated together.
_BREATH = 32
_BEACON_KEY = {
    "name": "key",
    "in": "query",
    "required": False,
    "description": "A collect key, instead of the Authorization header, for navigator.sendBeacon, "
    "which can send no header; the body may then come as text/plain. No other role may stand here.",
    "schema": {"type": "string"},
}


class EventBatch(BaseModel):
    """The request: events in any order."""

    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[ClientEvent], Field(min_length=1, max_length=MOST_EVENTS)]


class EventResult(BaseModel):
    """What became of the event at the same place of the request."""

    event_id: str | None = None
    status: Status
    reason: Reason | None = None
    detail: str | None = None


class EventResults(BaseModel):
    """One result per event, in the order of the request."""

    results: list[EventResult]


@router.post(
    "/v1/events",
    status_code=202,
    summary="Write behaviour",
    response_model=EventResults,
    responses=documented(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=body_of(EventBatch) | {"parameters": [idempotency.PARAMETER, _BEACON_KEY]},
    tags=["events"],
)
async def post_events(request: Request) -> Response:
    """Accepted events are durable when this answers 202; repeats are duplicates; an event that is
    not valid, not allowed for the key or without consent is rejected with a reason, alone. What an
    event's `consent` says no to is withdrawn, on record, whatever becomes of the event."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout", "collect", beacon=True)
    limit = gateway.settings.body_limit_bytes
    await gateway.page_limits.check(request, caller)
    body = await read_json_body(request, limit, as_text=is_beacon(request))

    async def act() -> Response:
        sent = listed(body)
        foreign = foreign_to_shoppers(request, gateway, caller)
        read = await _read(sent)
        if foreign is None:
            results = await _accept(request, gateway, caller, sent, read)
        else:
            results = [_foreign(raw, foreign) for raw in sent]
            events = (one for one in read if isinstance(one, ClientEvent))
            allowed = [one for one in events if _refusal(one, caller) is None]
            await _take_back(request, gateway, caller, allowed)
        for name, count in Counter(one.get("reason") or one["status"] for one in results).items():
            gateway.metrics.events.labels(name).inc(count)
        return Response(to_json({"results": results}), 202, media_type="application/json")

    if caller.role == "collect":
        # Event ids say what was there before. A kept answer would give whoever has the page a place
        # to write in without bound, and all pages, being one caller, share their keys.
        return await act()
    return await idempotency.once(request, gateway, caller, body, act)


async def _read(sent: Sequence[Any]) -> list[ClientEvent | Result]:
    """Each as an event, or what is wrong with it."""
    read: list[ClientEvent | Result] = []
    for start in range(0, len(sent), _BREATH):
        if start:
            await asyncio.sleep(0)
        read += read_some(sent[start : start + _BREATH])
    return read


async def _take_back(
    request: Request, gateway: Gateway, caller: Caller, events: Sequence[ClientEvent]
) -> None:
    """A no counts in events that are not stored, too, as far as the caller may send such events."""
    source: Source = "page" if is_page(caller) else "request"
    await gateway.ingest.take_back(events, gpc=says_gpc(request), source=source)


async def _accept(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    sent: Sequence[Any],
    read: Sequence[ClientEvent | Result],
) -> list[Result]:
    gpc = says_gpc(request)
    valid: list[ClientEvent] = []
    passed_over: list[ClientEvent] = []
    unknown: dict[str, bool] = {}  # visitors of pages, and whether they may become subjects
    results: list[Result | None] = []  # None where the event's own outcome comes later
    known = gateway.live.current.vocabulary
    for raw, event in zip(sent, read, strict=True):
        refused = event if isinstance(event, dict) else _refused(raw, event, caller, known)
        if refused is None and is_page(caller):
            assert isinstance(event, ClientEvent)
            if not await gateway.page_limits.takes(event.visitor_id):
                refused = _foreign(raw, "bot")
            elif makes_subject(gateway, event, gpc=gpc or event.gpc):
                if event.visitor_id not in unknown:
                    unknown[event.visitor_id] = await gateway.page_limits.takes_new(request)
                if not unknown[event.visitor_id]:
                    refused = rejected(id_of(raw), "bot", _TOO_MANY_NEW)
            if refused is not None:
                passed_over.append(event)
        results.append(refused)
        if refused is None:
            assert isinstance(event, ClientEvent)
            valid.append(event)
    if all(one is not None and one.get("reason") == "forbidden" for one in results):
        raise ApiProblem(403, _FORBIDDEN[caller.role])
    await _take_back(request, gateway, caller, passed_over)
    if is_page(caller):
        written = gateway.ingest.accept(list(map(_of_a_page, valid)), gpc=gpc, source="page")
    else:
        written = gateway.ingest.accept(valid, gpc=gpc)
    outcomes = zip(valid, await written, strict=True)
    return [_told(*next(outcomes)) if one is None else one for one in results]


def _of_a_page(event: ClientEvent) -> ClientEvent:
    """`event` under an id that no server's event can have: ids are said by whoever sends them, and
    a page that guesses the one of a purchase must not make a repeat of it."""
    return event.model_copy(update={"event_id": uuid5(_PAGES, str(event.event_id))})


def _foreign(raw: Any, kind: Foreign) -> Result:
    detail = {
        "bot": "a crawler, or more than a person does; nothing was stored",
        "internal": "from the shop's own network; nothing was stored",
    }
    return rejected(id_of(raw), kind, detail[kind])


def _refused(raw: Any, event: ClientEvent, caller: Caller, known: Vocabulary) -> Result | None:
    """The result for a valid event that this caller may not send, or nobody."""
    place = first_like_card([item.item_id for item in event.items], known)
    if place is not None:
        return rejected(id_of(raw), "invalid", f"items[{place}].item_id: {LIKE_A_CARD}")
    refusal = _refusal(event, caller)
    return None if refusal is None else rejected(id_of(raw), "forbidden", refusal)


def _refusal(event: ClientEvent, caller: Caller) -> str | None:
    if event.event_name == "decision":
        return "event_name: decision is written by the gateway only"
    if caller.role == "collect" and event.event_name in SERVER_ONLY:
        return f"event_name: a collect key may not send {event.event_name}"
    if caller.role == "collect" and event.feedback in FEEDBACK_OF_SERVERS:
        return f"feedback: a collect key may not say {event.feedback}"
    if caller.role == "collect" and event.user_id is not None:
        return "user_id: a collect key may not send one"
    return None


def _told(event: ClientEvent, outcome: Outcome) -> Result:
    event_id = event.event_id
    if outcome == "no_consent":
        detail = "neither analytics nor personalization is in effect; nothing was stored"
        return rejected(event_id, "no_consent", detail)
    return {"event_id": event_id, "status": outcome}
