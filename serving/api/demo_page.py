"""`/demo`: a checkout page over the real catalogue, mounted by `tillwise-serve demo` and nowhere
else. Its own endpoints play the shop's server: they hold a checkout key and call the real route."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Message

from contract.encoding import FIRST_ITEM
from contract.text import words
from serving.api.bodies import read_json_body
from serving.api.gateway import Gateway
from serving.api.problems import ApiProblem
from serving.api.sdk import snippet
from serving.api.static_files import StaticFiles
from serving.inference.assortment import NOT_PRICED
from serving.inference.release import Release

DECIDE = "/v1/checkout/decide"
_MOST_FOUND = 20
# The demo shop's own policy, sent with every request: nothing that needs proof of age is suggested
# at its checkout. The names are those of the imported catalogue; others match nothing.
AGE_RESTRICTED = (
    "BEERS/ALES",
    "CIGARETTES",
    "CIGARS",
    "DOMESTIC WINE",
    "IMPORTED WINE",
    "LIQUOR",
    "MISC WINE",
    "TOBACCO OTHER",
)
SHOP_FILTER: dict[str, Any] = {"exclude_categories": list(AGE_RESTRICTED)}
_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
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
    """All shoppers on offer, and the filter that this shop sends with each of their requests."""

    shoppers: tuple[DemoShopper, ...]
    filter: dict[str, Any] = SHOP_FILTER


class DemoItems(BaseModel):
    """Items found, the most popular first."""

    items: tuple[DemoItem, ...]


class Shelf:
    """The catalogue of one release, searchable by words."""

    def __init__(self, release: Release) -> None:
        self._release = release
        catalogue = release.catalogue
        self._text = [
            " ".join(words(f"{title} {brand} {' '.join(path)}"))
            for title, brand, path in zip(
                catalogue.title, catalogue.brand, catalogue.category_path, strict=True
            )
        ]

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
    api_key: str,
    page: Path | None,
    collect_key: str = "",
) -> None:
    """Add the page in the folder `page` and its endpoints to `app`.

    `api_key` stays here; `collect_key` stands in the page, for the snippet."""
    router = APIRouter(prefix="/demo", include_in_schema=False)
    shelf = Shelf(gateway.live.current)
    everyone = DemoShoppers(shoppers=tuple(shoppers)).model_dump_json()

    @router.get("/api/shoppers")
    async def list_shoppers() -> Response:
        return Response(everyone, media_type="application/json")

    @router.get("/api/items")
    async def find_items(request: Request) -> Response:
        named = [one for one in request.query_params.get("ids", "").split(",") if one]
        if named:
            items = tuple(item for one in named[:100] if (item := shelf.item(one)) is not None)
        else:
            items = shelf.search(request.query_params.get("q", "")[:200])
        return Response(DemoItems(items=items).model_dump_json(), media_type="application/json")

    @router.post("/api/decide")
    async def decide(request: Request) -> Response:
        body = await read_json_body(request, gateway.settings.body_limit_bytes)
        gpc = request.headers.get("sec-gpc")
        status, answer = await forward(app, body, api_key, gpc)
        kind = "application/json" if status < 400 else "application/problem+json"
        return Response(answer, status, media_type=kind)

    files = None if page is None else _page_files(page, collect_key)

    @router.api_route("/{name:path}", methods=["GET", "HEAD"])
    async def show(request: Request) -> Response:
        if files is None:
            raise ApiProblem(404, "The demo page is not part of this installation.")
        return files.answer(request, request.path_params["name"] or "index.html", _HEADERS)

    app.add_api_route(
        "/demo", lambda: RedirectResponse("/demo/"), include_in_schema=False, response_model=None
    )
    app.include_router(router)


def _page_files(page: Path, collect_key: str) -> StaticFiles:
    held = snippet()
    return StaticFiles.read(
        page,
        snippet=held.src if held else "/sdk/tillwise.js",
        integrity=held.integrity if held else "",
        collect_key=collect_key,
    )


async def forward(app: ASGIApp, body: bytes, api_key: str, gpc: str | None) -> tuple[int, bytes]:
    """Send `body` to the real route with a real key, within the process; status and answer."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"authorization", f"Bearer {api_key}".encode()),
    ]
    if gpc is not None:
        headers.append((b"sec-gpc", gpc.encode("latin-1")))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": DECIDE,
        "raw_path": DECIDE.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status = next(m["status"] for m in sent if m["type"] == "http.response.start")
    return status, b"".join(m.get("body", b"") for m in sent)
