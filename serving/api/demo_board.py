"""What the demo's dashboard asks its shop's server, which holds the admin key: key figures,
experiments and review items, and nothing else."""

import json
import re
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.api.bodies import read_json_body
from serving.api.demo_shop import ShopServer
from serving.api.problems import MEDIA_TYPE, ApiProblem

BOARD: Final = "/api/board"
_READ = re.compile(r"kpis|reviews|drift|experiments(/[a-z0-9_-]{1,64}/report)?")
_WRITTEN = re.compile(r"reviews/[\w-]{1,64}/(acknowledge|close)")


def add_board_routes(router: APIRouter, shop: ShopServer, limit_bytes: int) -> None:
    """The page's endpoints."""

    @router.get(BOARD + "/{path:path}")
    async def read(path: str, request: Request) -> Response:
        if _READ.fullmatch(path) is None:
            raise ApiProblem(404, "The dashboard does not ask for this.")
        query = f"?{request.url.query}" if request.url.query else ""
        return _told(*await shop.as_admin("GET", f"/v1/{path}{query}"))

    @router.post(BOARD + "/{path:path}")
    async def write(path: str, request: Request) -> Response:
        if _WRITTEN.fullmatch(path) is None:
            raise ApiProblem(404, "The dashboard does not do this.")
        body = await read_json_body(request, limit_bytes)
        told = json.loads(body) if body else None
        return _told(*await shop.as_admin("POST", f"/v1/{path}", told))


def _told(status: int, body: bytes) -> Response:
    kind = "application/json" if status < 400 else MEDIA_TYPE
    return Response(body, status, {"Cache-Control": "no-store"}, kind)
