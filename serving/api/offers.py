"""`GET` and `PUT /v1/offers`: the shop's offers, written as a whole, every version of which is kept
with who wrote it."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from contract.expressions import ExpressionRefused, checked
from contract.fields import one_line
from contract.offers import OfferBook
from serving.api import idempotency
from serving.api.auth import Caller, authenticate
from serving.api.bodies import parse_document, read_written_body
from serving.api.document_versions import ADMIN, Number, add_version_routes, read_version
from serving.api.documentation import body_of
from serving.api.documents import Held, Written, answered, put, told
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, FieldProblem, documented
from serving.api.unknown_names import unknown_in_offers
from serving.decision.offer_shelf import DOCUMENT, CompiledBook, compiled
from serving.state.documents import Document

router = APIRouter()


class WrittenOffers(Written, OfferBook):
    """The request. `version`: the one that it replaces (0: there is none yet); refused where
    somebody else has written meanwhile. Without it, it replaces whatever is there."""


class HeldOffers(Held, OfferBook):
    """The offers in force, and who wrote them when. Version 0: nobody has written any."""


class SavedOffers(HeldOffers):
    """The offers as they are in force now. `warnings`: what their conditions speak of and this shop
    does not have; left out where there is nothing."""

    warnings: list[str] | None = None


@router.get(
    "/v1/offers",
    summary="Read the offers",
    response_model=HeldOffers,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["offers"],
    dependencies=ADMIN,
)
async def get_offers(request: Request, version: Number | None = None) -> Response:
    """The latest version, or the one that is named. With `Accept: application/yaml` as a file that
    can be edited and sent back."""
    return read_version(request, DOCUMENT, version, _book, _answer)


@router.put(
    "/v1/offers",
    summary="Write the offers",
    response_model=SavedOffers,
    responses=documented(400, 401, 403, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(WrittenOffers, yaml=True) | {"parameters": [idempotency.PARAMETER]},
    tags=["offers"],
)
async def put_offers(request: Request) -> Response:
    """Replaces all offers. Conditions are compiled and tried on hostile carts before anything is
    written. In effect here for the next decision, elsewhere within a second. An offer that is gone,
    or not `active`, can be neither reserved nor redeemed from then on."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "admin")
    body = await read_written_body(request, gateway.settings.body_limit_bytes)
    written = parse_document(WrittenOffers, body)

    async def act() -> Response:
        await check(gateway, written)
        return await _write(gateway, caller, written)

    return await idempotency.once(request, gateway, caller, body, act)


add_version_routes(router, DOCUMENT)


async def _write(gateway: Gateway, caller: Caller, written: WrittenOffers) -> Response:
    text = written.model_dump_json(exclude={"version", "note"}, exclude_none=True)
    await put(gateway, DOCUMENT, text, written, caller)
    gateway.shelf.follow_book()
    await gateway.shelf.follow_uses(gateway.clock.now())
    await gateway.pace_offers()
    warnings = unknown_in_offers(gateway, written) or None
    return _answer(gateway.control.document(DOCUMENT), warnings)


async def check(gateway: Gateway, written: OfferBook) -> CompiledBook:
    """`written` as decisions would use it. Raises a 422 problem for what only this shop can know to
    be wrong."""
    await asyncio.to_thread(_check, gateway, written)
    book = OfferBook.model_validate(written.model_dump(include=set(OfferBook.model_fields)))
    return compiled(book.model_dump_json())


def _check(gateway: Gateway, written: OfferBook) -> None:
    """Raises a 422 problem for what only this shop can know to be wrong."""
    currency = gateway.live.current.catalogue.currency
    wrong = []
    for place, offer in enumerate(written.offers):
        if offer.currency != currency:
            wrong.append((f"offers[{place}].currency", f"the catalogue's is {currency}"))
        try:
            one_line(offer.title)
        except ValueError as refused:
            wrong.append((f"offers[{place}].title", str(refused)))
        try:
            if offer.condition is not None:
                checked(offer.condition, "offer")
        except ExpressionRefused as refused:
            wrong.append((f"offers[{place}].condition", str(refused)))
    if wrong:
        field, message = wrong[0]
        raise ApiProblem(
            422,
            f"{field}: {message}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""),
            errors=[FieldProblem(field=one, message=said) for one, said in wrong[:20]],
        )


def _book(document: Document | None) -> OfferBook:
    return OfferBook() if document is None else OfferBook.model_validate_json(document.body)


def _answer(document: Document | None, warnings: list[str] | None = None) -> Response:
    if document is None:
        return answered(HeldOffers(version=0))
    held = dict(_book(document)) | told(document.head).model_dump()
    return answered(SavedOffers(**held, warnings=warnings))
