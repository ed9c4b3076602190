"""Questions that browsers ask before a call from another origin. Starlette answers them outside of
all routes, in plain text; here they have a label of their own and are refused like all else."""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api.problems import ApiProblem


@dataclass(frozen=True)
class _Preflights:
    """What stands in a scope for the route that no preflight reaches."""

    path: str = "preflight"


class Cors(CORSMiddleware):
    """Starlette's, for what it lets through; `expose_headers` and the like are given to it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                scope["route"] = _Preflights()  # by which requests are counted
        await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """See CORSMiddleware."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refused = ApiProblem(
            answer.status_code,
            f"{bytes(answer.body).decode()}; allowed are the origins of "
            "TILLWISE_CORS_ORIGINS and what this API takes.",
            # What browsers and caches read; the length is the problem's own.
            headers={
                name: value
                for name, value in answer.headers.items()
                if name not in ("content-length", "content-type")
            },
        )
        return refused.response()
