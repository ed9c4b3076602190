"""What the demo's shop does on its own server: it holds the keys, finds the subject behind a
visitor and calls the real routes, within the process. Its page holds none of these keys, and no
raw id ever stands in a URL."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict
from starlette.types import ASGIApp, Message

from contract.events import RawId
from serving.api.bodies import parse, read_json_body
from serving.api.problems import ApiProblem

DECIDE = "/v1/checkout/decide"
_LIMIT_BYTES = 4_096
SOURCE = "demo shop"
WORDING_VERSION = "demo-2"  # of the words beside the switches in web/demo/index.html
Answer = tuple[int, bytes]


@dataclass(frozen=True)
class ShopKeys:
    """Keys of the demo's shop; only `collect` may stand in its page."""

    checkout: str
    admin: str
    collect: str = ""


class AboutShopper(BaseModel):
    """Whom a page asks about; `gpc` what its switch for Global Privacy Control says."""

    model_config = ConfigDict(extra="forbid")

    visitor_id: RawId
    gpc: bool = False


class SaidOfConsent(BaseModel):
    """The page's two switches; offers are chosen by what personalization alone may know."""

    model_config = ConfigDict(extra="forbid")

    visitor_id: RawId
    agreed: bool
    offers: bool = False


class ShopServer:
    """The calls of the shop's server."""

    def __init__(self, app: ASGIApp, keys: ShopKeys, visitor_ids: Iterable[str]) -> None:
        self._app = app
        self._keys = keys
        self._visitors = set(visitor_ids)

    def serves(self, visitor_id: str) -> bool:
        """Whether this page may speak for the visitor: one that it was given to play, or a random
        id, which nobody else can know."""
        if visitor_id in self._visitors:
            return True
        try:
            return UUID(visitor_id).version == 4
        except ValueError:
            return False

    async def agreed(self, visitor_id: str) -> dict[str, bool]:
        """The purposes in force; of somebody unknown none."""
        subject_id = await self._subject(visitor_id, create=False)
        if subject_id is None:
            return dict.fromkeys(("personalization", "analytics", "offers"), False)
        held: dict[str, bool] = (await self._checkout("GET", f"/v1/consent/{subject_id}"))[
            "purposes"
        ]
        return held

    async def standing(self, about: AboutShopper) -> dict[str, Any]:
        """What was agreed to and which segments that leads to; both None of somebody unknown."""
        subject_id = await self._subject(about.visitor_id, create=False)
        if subject_id is None:
            return {"consent": None, "segments": None}
        consent = await self._checkout("GET", f"/v1/consent/{subject_id}")
        path = f"/v1/subjects/{subject_id}/segments"
        segments = await self._checkout("GET", path, gpc="1" if about.gpc else None)
        return {"consent": consent, "segments": segments}

    async def say(self, said: SaidOfConsent) -> dict[str, Any] | None:
        """Record the word; None where somebody unknown says no, of whom nothing is kept."""
        subject_id = await self._subject(said.visitor_id, create=said.agreed)
        if subject_id is None:
            return None
        offers = said.agreed and said.offers
        purposes = {"personalization": said.agreed, "analytics": said.agreed, "offers": offers}
        word = {"purposes": purposes, "source": SOURCE, "wording_version": WORDING_VERSION}
        return await self._checkout("PUT", f"/v1/consent/{subject_id}", word)

    async def erase(self, visitor_id: str) -> dict[str, Any]:
        """The signed receipt. Raises a 404 problem where nothing is held."""
        subject_id = await self._subject(visitor_id, create=False)
        if subject_id is None:
            raise ApiProblem(404, "The shop knows nothing of this shopper.")
        answer = await self.send("DELETE", f"/v1/subjects/{subject_id}", self._keys.admin)
        self._visitors.discard(visitor_id)
        return granted(answer)

    async def decide(self, body: bytes, gpc: str | None) -> Answer:
        """The decision for a page's request, as the route answers it."""
        return await self.send("POST", DECIDE, self._keys.checkout, body, gpc=gpc)

    async def as_admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """What the shop's staff does; the key never leaves this server."""
        sent = b"" if body is None else json.dumps(body).encode()
        return await self.send(method, path, self._keys.admin, sent)

    async def as_till(self, path: str, body: bytes) -> Answer:
        """What the shop's till asks of coupons."""
        return await self.send("POST", path, self._keys.checkout, body)

    async def _subject(self, visitor_id: str, *, create: bool) -> str | None:
        if not self.serves(visitor_id):
            raise ApiProblem(403, "This page may not speak for that visitor.")
        asked = json.dumps({"visitor_id": visitor_id, "create": create}).encode()
        answer = await self.send("POST", "/v1/subjects/resolve", self._keys.checkout, asked)
        return None if answer[0] == 404 else str(granted(answer)["subject_id"])

    async def _checkout(
        self, method: str, path: str, body: dict[str, Any] | None = None, gpc: str | None = None
    ) -> dict[str, Any]:
        sent = b"" if body is None else json.dumps(body).encode()
        return granted(await self.send(method, path, self._keys.checkout, sent, gpc=gpc))

    async def send(
        self, method: str, path: str, api_key: str, body: bytes = b"", *, gpc: str | None = None
    ) -> Answer:
        """Call a route with a key, within the process; status and body of the answer. A query may
        follow the path."""
        path, _, query = path.partition("?")
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
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode("latin-1"),
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

        await self._app(scope, receive, send)
        status = next(m["status"] for m in sent if m["type"] == "http.response.start")
        return status, b"".join(m.get("body", b"") for m in sent)


def granted(answer: Answer) -> dict[str, Any]:
    """The body of a good answer. Raises what the route said otherwise as a problem."""
    status, body = answer
    told: dict[str, Any] = json.loads(body)
    if status >= 400:
        raise ApiProblem(status, str(told.get("detail", "The gateway refused.")))
    return told


def add_routes(router: APIRouter, shop: ShopServer, state: Path) -> None:
    """The shop's own endpoints; `state` is where the gateway's key of receipts lies."""

    @router.post("/api/standing")
    async def standing(request: Request) -> Response:
        body = await read_json_body(request, _LIMIT_BYTES)
        return json_answer(await shop.standing(parse(AboutShopper, body)))

    @router.post("/api/consent")
    async def consent(request: Request) -> Response:
        body = await read_json_body(request, _LIMIT_BYTES)
        return json_answer(await shop.say(parse(SaidOfConsent, body)))

    @router.post("/api/erase")
    async def erase(request: Request) -> Response:
        body = await read_json_body(request, _LIMIT_BYTES)
        receipt = await shop.erase(parse(AboutShopper, body).visitor_id)
        return json_answer({"signed": receipt, "state": str(state)})


def json_answer(content: object) -> Response:
    """What a page may not keep."""
    headers = {"Cache-Control": "no-store"}
    return Response(json.dumps(content), media_type="application/json", headers=headers)
