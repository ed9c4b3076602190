"""The short way to `POST /v1/checkout/decide`: past FastAPI's router, dependency solver and exit
stacks, and past those layers of middleware that do nothing for it. Everything else, its
documentation included, is FastAPI's.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.one_write import WHOLE
from serving.api.problems import ApiProblem, on_problem
from serving.state.sqlite_writer import StoreError

_FROM_A_PAGE = b"origin"


class _Found(Headers):
    """Headers that are asked for by a few names, each found at once. Names in a scope are in small
    letters; of one that stands twice the first counts, as always."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._first = dict(reversed(scope["headers"]))

    def get(self, key: str, default: Any = None) -> Any:
        """See Mapping."""
        said = self._first.get(key.encode())
        return default if said is None else said.decode("latin-1")


class _HotRequest(Request):
    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._headers = _Found(scope)


class HotRoute:
    """ASGI application: calls `endpoint` as `route`, whatever the path is."""

    def __init__(
        self, route: BaseRoute, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> None:
        self.path: str = getattr(route, "path")  # noqa: B009 - BaseRoute does not declare it
        self._route, self._endpoint = route, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self._route  # by which requests are counted
        request = _HotRequest(scope, receive)
        try:
            answer = await self._endpoint(request)
        except (ApiProblem, StoreError) as error:
            answer = await on_problem(request, error)
        await answer(scope, receive, send)


class Gate:
    """ASGI middleware, innermost: the same short way for what came through the other layers."""

    def __init__(self, app: ASGIApp, hot: HotRoute) -> None:
        self._app, self._hot = app, hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._hot if _is_hot(scope, self._hot.path) else self._app)(scope, receive, send)


class GatewayApp(FastAPI):
    """FastAPI with a way of its own for one route. What comes from a page goes through all layers
    of middleware, because of CORS."""

    hot: ASGIApp | None = None  # the HotRoute, inside the layers that it needs
    hot_path = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            self.hot is not None
            and _is_hot(scope, self.hot_path)
            and _FROM_A_PAGE not in dict(scope["headers"])
        ):
            scope["app"] = self
            scope[WHOLE] = scope.get("state", {}).get(WHOLE)  # no layer in between adds headers
            await self.hot(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _is_hot(scope: Scope, path: str) -> bool:
    return bool(
        scope["type"] == "http"
        and scope["method"] == "POST"
        and scope["path"] == path
        and not scope.get("root_path")
    )
