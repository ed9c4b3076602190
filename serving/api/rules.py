"""`GET` and `PUT /v1/rules`: the shop's override rules, written as a whole, in JSON or YAML, every
version of which is kept with who wrote it; `POST /v1/rules/check` tries a draft before that."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from contract.rule_set import RuleRefused, RuleSet, checked_set
from contract.rules import RuleBook
from serving.api import idempotency
from serving.api.auth import Caller, authenticate
from serving.api.bodies import parse_document, read_written_body
from serving.api.document_versions import ADMIN, Number, add_version_routes, read_version
from serving.api.documentation import body_of
from serving.api.documents import Held, Written, answered, put, told
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, FieldProblem, documented
from serving.api.unknown_names import unknown_in_rules
from serving.decision import rule_book
from serving.decision.rule_book import DOCUMENT
from serving.state.documents import Document

router = APIRouter()


class WrittenRules(Written, RuleBook):
    """The request. `version`: the one that it replaces (0: there is none yet); refused where
    somebody else has written meanwhile. Without it, it replaces whatever is there."""


class HeldRules(Held, RuleBook):
    """A version of the rules, and who wrote it when. Version 0: nobody has written any."""


class SavedRules(HeldRules):
    """The rules as they are in force now. `warnings`: what they speak of and this shop does not
    have, so that nothing will come of it; left out where there is none."""

    warnings: list[str] | None = None


@router.get(
    "/v1/rules",
    summary="Read the rules",
    response_model=HeldRules,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["rules"],
    dependencies=ADMIN,
)
async def get_rules(request: Request, version: Number | None = None) -> Response:
    """The latest version, or the one that is named. With `Accept: application/yaml` as a file that
    can be edited and sent back."""
    return read_version(request, DOCUMENT, version, _book, _answer)


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


add_version_routes(router, DOCUMENT)


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
    return _answer(document, unknown_in_rules(gateway, book) or None)


def _book(document: Document | None) -> RuleBook:
    return RuleBook() if document is None else RuleBook.model_validate_json(document.body)


def _answer(document: Document | None, warnings: list[str] | None = None) -> Response:
    if document is None:
        return answered(HeldRules(version=0))
    held = dict(_book(document)) | told(document.head).model_dump()
    return answered(SavedRules(**held, warnings=warnings))
