"""`GET` and `PUT /v1/consent/{subject_id}`: what a subject agreed to, with the proof of it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from contract.consent import PURPOSES
from contract.events import no_card
from serving.api import idempotency
from serving.api.auth import authenticate
from serving.api.bodies import parse, read_json_body
from serving.api.documentation import body_of, path_parameter
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, documented
from serving.state.control_records import Consent

router = APIRouter()

Label = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(no_card)]
SUBJECT = path_parameter("subject_id", "The id that resolve gave.", "uuid")


class Purposes(BaseModel):
    """What was agreed to; every purpose has to be answered."""

    model_config = ConfigDict(extra="forbid")

    personalization: bool
    analytics: bool
    offers: bool


class ConsentWord(BaseModel):
    """The request: the shopper's word, where it was given, under which wording."""

    model_config = ConfigDict(extra="forbid")

    purposes: Purposes
    source: Label
    wording_version: Label


class ConsentRecord(BaseModel):
    """The consent in force; `recorded_at` None when nothing was ever said (everything is off)."""

    subject_id: str
    purposes: Purposes
    source: str | None = None
    wording_version: str | None = None
    recorded_at: datetime | None = None


@router.get(
    "/v1/consent/{subject_id}",
    summary="Read consent",
    response_model=ConsentRecord,
    responses=documented(401, 403, 404, 503),
    openapi_extra={"parameters": [SUBJECT]},
    tags=["consent"],
)
async def get_consent(request: Request) -> Response:
    """The latest record of the subject, or of the user whose history it belongs to."""
    gateway = gateway_of(request)
    authenticate(request, gateway, "checkout")
    subject_id = subject_of(request, gateway)
    return _answer(subject_id, gateway.control.consent_of(subject_id))


@router.put(
    "/v1/consent/{subject_id}",
    summary="Record consent",
    response_model=ConsentRecord,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(ConsentWord) | {"parameters": [SUBJECT, idempotency.PARAMETER]},
    tags=["consent"],
)
async def put_consent(request: Request) -> Response:
    """Durable when answered, and in effect for the next request; nothing that it withdraws is
    stored any more. Older records stay as proof. The word of a visitor who logged in is the user's
    to whom its history belongs: on a shared device the first's."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "checkout")
    subject_id = subject_of(request, gateway)
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    word = parse(ConsentWord, body)

    async def act() -> Response:
        purposes = frozenset(name for name, agreed in word.purposes if agreed)
        consent = Consent(purposes, gateway.clock.now(), word.source, word.wording_version)
        await gateway.control.record_consent(subject_id, consent, caller.actor)
        if purposes < PURPOSES:
            # What was asked about before is on its way; nothing is stored after this answer.
            await gateway.ingest.drain()
            await gateway.impressions.written()
        return _answer(subject_id, consent)

    return await idempotency.once(request, gateway, caller, body, act)


def subject_of(request: Request, gateway: Gateway) -> str:
    """The subject of the path. Raises a 404 problem, the same for malformed and unknown ids."""
    return named_subject(gateway, request.path_params["subject_id"])


def named_subject(gateway: Gateway, named: str) -> str:
    """The subject `named`, wherever it stands. Raises as `subject_of`."""
    try:
        subject_id = str(UUID(named))
    except ValueError:
        subject_id = ""
    if not subject_id or not gateway.control.exists(subject_id):
        raise ApiProblem(404, "There is no such subject; get its id from /v1/subjects/resolve.")
    return subject_id


def _answer(subject_id: str, consent: Consent | None) -> Response:
    held = frozenset() if consent is None else consent.purposes
    record = ConsentRecord(
        subject_id=subject_id,
        purposes=Purposes(
            personalization="personalization" in held,
            analytics="analytics" in held,
            offers="offers" in held,
        ),
        source=consent.source if consent else None,
        wording_version=consent.wording_version if consent else None,
        recorded_at=consent.recorded_at if consent else None,
    )
    return Response(record.model_dump_json(), media_type="application/json")
