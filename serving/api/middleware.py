"""Around every request: what is counted and logged, the headers that protect browsers, and the
one place where an unforeseen error becomes an answer that gives nothing away."""

import logging
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.one_write import WHOLE
from serving.api.problems import ApiProblem
from serving.monitoring.http import HttpMetrics

log = logging.getLogger("serving.requests")

PROTECTING = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_OK = 200
_CLIENT_GONE = 499
_TOO_MANY = 429


class Guard:
    """ASGI middleware; its only state is what it counts."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                held = message.setdefault("headers", [])
                named = {name.lower() for name, _ in held}
                held.extend(one for one in PROTECTING if one[0] not in named)
                self._record(scope, status, time.perf_counter() - began)
            elif message["type"] == WHOLE:
                status = _OK
                self._record(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except ClientDisconnect:
            self._record(scope, _CLIENT_GONE, time.perf_counter() - began)
        except Exception:
            log.exception("a request failed", extra={"fields": {"route": route_of(scope)}})
            if status == 0:
                failed = ApiProblem(500, "Something went wrong here; it was logged.")
                await failed.response()(scope, receive, guarded)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.observe(scope["method"], route, status, seconds)
        # What is refused for want of room is counted; a line for each would cost more than the
        # refusal, just when there is no time to lose.
        level = logging.DEBUG if status < 400 or status == _TOO_MANY else logging.INFO
        if log.isEnabledFor(level):
            fields = {"route": route, "status": status, "ms": round(seconds * 1_000, 2)}
            log.log(level, "request", extra={"fields": fields})


def route_of(scope: Scope) -> str | None:
    """The template of the route that matched, never the path, which may name a subject."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None
