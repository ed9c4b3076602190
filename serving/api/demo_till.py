"""What the demo's shop does when somebody pays: the offers that were shown are reserved and
redeemed with the final basket, as any shop's server does it, so that what the page said is due."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contract.events import RawId
from contract.offers import OfferId
from serving.api.bodies import parse, read_json_body
from serving.api.coupons import Amount, Shipping
from serving.api.demo_shop import ShopServer, granted, json_answer
from serving.api.problems import ApiProblem
from serving.api.schemas import Cart

_MOST_OFFERS = 10


class TakenUp(BaseModel):
    """An offer as the decision gave it."""

    model_config = ConfigDict(extra="forbid")

    offer_id: OfferId
    offer_token: Annotated[str, StringConstraints(min_length=1, max_length=4_096)]


class Order(BaseModel):
    """What is paid. `order_id`: the page's own, so that paying twice is paying once."""

    model_config = ConfigDict(extra="forbid")

    visitor_id: RawId
    order_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{8,64}$")]
    cart: Cart
    total: Amount
    shipping: Shipping | None = None
    offers: Annotated[list[TakenUp], Field(min_length=1, max_length=_MOST_OFFERS)]


class Till:
    """Redeems what was offered, or leaves nothing held."""

    def __init__(self, shop: ShopServer) -> None:
        self._shop = shop

    async def pay(self, order: Order) -> dict[str, Any]:
        """The redemption. Raises a problem that says why there is none."""
        if not self._shop.serves(order.visitor_id):
            raise ApiProblem(403, "This page may not speak for that visitor.")
        held: list[str] = []
        try:
            for one in order.offers:
                held.append(await self._reserve(one, order.visitor_id))
            paid = order.model_dump(mode="json", include={"cart", "total", "shipping"})
            paid |= {"transaction_id": f"demo-{order.order_id}", "combined_with": held[1:]}
            return await self._post(f"/v1/reservations/{held[0]}/redeem", paid)
        except ApiProblem:
            for reservation_id in held:
                # One that was redeemed after all, by an answer that was lost, refuses this.
                await self._shop.as_till(f"/v1/reservations/{reservation_id}/release", b"")
            raise

    async def _reserve(self, one: TakenUp, visitor_id: str) -> str:
        asked = {"offer_token": one.offer_token, "visitor_id": visitor_id}
        answer = await self._post(f"/v1/offers/{one.offer_id}/reservations", asked)
        return str(answer["reservation_id"])

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return granted(await self._shop.as_till(path, json.dumps(body).encode()))


def add_till(router: APIRouter, shop: ShopServer, limit_bytes: int) -> None:
    """The page's endpoint."""
    till = Till(shop)

    @router.post("/api/pay")
    async def pay(request: Request) -> Response:
        body = await read_json_body(request, limit_bytes)
        return json_answer(await till.pay(parse(Order, body)))
