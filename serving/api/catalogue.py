"""`PATCH /v1/catalogue/items`: what the shop says of its items between two releases."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StringConstraints,
)

from contract.catalogue import Currency, ItemId, MinorUnits
from contract.encoding import OOV
from contract.events import no_card
from serving.api import idempotency
from serving.api.auth import authenticate
from serving.api.bodies import parse, read_json_body
from serving.api.documentation import body_of
from serving.api.gateway import Gateway, gateway_of
from serving.api.item_ids import refuse_cards
from serving.api.problems import ApiProblem, documented

router = APIRouter()

MOST_ITEMS = 1_000
# What is said is kept for ever. Of items that no release knows, no more than this beyond as many as
# the live release has.
MOST_UNKNOWN = 10_000
NamedItem = Annotated[ItemId, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
Amount = Annotated[MinorUnits, Strict()]
Region = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(no_card)]


class ItemPatch(BaseModel):
    """What is said of one item. A field that is left out stays as it was said before; null takes
    it back, so that the release's word holds. `price` and `cost` are minor units per unit;
    `regions` empty: sold everywhere."""

    model_config = ConfigDict(extra="forbid")

    item_id: NamedItem
    available: StrictBool | None = None
    price: Amount | None = None
    cost: Amount | None = None
    regions: Annotated[list[Region], Field(max_length=500)] | None = None


def _distinct(items: list[ItemPatch]) -> list[ItemPatch]:
    if len({item.item_id for item in items}) != len(items):
        raise ValueError("must not name the same item twice")
    return items


class CataloguePatch(BaseModel):
    """The request. `currency`, where it is said, must be that of the catalogue."""

    model_config = ConfigDict(extra="forbid")

    currency: Currency | None = None
    items: Annotated[
        list[ItemPatch], Field(min_length=1, max_length=MOST_ITEMS), AfterValidator(_distinct)
    ]


class CataloguePatched(BaseModel):
    """The answer. `number` grows with every patch; `unknown_item_ids` are not in the live release:
    what is said of them is kept, and counts once a release has them."""

    number: int
    unknown_item_ids: list[str]


@router.patch(
    "/v1/catalogue/items",
    summary="Change items between releases",
    response_model=CataloguePatched,
    responses=documented(400, 401, 403, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(CataloguePatch) | {"parameters": [idempotency.PARAMETER]},
    tags=["catalogue"],
)
async def patch_items(request: Request) -> Response:
    """Availability, price, cost and regions, laid over the live release and every one to come until
    taken back. Durable when answered and in effect for the next decision; other gateways on the
    same store follow within a second."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "admin")
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    asked = parse(CataloguePatch, body)
    release = gateway.live.current
    refuse_cards("items[{}].item_id", [one.item_id for one in asked.items], release.vocabulary)
    currency = release.catalogue.currency
    if asked.currency not in (None, currency):
        raise ApiProblem(422, f"currency: the catalogue's is {currency}.")

    _refuse_too_many(gateway, asked)

    async def act() -> Response:
        patches = [
            (one.item_id, one.model_dump(exclude={"item_id"}, exclude_unset=True))
            for one in asked.items
        ]
        number = await gateway.control.change_items(patches, caller.actor)
        await gateway.follow_catalogue()
        vocabulary = gateway.live.current.vocabulary
        unknown = [item_id for item_id, _ in patches if vocabulary.index(item_id) == OOV]
        answer = CataloguePatched(number=number, unknown_item_ids=unknown)
        return Response(answer.model_dump_json(), media_type="application/json")

    return await idempotency.once(request, gateway, caller, body, act)


def _refuse_too_many(gateway: Gateway, asked: CataloguePatch) -> None:
    """Raises a 422 problem where more would be kept than any catalogue needs."""
    vocabulary, overlay = gateway.live.current.vocabulary, gateway.overlay
    new = sum(
        vocabulary.index(one.item_id) == OOV and one.item_id not in overlay for one in asked.items
    )
    if new and len(overlay) + new > len(vocabulary) + MOST_UNKNOWN:
        raise ApiProblem(
            422,
            f"items: {new} of them are in no release, and as much is kept of such items as may be; "
            "say it once a release has them.",
        )
