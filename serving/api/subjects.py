"""`/v1/subjects`: from raw ids to the subject id that every other call uses; what is held about a
subject; and its erasure."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from contract.encoding import FIRST_ITEM
from contract.events import RawId
from serving.api import idempotency
from serving.api.auth import authenticate
from serving.api.bodies import parse, read_json_body
from serving.api.consent import SUBJECT, subject_of
from serving.api.documentation import body_of
from serving.api.gateway import gateway_of
from serving.api.problems import ApiProblem, documented
from serving.inference.releases import LiveRelease

router = APIRouter()

_UNKNOWN = "There is no such subject; get its id from /v1/subjects/resolve."


class ResolveRequest(BaseModel):
    """Raw ids, in the body because they never stand in a URL. `create` false only looks."""

    model_config = ConfigDict(extra="forbid")

    visitor_id: RawId
    user_id: RawId | None = None
    create: bool = True


class ResolvedSubject(BaseModel):
    """The random id behind the raw ones."""

    subject_id: str


@router.post(
    "/v1/subjects/resolve",
    summary="Find or make a subject",
    response_model=ResolvedSubject,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(ResolveRequest) | {"parameters": [idempotency.PARAMETER]},
    tags=["subjects"],
)
async def resolve(request: Request) -> Response:
    """Resolving is the shop's own act, so that consent or its refusal can be recorded: it makes
    the subject when there is none, and links the visitor to the user. It stores pseudonyms only."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout")
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    asked = parse(ResolveRequest, body)
    visitor, user = gateway.subjects.pseudonyms(asked.visitor_id, asked.user_id)

    async def act() -> Response:
        identity = gateway.control.look_up(visitor, user)
        if asked.create and not identity.settled:
            identity = await gateway.control.establish(visitor, user, None)
        if identity.subject_id is None:
            raise ApiProblem(404, "No subject is known by these ids.")
        resolved = ResolvedSubject(subject_id=identity.subject_id)
        return Response(resolved.model_dump_json(), media_type="application/json")

    answer = await idempotency.once(request, gateway, caller, body, act)
    named = ResolvedSubject.model_validate_json(bytes(answer.body)).subject_id
    # The answer that was kept may name somebody who was erased since: that is nobody's id now.
    return answer if gateway.control.exists(named) else await act()


class HeldSubject(BaseModel):
    """One record: the person has one as a visitor on each device, and one as a user."""

    subject_id: str
    made_at: str
    linked_to: str | None
    history_read_with: str | None
    consent: list[dict[str, Any]]
    audit: list[dict[str, Any]]


class HeldAbout(BaseModel):
    """Everything that is held; `features` by subject id, `segments` those of the person.
    `offers_shown`: when, of offers that everybody is shown so often only. `counted`: what the
    worker beside this gateway makes key figures and reports of experiments from, by its tables."""

    subject_id: str
    made_at: str
    subjects: list[HeldSubject]
    features: dict[str, dict[str, list[dict[str, Any]]]]
    segments: list[str]
    events: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    reservations: list[dict[str, Any]]
    offers_shown: list[str]
    counted: dict[str, list[dict[str, Any]]]


class Receipt(BaseModel):
    """What was removed. `events_removed`: records of the event log; a topic gives up none, there
    they open no more. `features_removed`: false where a shared feature store was away; what it
    holds opens no more and is removed when it is back. `exports_not_found`: exports whose folder
    was away; their rows go when it is back. `facts_removed`: what key figures and experiments are
    counted from, in the files of the workers beside all gateways; false where one could not be
    written, or has not said yet that it was. `facts_elsewhere_until`: by when those have said so,
    null once all have; one that was not heard of for a quarter of an hour is not waited for, and
    removes them when it runs again.
    `finished`: nothing is left to do here; where it is false, another DELETE gives the receipt of
    how far it is by then. `control_store_clean`: its files were looked at, byte by byte."""

    receipt_id: str
    subject_id: str
    subject_ids: list[str]
    erased_at: str
    keys_destroyed: int
    events_removed: int
    export_rows_removed: int
    exports_not_found: int
    features_removed: bool
    facts_removed: bool
    facts_elsewhere_until: str | None
    control_store_clean: bool
    finished: bool
    audit_line: dict[str, Any]


class SignedReceipt(BaseModel):
    """The signature is Ed25519 over the receipt as JSON with sorted keys and no white space."""

    receipt: Receipt
    algorithm: str
    key_id: str
    signature: str


@router.get(
    "/v1/subjects/{subject_id}",
    summary="Read all that is held",
    response_model=HeldAbout,
    responses=documented(401, 403, 404, 503),
    openapi_extra={"parameters": [SUBJECT]},
    tags=["subjects"],
)
async def get_subject(request: Request) -> Response:
    """For the shopper to read: consent with its proof, links, events and decisions, features,
    segments, coupon reservations, when offers were shown and what is counted of them, of all
    records that are one person. That it was read stands in the audit log."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "admin")
    held = await gateway.rights.about(subject_of(request, gateway), caller.actor)
    if held is None:
        raise ApiProblem(404, _UNKNOWN)
    content = await asyncio.to_thread(json.dumps, held)
    return Response(content, media_type="application/json")


@router.delete(
    "/v1/subjects/{subject_id}",
    summary="Erase a subject",
    response_model=SignedReceipt,
    responses=documented(400, 401, 403, 404, 409, 503),
    openapi_extra={"parameters": [SUBJECT, idempotency.PARAMETER]},
    tags=["subjects"],
)
async def delete_subject(request: Request) -> Response:
    """Destroys the person's keys and removes everything, in this order; the links between visitor
    and user are followed. When this answers, nothing can be read any more. Ask again after a
    failure, or when the receipt says that it is not `finished`. Keep the receipt of a finished one:
    it is not kept here. Reservations and redemptions, being contracts, stay."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "admin")

    async def act() -> Response:
        # Not `subject_of`: one whose erasure is unfinished is no subject any more.
        receipt = await gateway.rights.erase(
            _plain(request.path_params["subject_id"]), caller.actor
        )
        if receipt is None:
            raise ApiProblem(404, _UNKNOWN)
        return Response(json.dumps(receipt), media_type="application/json")

    return await idempotency.once(request, gateway, caller, b"", act)


def _plain(named: str) -> str:
    """A subject id as it is kept; empty for what is none."""
    try:
        return str(UUID(named))
    except ValueError:
        return ""


def item_names(live: LiveRelease, keys: Iterable[int]) -> dict[int, str]:
    """The ids of those item keys of feature state that the live release knows."""
    wanted = np.fromiter(keys, np.uint64)
    vocabulary = live.current.vocabulary
    indices = vocabulary.of_keys(wanted).tolist()
    return {
        key: vocabulary.item_id(index)
        for key, index in zip(wanted.tolist(), indices, strict=True)
        if index >= FIRST_ITEM
    }
