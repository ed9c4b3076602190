"""The versions of a document that a merchant writes as a whole: who wrote which, and what changed
from one to another. Rules and offers are read back alike."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from serving.api.auth import authenticate
from serving.api.bodies import YAML
from serving.api.documents import VersionTold, answered, told
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, documented
from serving.state.document_diff import differences
from serving.state.documents import Document
from serving.yaml_text import as_yaml

MOST_HISTORY = 200
Number = Annotated[int, Query(ge=1, le=10**9)]


async def _by_admin(request: Request) -> None:
    # Before the query is looked at: a stranger is told nothing of what it should be.
    authenticate(request, gateway_of(request), "admin")


ADMIN = [Depends(_by_admin)]


class History(BaseModel):
    """Versions, the newest first."""

    versions: list[VersionTold]


class ChangeTold(BaseModel):
    """What stands at `path` in the one version and in the other; null: nothing."""

    path: str
    before: Any
    after: Any


class Difference(BaseModel):
    """What changed from version `before` to version `after`."""

    before: int
    after: int
    changes: list[ChangeTold]


def read_version(
    request: Request,
    name: str,
    version: int | None,
    book_of: Callable[[Document | None], BaseModel],
    answer: Callable[[Document | None], Response],
) -> Response:
    """The latest version of the document `name`, or `version`; `answer` as JSON, or what `book_of`
    makes of it as YAML. Raises a 404 problem."""
    document = gateway_of(request).control.document(name, version)
    if document is None and version is not None:
        raise _no_version(name, version)
    if request.headers.get("accept", "").partition(";")[0].strip().lower() in YAML:
        return Response(as_yaml(book_of(document)), media_type=YAML[0])
    return answer(document)


def add_version_routes(router: APIRouter, name: str) -> None:
    """`GET /v1/{name}/history` and `/diff` of the document `name`."""
    shared: dict[str, Any] = {
        "openapi_extra": {"security": [{"api_key": []}]},
        "tags": [name],
        "dependencies": ADMIN,
    }

    async def get_history(
        request: Request,
        before: Number | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST_HISTORY)] = 50,
    ) -> Response:
        """The newest versions, or those below `before`. A version is never changed; writing an old
        one again goes back to it."""
        heads = gateway_of(request).control.document_history(name, before, limit)
        return answered(History(versions=[told(head) for head in heads]))

    async def get_difference(
        request: Request,
        before: Annotated[int, Query(ge=0, le=10**9)] = 0,
        after: Number | None = None,
    ) -> Response:
        """What changed from `before` (0: the beginning) to `after` (the latest), part by part."""
        return answered(_difference(gateway_of(request), name, before, after))

    routes: tuple[tuple[str, str, type[BaseModel], Callable[..., Awaitable[Response]]], ...] = (
        ("history", f"Who wrote the {name}", History, get_history),
        ("diff", f"Compare two versions of the {name}", Difference, get_difference),
    )
    for path, summary, model, act in routes:
        router.add_api_route(
            f"/v1/{name}/{path}",
            act,
            methods=["GET"],
            name=f"{act.__name__}_of_{name}",
            summary=summary,
            response_model=model,
            responses=documented(401, 403, 404, 422, 503),
            **shared,
        )


def _difference(gateway: Gateway, name: str, before: int, after: int | None) -> Difference:
    new = gateway.control.document(name, after)
    if new is None:
        raise _no_version(name, after or 0)
    held = gateway.control.document(name, before) if before else None
    if held is None and before:
        raise _no_version(name, before)
    found = differences(None if held is None else held.body, new.body)
    changes = [ChangeTold(path=one.path, before=one.before, after=one.after) for one in found]
    return Difference(before=before, after=new.version, changes=changes)


def _no_version(name: str, version: int) -> ApiProblem:
    return ApiProblem(404, f"There is no version {version} of the {name}.")
