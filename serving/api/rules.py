"""`GET` and `PUT /v1/rules`: the shop's override rules, written as a whole, in JSON or YAML, every
version of which is kept with who wrote it; `POST /v1/rules/check` tries a draft before that."""

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from contract.encoding import OOV
from contract.rule_set import RuleRefused, RuleSet, checked_set
from contract.rules import Action, ForceOffer, Pin, ReplaceOffer, RuleBook
from serving.api import idempotency
from serving.api.auth import Caller, authenticate
from serving.api.bodies import YAML, parse_document, read_written_body
from serving.api.documentation import body_of
from serving.api.documents import Held, VersionTold, Written, answered, put, told
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, FieldProblem, documented
from serving.decision import rule_book
from serving.decision.rule_book import DOCUMENT
from serving.state.document_diff import differences
from serving.state.documents import Document
from serving.yaml_text import as_yaml

router = APIRouter()


async def _by_admin(request: Request) -> None:
    # Before the query is looked at: a stranger is told nothing of what it should be.
    authenticate(request, gateway_of(request), "admin")


_ADMIN = [Depends(_by_admin)]

MOST_HISTORY = 200
MOST_WARNINGS = 50
Number = Annotated[int, Query(ge=1, le=10**9)]


class WrittenRules(Written, RuleBook):
    """The request. `version`: the one that it replaces (0: there is none yet); refused where
    somebody else has written meanwhile. Without it, it replaces whatever is there."""


class HeldRules(Held, RuleBook):
    """A version of the rules, and who wrote it when. Version 0: nobody has written any."""


class SavedRules(HeldRules):
    """The rules as they are in force now. `warnings`: what they speak of and this shop does not
    have, so that nothing will come of it; left out where there is none."""

    warnings: list[str] | None = None


class History(BaseModel):
    """Versions, the newest first."""

    versions: list[VersionTold]


class ChangeTold(BaseModel):
    """What stands at `path` in the one version and in the other; null: nothing."""

    path: str
    before: Any
    after: Any


class Difference(BaseModel):
    """What changed from version `before` to version `after`."""

    before: int
    after: int
    changes: list[ChangeTold]


@router.get(
    "/v1/rules",
    summary="Read the rules",
    response_model=HeldRules,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["rules"],
    dependencies=_ADMIN,
)
async def get_rules(request: Request, version: Number | None = None) -> Response:
    """The latest version, or the one that is named. With `Accept: application/yaml` as a file that
    can be edited and sent back."""
    gateway = gateway_of(request)
    document = gateway.control.document(DOCUMENT, version)
    if document is None and version is not None:
        raise _no_version(version)
    if request.headers.get("accept", "").partition(";")[0].strip().lower() in YAML:
        return Response(as_yaml(_book(document)), media_type=YAML[0])
    return _answer(document)


@router.put(
    "/v1/rules",
    summary="Write the rules",
    response_model=SavedRules,
    responses=documented(400, 401, 403, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(WrittenRules, yaml=True) | {"parameters": [idempotency.PARAMETER]},
    tags=["rules"],
)
async def put_rules(request: Request) -> Response:
    """Replaces all rules. Conditions are compiled and tried on hostile carts before anything is
    written. In effect here for the next decision, elsewhere within a second."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "admin")
    body = await read_written_body(request, gateway.settings.body_limit_bytes)
    written = parse_document(WrittenRules, body)

    async def act() -> Response:
        await check(written)
        return await _write(gateway, caller, written)

    return await idempotency.once(request, gateway, caller, body, act)


@router.get(
    "/v1/rules/history",
    summary="Who wrote the rules",
    response_model=History,
    responses=documented(401, 403, 422, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["rules"],
    dependencies=_ADMIN,
)
async def get_history(
    request: Request,
    before: Number | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_HISTORY)] = 50,
) -> Response:
    """The newest versions, or those below `before`. A version is never changed; writing an old one
    again takes the rules back to it."""
    gateway = gateway_of(request)
    heads = gateway.control.document_history(DOCUMENT, before, limit)
    return answered(History(versions=[told(head) for head in heads]))


@router.get(
    "/v1/rules/diff",
    summary="Compare two versions of the rules",
    response_model=Difference,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["rules"],
    dependencies=_ADMIN,
)
async def get_difference(
    request: Request, before: Annotated[int, Query(ge=0, le=10**9)] = 0, after: Number | None = None
) -> Response:
    """What changed from `before` (0: the beginning) to `after` (the latest), rule by rule."""
    gateway = gateway_of(request)
    new = gateway.control.document(DOCUMENT, after)
    if new is None:
        raise _no_version(after or 0)
    held = gateway.control.document(DOCUMENT, before) if before else None
    if held is None and before:
        raise _no_version(before)
    found = differences(None if held is None else held.body, new.body)
    changes = [ChangeTold(path=one.path, before=one.before, after=one.after) for one in found]
    return answered(Difference(before=before, after=new.version, changes=changes))


async def check(written: RuleBook) -> RuleSet:
    """The rules compiled; a 422 problem for titles and conditions that may not be saved."""
    try:
        return await asyncio.to_thread(checked_set, written)
    except RuleRefused as refused:
        field = "rules" if refused.place is None else f"rules[{refused.place}].{refused.field}"
        said = str(refused)
        whose = "" if refused.rule_id is None else f" (of {refused.rule_id})"
        raise ApiProblem(
            422, f"{field}{whose}: {said}", errors=[FieldProblem(field=field, message=said)]
        ) from None


async def _write(gateway: Gateway, caller: Caller, written: WrittenRules) -> Response:
    book = RuleBook(**{name: getattr(written, name) for name in RuleBook.model_fields})
    await put(gateway, DOCUMENT, rule_book.body_of(book), written, caller)
    gateway.rules.follow()
    document = gateway.control.document(DOCUMENT)
    assert document is not None
    return _answer(document, _warnings(gateway, _book(document)) or None)


def _warnings(gateway: Gateway, book: RuleBook) -> list[str]:
    # Not refused: the offer, or the release with the item, may come after the rule.
    found = (
        f"{rule.id}: {missing}"
        for rule in book.rules
        for action in rule.actions
        for missing in _missing(gateway, action)
    )
    return list(islice(found, MOST_WARNINGS))


def _missing(gateway: Gateway, action: Action) -> Iterator[str]:
    """What `action` speaks of and this shop does not have."""
    match action:
        case ForceOffer(offer_id=given) | ReplaceOffer(by=given):
            if gateway.shelf.current.book.find(given) is None:
                yield f"there is no offer {given}"
        case Pin():
            vocabulary = gateway.live.current.vocabulary
            unknown = (one for one in action.items if vocabulary.index(one) == OOV)
            yield from (f"the catalogue has no item {one}" for one in unknown)


def _book(document: Document | None) -> RuleBook:
    return RuleBook() if document is None else RuleBook.model_validate_json(document.body)


def _answer(document: Document | None, warnings: list[str] | None = None) -> Response:
    if document is None:
        return answered(HeldRules(version=0))
    held = dict(_book(document)) | told(document.head).model_dump()
    return answered(SavedRules(**held, warnings=warnings))


def _no_version(version: int) -> ApiProblem:
    return ApiProblem(404, f"There is no version {version} of the rules.")
