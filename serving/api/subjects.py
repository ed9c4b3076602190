"""`POST /v1/subjects/resolve`: from raw ids to the subject id that every other call uses."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from contract.events import RawId
from serving.api import idempotency
from serving.api.auth import authenticate
from serving.api.bodies import parse, read_json_body
from serving.api.documentation import body_of
from serving.api.gateway import gateway_of
from serving.api.problems import ApiProblem, documented

router = APIRouter()


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
    responses=documented(400, 401, 403, 404, 409, 413, 415, 422, 503),
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

    return await idempotency.once(request, gateway, caller, body, act)
