"""What is refused, as RFC 9457 problems: every error of the gateway has this one shape."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException

from contract.events import looks_like_card
from serving.state.sqlite_writer import StoreError

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 20
_OF_KINDS = ("discount", "actions")  # fields of which each value is of one of several kinds

TITLES: dict[int, str] = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid content",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
}


class FieldProblem(BaseModel):
    """What is wrong with one field; `field` is its path in the body."""

    field: str
    message: str


class Problem(BaseModel):
    """An error as RFC 9457 has it; `detail` is one line that a person can act on."""

    model_config = ConfigDict(extra="forbid")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
    # Of coupons: why, in one word, and the total that would be right where another was sent.
    rejection_reason: str | None = None
    due: int | None = None


class ApiProblem(Exception):  # noqa: N818 - it becomes a problem response
    """Refuses the request in hand with this problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: list[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
        rejection_reason: str | None = None,
        due: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            title=TITLES.get(status, "Error"),
            status=status,
            detail=detail,
            errors=errors,
            rejection_reason=rejection_reason,
            due=due,
        )
        self.headers = dict(headers or {})

    @cached_property
    def _body(self) -> str:
        return self.problem.model_dump_json(exclude_none=True)

    def response(self) -> Response:
        """The answer that says so, a new one each time."""
        return Response(
            self._body,
            self.problem.status,
            self.headers,
            MEDIA_TYPE,
        )


def invalid(error: ValidationError) -> ApiProblem:
    """The problem for a body that a model refused; it repeats no value of the body."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return ApiProblem(400, f"The body is not JSON: {_reason(found[0])}.")
    fields = [
        FieldProblem(field=path_of(one["loc"]), message=_reason(one))
        for one in found
        if not _follows(one, found)
    ]
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    first = fields[0]
    return ApiProblem(
        422, f"{first.field}: {first.message}{more}", errors=list(fields[:_MOST_ERRORS])
    )


def _follows(error: Any, found: Sequence[Any]) -> bool:
    """Whether a list is too short only because of what is wrong with something in it."""
    place = error["loc"]
    return error["type"] == "too_short" and any(
        len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in found
    )


def path_of(location: Iterable[int | str]) -> str:
    """`("cart", "items", 0, "price")` as `cart.items[0].price`. Of a part that is of one of several
    kinds pydantic names the kind as well, where no field of that name is: it is left out."""
    text, last = "", ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        # The name of an unknown field is the caller's own text: cut it.
        text += "" if last in _OF_KINDS else f".{_printable(part)}"
        last = part
    return without_card(text.removeprefix(".")) or "body"


def without_card(text: str) -> str:
    """`text`, unless it seems to hold a card number: that must reach no answer and no log."""
    return "(left out)" if looks_like_card(text) else text


def _printable(text: str) -> str:
    return text[:64].encode("ascii", "backslashreplace").decode()


def _reason(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Invalid JSON: ")
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] == "too_long":  # pydantic speaks of a Tuple
        most = re.search(r"at most (\d+)", message)
        unit = "lines" if tuple(error["loc"]) == ("cart", "items") else "items"
        message = f"at most {most[1]} {unit}" if most else message
    if error["type"] == "union_tag_not_found":
        return "its kind is not said"
    if error["type"] == "union_tag_invalid":  # whose message repeats what was sent
        _, _, kinds = message.rpartition("expected tags: ")
        return f"its kind is not one of {kinds}"
    if error["type"] == "string_type":  # of YAML, where NO is false and 123 a number
        return "must be a text, in quotes if need be"
    if error["type"] == "too_short":
        least = re.search(r"at least (\d+ items?)", message)
        message = f"at least {least[1]}" if least else message
    return without_card(message.encode("ascii", "backslashreplace").decode())


async def on_problem(request: Request, error: Exception) -> Response:
    """For FastAPI: an `ApiProblem`, or the store's failure, as an answer."""
    if isinstance(error, StoreError):
        refused = ApiProblem(
            503, "The store can not be reached; try again.", headers={"Retry-After": "1"}
        )
        return refused.response()
    assert isinstance(error, ApiProblem)
    return error.response()


async def on_invalid_query(request: Request, error: Exception) -> Response:
    """For FastAPI: what is wrong with a query, as with a body."""
    assert isinstance(error, RequestValidationError)
    fields = [
        FieldProblem(field=path_of(one["loc"][1:]), message=_reason(one)) for one in error.errors()
    ]
    first = fields[0]
    detail = f"{first.field}: {first.message}"
    return ApiProblem(422, detail, errors=fields[:_MOST_ERRORS]).response()


async def on_http_exception(request: Request, error: Exception) -> Response:
    """For Starlette's own 404 and 405."""
    assert isinstance(error, HTTPException)
    details = {
        404: "There is nothing at this path; see /docs.",
        405: "This path does not take this method; see the Allow header.",
    }
    status = error.status_code
    detail = details.get(status, TITLES.get(status, "Error"))
    return ApiProblem(status, detail, headers=error.headers).response()


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem answers of a route, for its documentation."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": TITLES[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }
