"""Reading a request's body: its kind, its size while it arrives, and its model, parsed once."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from serving.api.problems import ApiProblem, invalid

Model = TypeVar("Model", bound=BaseModel)


async def read_json_body(request: Request, limit: int, *, as_text: bool = False) -> bytes:
    """The raw body, at most `limit` bytes, also when it is sent `as_text`.

    Raises a 415 or 413 problem.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (as_text and kind == "text/plain"):
        raise ApiProblem(415, "Send the body as Content-Type: application/json.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


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


def says_gpc(request: Request) -> bool:
    """Whether the browser sends Global Privacy Control."""
    return request.headers.get("sec-gpc", "").strip() == "1"
