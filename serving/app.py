"""The HTTP application of a gateway: its routes, its middleware, and its life."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from serving.api import (
    catalogue,
    consent,
    coupons,
    dashboard_page,
    decide,
    docs_page,
    documentation,
    events,
    experiments,
    explanations,
    health,
    kpis,
    offers,
    offers_check,
    reviews,
    rules,
    rules_check,
    sdk,
    segments,
    subjects,
)
from serving.api.cors import Cors
from serving.api.gateway import Gateway
from serving.api.hot_route import Gate, GatewayApp, HotRoute
from serving.api.middleware import Guard
from serving.api.problems import ApiProblem, on_http_exception, on_invalid_query, on_problem
from serving.beside import running_beside
from serving.closing import close_gateway
from serving.state.sqlite_writer import StoreError


def create_app(gateway: Gateway, *, follow_pointer: bool = True) -> FastAPI:
    """The HTTP application of `gateway`, which it closes when it shuts down.

    `follow_pointer`: swap to another release when `releases/current` names one.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gateway.impressions.start()
        if gateway.feed is not None:
            gateway.feed.start()
        documentation.document(app)  # now, so that nobody has to wait for it
        try:
            async with running_beside(gateway, follow_pointer=follow_pointer):
                yield
        finally:
            await close_gateway(gateway)

    app = GatewayApp(
        title="Tillwise",
        version=_version(),
        description="Checkout recommendations: decisions, behaviour, consent.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # its answers would name whatever host the caller said
    )
    app.state.gateway = gateway
    app.openapi = lambda: documentation.document(app)  # type: ignore[method-assign]
    for resource in (
        *(decide, offers, offers_check, coupons, explanations, events, catalogue, subjects),
        *(segments, consent, rules, rules_check, experiments, kpis, reviews, health, docs_page),
        *(sdk, dashboard_page),
    ):
        app.include_router(resource.router)
    app.add_exception_handler(ApiProblem, on_problem)
    app.add_exception_handler(StoreError, on_problem)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_invalid_query)
    _add_middleware(app, gateway)
    return app


def _add_middleware(app: GatewayApp, gateway: Gateway) -> None:
    settings = gateway.settings
    (route,) = decide.router.routes
    hot = HotRoute(route, decide.decide)
    app.hot, app.hot_path = Guard(hot, gateway.metrics), hot.path
    app.add_middleware(Gate, hot=hot)  # the innermost
    if settings.cors_origins:
        app.add_middleware(
            Cors,
            allow_origins=list(settings.cors_origins),
            # What a page may do. PATCH and DELETE take an admin key, which belongs in no page.
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["Retry-After", "Idempotent-Replay"],
            max_age=600,
        )
    app.add_middleware(Guard, metrics=gateway.metrics)


def _version() -> str:
    try:
        return version("tillwise")
    except PackageNotFoundError:
        return "0"
