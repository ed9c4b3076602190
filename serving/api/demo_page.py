"""`/demo`: a small shop over the real catalogue, mounted by `tillwise-serve demo` and nowhere else.
What its shop's server does with its keys is `demo_shop`'s."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel

from contract.encoding import FIRST_ITEM
from contract.text import words
from serving.api.bodies import read_json_body
from serving.api.demo_board import BOARD, add_board_routes
from serving.api.demo_options import SHOP_FILTER, DemoOptions
from serving.api.demo_rules import add_rule_routes
from serving.api.demo_shop import ShopKeys, ShopServer, add_routes
from serving.api.demo_till import add_till
from serving.api.gateway import Gateway
from serving.api.problems import ApiProblem
from serving.api.sdk import snippet
from serving.api.static_files import StaticFiles
from serving.inference.assortment import NOT_PRICED
from serving.inference.release import Release

_MOST_FOUND = 20
_PER_SHELF = 6
STRANGER = "somebody-new"
_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGES = {"": "index.html", "rules": "rules.html"}
_HEADERS = {"Content-Security-Policy": _POLICY}


class DemoItem(BaseModel):
    """One item as the page shows it; `price` in minor units, None when not priced."""

    item_id: str
    title: str
    brand: str
    category_path: tuple[str, ...]
    price: int | None
    currency: str
    available: bool


class DemoShopper(BaseModel):
    """Somebody to play: a real basket from after the release was trained, cut in two.

    `cart` is what lies in the cart, `bought_too` what the same basket held besides.
    """

    visitor_id: str
    label: str
    session_id: str
    consent: dict[str, bool]
    cart: tuple[DemoItem, ...]
    bought_too: tuple[DemoItem, ...]


class DemoShoppers(BaseModel):
    """All shoppers on offer, and the filter and options that this shop sends with each of their
    requests."""

    shoppers: tuple[DemoShopper, ...]
    filter: dict[str, Any] = SHOP_FILTER
    options: DemoOptions = DemoOptions()


class DemoItems(BaseModel):
    """Items found, the most popular first; `more`: how many follow these."""

    items: tuple[DemoItem, ...]
    more: int = 0


class DemoAisle(BaseModel):
    """Where items of one kind stand: the first two levels of their category."""

    department: str
    aisle: str
    num_items: int


class DemoAisles(BaseModel):
    """All aisles, those with the most popular item first."""

    aisles: tuple[DemoAisle, ...]


class Shelf:
    """The catalogue of one release: by aisle, and searchable by words."""

    def __init__(self, release: Release) -> None:
        self._release = release
        catalogue = release.catalogue
        self._text = [
            " ".join(words(f"{title} {brand} {' '.join(path)}"))
            for title, brand, path in zip(
                catalogue.title, catalogue.brand, catalogue.category_path, strict=True
            )
        ]
        self._aisles: dict[tuple[str, str], list[int]] = {}
        for index in release.by_popularity.tolist():
            path = catalogue.category_path[index]
            if path:
                self._aisles.setdefault((path[0], path[min(1, len(path) - 1)]), []).append(index)

    @property
    def currency(self) -> str:
        """Of all prices."""
        return self._release.catalogue.currency

    @property
    def aisles(self) -> tuple[DemoAisle, ...]:
        """All aisles, those with the most popular item first."""
        return tuple(
            DemoAisle(department=department, aisle=aisle, num_items=len(items))
            for (department, aisle), items in self._aisles.items()
        )

    def in_aisle(self, department: str, aisle: str, start: int) -> DemoItems:
        """A shelf's length of an aisle from place `start` on; an unknown aisle is empty."""
        items = self._aisles.get((department, aisle), [])
        shown = items[start : start + _PER_SHELF]
        return DemoItems(
            items=tuple(self._item(index) for index in shown),
            more=max(len(items) - start - len(shown), 0),
        )

    def item(self, item_id: str) -> DemoItem | None:
        """The item, or None when the catalogue does not know it."""
        index = self._release.vocabulary.index(item_id)
        return self._item(index) if index >= FIRST_ITEM else None

    def search(self, query: str) -> tuple[DemoItem, ...]:
        """Items that hold every word of `query`, also as the beginning of a longer word."""
        wanted = words(query)
        found = [
            index
            for index in self._release.by_popularity.tolist()
            if all(f" {word}" in f" {self._text[index]}" for word in wanted)
        ]
        return tuple(self._item(index) for index in found[:_MOST_FOUND])

    def _item(self, index: int) -> DemoItem:
        catalogue = self._release.catalogue
        price = int(catalogue.now.price[index])
        return DemoItem(
            item_id=self._release.vocabulary.item_id(index),
            title=catalogue.title[index],
            brand=catalogue.brand[index],
            category_path=catalogue.category_path[index],
            price=None if price == NOT_PRICED else price,
            currency=catalogue.currency,
            available=bool(np.asarray(catalogue.now.available)[index]),
        )


def mount(
    app: FastAPI,
    gateway: Gateway,
    shoppers: Sequence[DemoShopper],
    keys: ShopKeys,
    page: Path | None,
) -> None:
    """Add the page in the folder `page` and its endpoints to `app`."""
    router = APIRouter(prefix="/demo", include_in_schema=False)
    shelf = Shelf(gateway.live.current)
    aisles = DemoAisles(aisles=shelf.aisles).model_dump_json()
    shop = ShopServer(app, keys, (one.visitor_id for one in shoppers))

    async def met() -> tuple[DemoShopper, ...]:
        present = [one for one in shoppers if shop.serves(one.visitor_id)]
        return tuple([await _as_met(one, shop) for one in present])

    async def samples() -> list[dict[str, Any]]:
        return [checkout_of(one) | {"name": one.label} for one in await met() if one.cart]

    @router.get("/api/shoppers")
    async def list_shoppers() -> Response:
        answer = DemoShoppers(shoppers=await met()).model_dump_json()
        headers = {"Cache-Control": "no-store"}
        return Response(answer, media_type="application/json", headers=headers)

    @router.get("/api/aisles")
    async def list_aisles() -> Response:
        return Response(aisles, media_type="application/json")

    @router.get("/api/items")
    async def find_items(request: Request) -> Response:
        found = _asked_items(shelf, request.query_params)
        return Response(found.model_dump_json(), media_type="application/json")

    @router.post("/api/decide")
    async def decide(request: Request) -> Response:
        body = await read_json_body(request, gateway.settings.body_limit_bytes)
        status, answer = await shop.decide(body, request.headers.get("sec-gpc"))
        kind = "application/json" if status < 400 else "application/problem+json"
        # An offer ends by the gateway's clock, which in the demo stands in the year of the data.
        headers = {"Gateway-Time": gateway.clock.now().isoformat()}
        return Response(answer, status, headers, kind)

    add_routes(router, shop, gateway.settings.state)
    add_rule_routes(router, shop, samples, gateway.settings.body_limit_bytes)
    add_board_routes(router, shop, gateway.settings.body_limit_bytes)
    add_till(router, shop, gateway.settings.body_limit_bytes)
    _add_page(router, None if page is None else _page_files(page, keys.collect))
    app.add_api_route(
        "/demo", lambda: RedirectResponse("/demo/"), include_in_schema=False, response_model=None
    )
    app.state.dashboard = (f"{router.prefix}{BOARD}", "demo")
    app.include_router(router)


def _add_page(router: APIRouter, files: StaticFiles | None) -> None:
    """Behind all other routes: any name may be one of its files."""

    @router.api_route("/{name:path}", methods=["GET", "HEAD"])
    async def show(request: Request) -> Response:
        if files is None:
            raise ApiProblem(404, "The demo page is not part of this installation.")
        name = request.path_params["name"]
        return files.answer(request, _PAGES.get(name, name), _HEADERS)


def checkout_of(shopper: DemoShopper) -> dict[str, Any]:
    """The request that a shop's server would send for the shopper's cart as it was found."""
    options = DemoOptions()
    lines = [{"item_id": item.item_id, "quantity": 1, "price": item.price} for item in shopper.cart]
    return {
        "visitor_id": shopper.visitor_id,
        "session_id": shopper.session_id,
        "cart": {
            "cart_id": shopper.session_id,
            "currency": shopper.cart[0].currency,
            "items": lines,
        },
        "consent": shopper.consent,
        "filter": SHOP_FILTER,
        "payment_methods": [one.id for one in options.payment_methods],
        "shipping_options": [one.model_dump(exclude={"label"}) for one in options.shipping_options],
    }


async def _as_met(shopper: DemoShopper, shop: ShopServer) -> DemoShopper:
    """With the consent in force. Whoever is new to the shop is so every time: with ids that nobody
    had before."""
    if shopper.visitor_id == STRANGER:
        return shopper.model_copy(update={"visitor_id": str(uuid4()), "session_id": str(uuid4())})
    return shopper.model_copy(update={"consent": await shop.agreed(shopper.visitor_id)})


def _asked_items(shelf: Shelf, asked: Mapping[str, str]) -> DemoItems:
    if named := [one for one in asked.get("ids", "").split(",") if one]:
        return DemoItems(
            items=tuple(item for one in named[:100] if (item := shelf.item(one)) is not None)
        )
    if "aisle" in asked:
        start = asked.get("from", "")
        place = int(start) if start.isdecimal() and len(start) < 8 else 0
        return shelf.in_aisle(asked.get("department", ""), asked["aisle"], place)
    return DemoItems(items=shelf.search(asked.get("q", "")[:200]))


def _page_files(page: Path, collect_key: str) -> StaticFiles:
    held = snippet()
    return StaticFiles.of_page(
        page,
        snippet=held.src if held else "/sdk/tillwise.js",
        integrity=held.integrity if held else "",
        collect_key=collect_key,
    )
