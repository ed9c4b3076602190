"""The short way to `POST /v1/checkout/decide`: past FastAPI's router, dependency solver and exit
stacks, which this route uses nothing of. Everything else, its documentation included, is FastAPI's.
"""

from collections.abc import Awaitable, Callable

from fastapi import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.problems import ApiProblem, on_problem
from serving.state.sqlite_writer import StoreError


class HotRoute:
    """ASGI middleware, innermost: calls `endpoint` for POST on the path of `route`."""

    def __init__(
        self, app: ASGIApp, route: BaseRoute, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> None:
        self._app, self._route, self._endpoint = app, route, endpoint
        self._path: str = getattr(route, "path")  # noqa: B009 - BaseRoute does not declare it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hot = (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["path"] == self._path
            and not scope.get("root_path")
        )
        if not hot:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route  # by which requests are counted
        request = Request(scope, receive)
        try:
            answer = await self._endpoint(request)
        except (ApiProblem, StoreError) as error:
            answer = await on_problem(request, error)
        await answer(scope, receive, send)
