"""Reading a request's body: its kind, its size and its time while it arrives, and its model, parsed
once."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from contract.errors import UserError
from contract.fields import in_lines
from serving.api.arrivals import patience_of
from serving.api.problems import ApiProblem, invalid
from serving.yaml_text import yaml_body

YAML = ("application/yaml", "application/x-yaml", "text/yaml")
Model = TypeVar("Model", bound=BaseModel)


async def read_json_body(request: Request, limit: int, *, as_text: bool = False) -> bytes:
    """The raw body, at most `limit` bytes, also when it is sent `as_text`.

    Raises a 415, 413 or 408 problem.
    """
    kind = _kind(request.headers.get("content-type", ""))
    if kind != "application/json" and not (as_text and kind == "text/plain"):
        raise ApiProblem(415, "Send the body as Content-Type: application/json.")
    if patience_of(request.scope) is None:  # it is there: one step less
        return await _arrived(request, limit)
    return await _read(request, limit)


@lru_cache(maxsize=64)
def _kind(said: str) -> str:
    return said.partition(";")[0].strip().lower()


async def read_written_body(request: Request, limit: int) -> bytes:
    """The body as JSON of what may also be sent as YAML. Raises a 415, 413, 408 or 400 problem."""
    if _kind(request.headers.get("content-type", "")) not in YAML:
        return await read_json_body(request, limit)
    try:
        return json.dumps(yaml_body(await _read(request, limit)), allow_nan=False).encode()
    except (UserError, ValueError, TypeError) as error:
        raise ApiProblem(400, f"The body is not plain YAML: {error}") from None


async def _read(request: Request, limit: int) -> bytes:
    patience_s = patience_of(request.scope)
    if patience_s is None:
        return await _arrived(request, limit)
    try:
        async with asyncio.timeout(patience_s):
            return await _arrived(request, limit)
    except TimeoutError:
        told = "The body took too long to arrive; send it again."
        raise ApiProblem(408, told, headers={"Connection": "close"}) from None


async def _arrived(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size, more = 0, True
    while more:  # as Request.stream does, without a generator
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> ApiProblem:
    return ApiProblem(
        413, f"The body is larger than {limit} bytes.", headers={"Connection": "close"}
    )


def parse(model: type[Model], body: bytes) -> Model:
    """`body` as a `model`. Raises a 400 problem when it is not JSON, 422 when it does not fit."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def parse_document(model: type[Model], body: bytes) -> Model:
    """`parse`, for what is kept: a name that stands twice, of which only the last would count, and
    control characters in a text are a 422 problem as well."""
    with suppress(ValueError, RecursionError):  # no JSON: what `parse` says of it is better
        json.loads(body, object_pairs_hook=_checked)
    return parse(model, body)


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ApiProblem(422, f"{name}: stands twice in one object.")
        made[name] = value
        for text in (name, *_texts(value)):
            try:
                in_lines(text)
            except ValueError as error:
                raise ApiProblem(422, f"{name!r}: {error}.") from None
    return made


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def says_gpc(request: Request) -> bool:
    """Whether the browser sends Global Privacy Control."""
    return request.headers.get("sec-gpc", "").strip() == "1"
