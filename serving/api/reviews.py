"""`GET /v1/reviews` and what a person does about one: `POST /v1/reviews/{id}/acknowledge`,
`/close`. Items are opened by whoever watches KPIs, drift or fairness, never over HTTP."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from contract.events import Note
from contract.reviews import Review, State
from serving.api import idempotency
from serving.api.auth import authenticate
from serving.api.bodies import parse_document, read_json_body
from serving.api.documentation import body_of
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, documented
from serving.state.review_items import MOST_LISTED

router = APIRouter()


async def _by_admin(request: Request) -> None:
    # Before the query is looked at: a stranger is told nothing of what it should be.
    authenticate(request, gateway_of(request), "admin")


_ADMIN = [Depends(_by_admin)]


class Moved(BaseModel):
    """The request: a word about it, and the name of the person, who may share a key with others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: Note = ""
    who: Annotated[str, StringConstraints(max_length=100)] = ""


class Reviews(BaseModel):
    """Items, the newest first; `open` says how many wait for somebody in all."""

    reviews: list[Review]
    open: int


@router.get(
    "/v1/reviews",
    summary="List the review items",
    response_model=Reviews,
    responses=documented(401, 403, 422, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["reviews"],
    dependencies=_ADMIN,
)
async def list_reviews(
    request: Request,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> Response:
    """What changed, where, since when, and what went live before. `ended_at`: the alarm is no
    longer raised; the item waits for a person all the same."""
    control = gateway_of(request).control
    held = Reviews(
        reviews=control.reviews(state, limit), open=len(control.reviews("open", MOST_LISTED))
    )
    return Response(held.model_dump_json(), media_type="application/json")


@router.get(
    "/v1/reviews/{review_id}",
    summary="Read a review item",
    response_model=Review,
    responses=documented(401, 403, 404, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["reviews"],
    dependencies=_ADMIN,
)
async def get_review(request: Request, review_id: str) -> Response:
    """With everything that was done about it."""
    found = gateway_of(request).control.review(review_id)
    if found is None:
        raise _missing()
    return _answer(found)


@router.post(
    "/v1/reviews/{review_id}/acknowledge",
    summary="Acknowledge a review item",
    response_model=Review,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(Moved) | {"parameters": [idempotency.PARAMETER]},
    tags=["reviews"],
)
async def acknowledge_review(request: Request, review_id: str) -> Response:
    """Somebody looks at it. Doing it again changes nothing; one that is closed is refused."""
    return await _move(request, review_id, "acknowledged")


@router.post(
    "/v1/reviews/{review_id}/close",
    summary="Close a review item",
    response_model=Review,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(Moved) | {"parameters": [idempotency.PARAMETER]},
    tags=["reviews"],
)
async def close_review(request: Request, review_id: str) -> Response:
    """It is dealt with, or needs nothing. While the alarm lasts it stays closed; if it ends and
    returns within two weeks, the item is opened again. So is one that is not closed, where it
    returns more than a day after its end."""
    return await _move(request, review_id, "closed")


async def _move(
    request: Request, review_id: str, to: Literal["acknowledged", "closed"]
) -> Response:
    gateway: Gateway = gateway_of(request)
    caller = authenticate(request, gateway, "admin")
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    said = parse_document(Moved, body)

    async def act() -> Response:
        try:
            moved = await gateway.control.move_review(
                review_id, to, caller.actor, who=said.who, note=said.note
            )
        except ValueError as error:
            raise ApiProblem(409, f"The review item can not be {to}: {error}.") from None
        if moved is None:
            raise _missing()
        return _answer(moved)

    return await idempotency.once(request, gateway, caller, body, act)


def _missing() -> ApiProblem:
    return ApiProblem(404, "There is no such review item.")


def _answer(review: Review) -> Response:
    return Response(review.model_dump_json(), media_type="application/json")
