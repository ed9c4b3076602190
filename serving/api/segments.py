"""`GET /v1/subjects/{subject_id}/segments`: which segments a shopper is in, why, since when."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from contract import segment_reasons
from contract.behaviour import LearnedSegments
from contract.clock import from_us, to_us
from contract.consent import in_effect
from contract.events import EventContext
from contract.features import SubjectState, SubjectView, view
from contract.segment_config import RULES, SegmentConfig
from contract.segment_history import context_since, learned_since, rules_since
from contract.segment_reasons import Why
from contract.segments import figures, held_rules, in_context, local_time
from serving.api.auth import authenticate
from serving.api.bodies import says_gpc
from serving.api.consent import SUBJECT, subject_of
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import documented, invalid
from serving.state.feature_store import LinkedFeatureStore

router = APIRouter()


class FigureTold(BaseModel):
    """A figure against its threshold, also in words. Of a learned segment the threshold is the
    mean of the segment; of a context, what the segment asks for."""

    figure: str
    value: float | str
    threshold: float | str | None
    text: str


class SegmentTold(BaseModel):
    """One segment. `since`: the moment from which on it has held without a break, null where it has
    no beginning (no history at all, a place or a device) or began before what is looked back on;
    not `since_exact`: older events are no longer held, it may have begun earlier."""

    name: str
    title: str
    kind: Literal["rule", "contextual", "learned"]
    since: datetime | None
    since_exact: bool
    why: list[FigureTold]


class SegmentsTold(BaseModel):
    """The segments at `as_of`; none, and nothing read, without `personalization`."""

    subject_id: str
    personalization: bool
    as_of: datetime
    release_id: str
    segments: list[SegmentTold]


def _query(name: str, description: str) -> dict[str, object]:
    schema = EventContext.model_json_schema()["properties"][name]
    return {"name": name, "in": "query", "description": description, "schema": schema}


_CONTEXT = [
    _query("device", "Of the visit, for contextual segments."),
    _query("country", "Two letters, ISO 3166-1."),
    _query("region", "As in the context of events."),
    _query("timezone", "An IANA name, for the local hour and weekday."),
]


@router.get(
    "/v1/subjects/{subject_id}/segments",
    summary="Read segments",
    response_model=SegmentsTold,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra={"parameters": [SUBJECT, *_CONTEXT]},
    tags=["subjects"],
)
async def get_segments(request: Request) -> Response:
    """Rules and thresholds are those of the live release. An event counts as soon as it is
    accepted; one that comes late counts as if it had come in time. Contextual segments are told
    where the query says the context. With `Sec-GPC: 1` or without consent nothing is read."""
    gateway = gateway_of(request)
    authenticate(request, gateway, "checkout")
    subject_id = subject_of(request, gateway)
    context = _context(request)
    now_us = to_us(gateway.clock.now())
    release = gateway.live.current
    personal = _personal(request, gateway, subject_id)
    told: list[SegmentTold] = []
    if personal:
        store = LinkedFeatureStore(gateway.features, gateway.control.histories)
        state = await store.read(subject_id)
        # On a thread: a long history is walked back moment by moment.
        told = await asyncio.to_thread(
            segments_of, state, now_us, context, release.rules, release.learned
        )
    answer = SegmentsTold(
        subject_id=subject_id,
        personalization=personal,
        as_of=from_us(now_us),
        release_id=release.release_id,
        segments=told,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def segments_of(
    state: SubjectState,
    now_us: int,
    context: EventContext | None,
    rules: SegmentConfig,
    learned: LearnedSegments | None,
) -> list[SegmentTold]:
    """All segments of `state` at `now_us`: rules, contextual ones, the learned one."""
    seen = view(state, now_us)
    found = _learned(state, seen, learned) if learned is not None else []
    return [*_rules(state, seen, rules), *_contextual(now_us, context, rules), *found]


def _rules(state: SubjectState, seen: SubjectView, rules: SegmentConfig) -> list[SegmentTold]:
    told = figures(seen, rules)
    since = rules_since(state, seen.now_us, rules)
    found = []
    for name, held in zip(RULES, held_rules(told, rules), strict=True):
        if held:
            began = since.get(name)
            found.append(
                SegmentTold(
                    name=name,
                    title=rules.titles[name],
                    kind="rule",
                    since=None if began is None else from_us(began.us),
                    since_exact=began is None or began.exact,
                    why=_why(segment_reasons.rule_why(name, told, rules)),
                )
            )
    return found


def _contextual(
    now_us: int, context: EventContext | None, rules: SegmentConfig
) -> list[SegmentTold]:
    if context is None:
        return []
    local, found = local_time(now_us, context), []
    for segment in rules.contextual:
        if in_context(segment, context, local, rules):
            began = context_since(segment, now_us, context)
            found.append(
                SegmentTold(
                    name=segment.name,
                    title=segment.title,
                    kind="contextual",
                    since=None if began is None else from_us(began),
                    since_exact=True,
                    why=_why(segment_reasons.context_why(segment, context, now_us, rules)),
                )
            )
    return found


def _learned(state: SubjectState, seen: SubjectView, learned: LearnedSegments) -> list[SegmentTold]:
    segment = learned.of(seen)
    if segment is None:
        return []
    began = learned_since(state, seen.now_us, learned)
    return [
        SegmentTold(
            name=learned.keys[segment],
            title=learned.names[segment],
            kind="learned",
            since=None if began is None else from_us(began.us),
            since_exact=began is not None and began.exact,
            why=_why(segment_reasons.learned_why(seen, learned, segment)),
        )
    ]


def _why(reasons: Iterable[Why]) -> list[FigureTold]:
    return [
        FigureTold(figure=one.figure, value=one.value, threshold=one.threshold, text=one.text)
        for one in reasons
    ]


def _context(request: Request) -> EventContext | None:
    """The context that the query says. Raises a 422 problem naming what does not fit."""
    said = dict(request.query_params)
    if not said:
        return None
    try:
        return EventContext.model_validate(said)
    except ValidationError as error:
        raise invalid(error) from None


def _personal(request: Request, gateway: Gateway, subject_id: str) -> bool:
    """Whether the shopper's history may be used for this answer."""
    consent = gateway.control.consent_of(subject_id)
    stored = None if consent is None else consent.purposes
    return "personalization" in in_effect(stored, None, gpc=says_gpc(request))
