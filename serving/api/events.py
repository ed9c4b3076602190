"""`POST /v1/events`: behaviour, up to 500 events a request, each answered for itself."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from contract.event_versions import NotInVersionError, UnknownVersionError, upgraded
from contract.events import SERVER_ONLY, ClientEvent
from serving.api import idempotency
from serving.api.auth import Caller, authenticate, is_beacon
from serving.api.bodies import read_json_body, says_gpc
from serving.api.documentation import body_of
from serving.api.gateway import Gateway, gateway_of
from serving.api.page_limits import foreign_to_shoppers, is_page
from serving.api.problems import ApiProblem, documented, invalid, without_card
from serving.ingest.traffic import Foreign

router = APIRouter()

MOST_EVENTS = 500
# A large batch gives way to waiting checkouts after this many events.
_BREATH = 32
_BEACON_KEY = {
    "name": "key",
    "in": "query",
    "required": False,
    "description": "A collect key, instead of the Authorization header, for navigator.sendBeacon, "
    "which can send no header; the body may then come as text/plain. No other role may stand here.",
    "schema": {"type": "string"},
}
Status = Literal["accepted", "duplicate", "rejected"]
Reason = Literal["bot", "internal", "invalid", "version", "forbidden", "no_consent"]


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
    responses=documented(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=body_of(EventBatch) | {"parameters": [idempotency.PARAMETER, _BEACON_KEY]},
    tags=["events"],
)
async def post_events(request: Request) -> Response:
    """Accepted events are durable when this answers 202; repeats are duplicates; an event that is
    not valid, not allowed for the key or without consent is rejected with a reason, alone."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout", "collect", beacon=True)
    limit = gateway.settings.body_limit_bytes
    await gateway.page_limits.check(request, caller)
    body = await read_json_body(request, limit, as_text=is_beacon(request))

    async def act() -> Response:
        sent = _listed(body)
        foreign = foreign_to_shoppers(request, gateway, caller)
        results = (
            await _accept(gateway, caller, sent, gpc=says_gpc(request))
            if foreign is None
            else [_foreign(raw, foreign) for raw in sent]
        )
        for name, count in Counter(one.reason or one.status for one in results).items():
            gateway.metrics.events.labels(name).inc(count)
        return Response(
            EventResults(results=results).model_dump_json(exclude_none=True),
            202,
            media_type="application/json",
        )

    return await idempotency.once(request, gateway, caller, body, act)


def _listed(body: bytes) -> list[Any]:
    """The raw events of a request. Raises a 400 or 422 problem about the whole of it."""
    try:
        sent = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiProblem(400, f"The body is not JSON: {_ascii(str(error))}.") from None
    if not isinstance(sent, dict) or not isinstance(sent.get("events"), list):
        raise ApiProblem(422, 'events: send {"events": [...]}.')
    if len(sent) > 1:
        unknown = next(name for name in sent if name != "events")
        raise ApiProblem(422, f"{without_card(_ascii(unknown)[:64])}: unknown field")
    events: list[Any] = sent["events"]
    if not 1 <= len(events) <= MOST_EVENTS:
        raise ApiProblem(422, f"events: send 1 to {MOST_EVENTS} events, not {len(events)}.")
    return events


async def _accept(
    gateway: Gateway, caller: Caller, sent: Sequence[Any], *, gpc: bool
) -> list[EventResult]:
    results: list[ClientEvent | EventResult] = []
    for raw in sent:
        event = _read(raw, caller)
        if (
            is_page(caller)
            and isinstance(event, ClientEvent)
            and not await gateway.page_limits.takes(event.visitor_id)
        ):
            event = _foreign(raw, "bot")
        results.append(event)
        if len(results) % _BREATH == 0:
            await asyncio.sleep(0)
    valid = [one for one in results if isinstance(one, ClientEvent)]
    if all(isinstance(one, EventResult) and one.reason == "forbidden" for one in results):
        raise ApiProblem(403, "A collect key writes behaviour only; use a checkout key.")
    outcomes = iter(await gateway.ingest.accept(valid, gpc=gpc))
    return [one if isinstance(one, EventResult) else _told(one, next(outcomes)) for one in results]


def _foreign(raw: Any, kind: Foreign) -> EventResult:
    detail = {
        "bot": "a crawler, or more than a person does; nothing was stored",
        "internal": "from the shop's own network; nothing was stored",
    }
    return EventResult(event_id=_id_of(raw), status="rejected", reason=kind, detail=detail[kind])


def _id_of(raw: Any) -> str | None:
    named = raw.get("event_id") if isinstance(raw, dict) else None
    return named[:64] if isinstance(named, str) else None


def _read(raw: Any, caller: Caller) -> ClientEvent | EventResult:
    """A valid event that this caller may send, or the result that refuses it."""
    event_id = _id_of(raw)
    try:
        # In JSON's strict mode, where times and ids are strings but numbers are not.
        known = upgraded(raw) if isinstance(raw, dict) else raw
        event = ClientEvent.model_validate_json(to_json(known), strict=True)
    except UnknownVersionError as error:  # worth keeping: a later gateway may read it
        detail = str(error)
        return EventResult(event_id=event_id, status="rejected", reason="version", detail=detail)
    except NotInVersionError as error:
        detail = str(error)
        return EventResult(event_id=event_id, status="rejected", reason="invalid", detail=detail)
    except ValidationError as error:
        detail = invalid(error).problem.detail
        return EventResult(event_id=event_id, status="rejected", reason="invalid", detail=detail)
    refusal = _refusal(event, caller)
    if refusal is None:
        return event
    return EventResult(event_id=event_id, status="rejected", reason="forbidden", detail=refusal)


def _refusal(event: ClientEvent, caller: Caller) -> str | None:
    if event.event_name == "decision":
        return "event_name: decision is written by the gateway only"
    if caller.role == "collect" and event.event_name in SERVER_ONLY:
        return f"event_name: a collect key may not send {event.event_name}"
    if caller.role == "collect" and event.user_id is not None:
        return "user_id: a collect key may not send one"
    return None


def _told(event: ClientEvent, outcome: str) -> EventResult:
    event_id = str(event.event_id)
    if outcome == "no_consent":
        return EventResult(
            event_id=event_id,
            status="rejected",
            reason="no_consent",
            detail="neither analytics nor personalization is in effect; nothing was stored",
        )
    return EventResult(
        event_id=event_id, status="accepted" if outcome == "accepted" else "duplicate"
    )


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
