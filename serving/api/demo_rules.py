"""`/demo/rules`: what the page on which the demo's rules and offers are written asks its shop's
server. That one holds the admin key; the page sends text and is told what became of it."""

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, Strict

from contract.errors import UserError
from contract.offers import OfferBook
from contract.rules import RuleBook
from serving.api.bodies import parse, read_json_body
from serving.api.demo_shop import ShopServer, granted, json_answer
from serving.api.problems import ApiProblem
from serving.yaml_text import as_yaml, yaml_body

NAMES: dict[str, type[BaseModel]] = {"rules": RuleBook, "offers": OfferBook}
Samples = Callable[[], Awaitable[list[dict[str, Any]]]]
Book = TypeVar("Book", bound=BaseModel)


class Draft(BaseModel):
    """Rules or offers as YAML."""

    model_config = ConfigDict(extra="forbid")

    text: str


class Written(Draft):
    """A draft to be saved in place of `version`."""

    version: Annotated[int, Strict(), Field(ge=0)]
    note: str = ""


def add_rule_routes(
    router: APIRouter, shop: ShopServer, samples: Samples, limit_bytes: int
) -> None:
    """The page's endpoints. `samples` gives the checkouts that a dry run is to be tried on where
    the draft names none."""

    @router.get("/api/written/{name}")
    async def read(name: Literal["rules", "offers"]) -> Response:
        held = granted(await shop.as_admin("GET", f"/v1/{name}"))
        return json_answer(_told(name, held))

    @router.put("/api/written/{name}")
    async def save(name: Literal["rules", "offers"], request: Request) -> Response:
        written = parse(Written, await read_json_body(request, limit_bytes))
        body = _body(written.text) | {"version": written.version, "note": written.note}
        held = granted(await shop.as_admin("PUT", f"/v1/{name}", body))
        return json_answer(_told(name, held))

    @router.post("/api/dry-run/{name}")
    async def dry_run(name: Literal["rules", "offers"], request: Request) -> Response:
        draft = parse(Draft, await read_json_body(request, limit_bytes))
        body = _body(draft.text)
        body.setdefault("samples", await samples())
        return json_answer(granted(await shop.as_admin("POST", f"/v1/{name}/check", body)))


def _told(name: str, held: dict[str, Any]) -> dict[str, Any]:
    """What is in force: as text to edit, and as the page reads it."""
    model = NAMES[name]
    said = {field: held[field] for field in model.model_fields if field in held}
    book = model.model_validate_json(json.dumps(said))
    return {**held, "text": as_yaml(book) if book.model_dump(exclude_defaults=True) else ""}


def _body(text: str) -> dict[str, Any]:
    """The document of a YAML text; an empty one means that there is nothing. Raises a 400
    problem."""
    try:
        body = yaml_body(text)
        json.dumps(body, allow_nan=False)
    except (UserError, ValueError, TypeError) as error:
        raise ApiProblem(400, f"This is not plain YAML: {error}") from None
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise ApiProblem(400, "Write a document with a list under `rules:` or `offers:`.")
    return body
