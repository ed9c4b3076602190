"""Wiring: the parts of a gateway put together, its HTTP application, and what runs beside it."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from contract.clock import Clock
from contract.experiments import Assigner
from contract.exploration import ExploreSettings
from contract.lists import ListSettings
from contract.rule_set import RuleSet
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
from serving.api.page_limits import PageLimits
from serving.api.problems import ApiProblem, on_http_exception, on_invalid_query, on_problem
from serving.api.subjects import item_names
from serving.control import open_control, open_ledger, secrets_of
from serving.decision import experiment_arms, rule_book
from serving.decision.checkout import segments_of
from serving.decision.decide import Decider
from serving.decision.limits import DecisionSettings
from serving.decision.offer_pacing import OfferPacing
from serving.decision.offer_shelf import DOCUMENT, CompiledBook, OfferShelf, compiled
from serving.decision.offer_tokens import OfferSigner
from serving.decision.shadow import Shadow
from serving.decision.tokens import TokenSigner
from serving.decision.watch import ReleaseWatch
from serving.inference.breaker import BreakerSettings
from serving.inference.catalogue_overlay import CatalogueOverlay
from serving.inference.follower import Follower
from serving.inference.guard import Guard as ReleaseGuard
from serving.inference.guard import GuardLimits
from serving.inference.releases import LiveRelease
from serving.inference.wanted import load_last_good
from serving.ingest.accept import Ingest
from serving.ingest.impressions import ImpressionLog
from serving.ingest.retention import enforce_when_due
from serving.ingest.rights import Rights, Stores
from serving.ingest.subjects import Subjects
from serving.ingest.traffic import Traffic
from serving.monitoring.anonymous import FILE as ANONYMOUS
from serving.monitoring.anonymous import AnonymousTally
from serving.monitoring.decisions import DecisionMetrics
from serving.monitoring.http import HttpMetrics
from serving.monitoring.offer_pacing import PacingMetrics
from serving.monitoring.releases import ReleaseMetrics
from serving.monitoring.stores import StoreMetrics
from serving.monitoring.tracing import open_tracing
from serving.settings import Settings
from serving.state.coupon_holders import CouponHolders
from serving.state.followed_document import FollowedDocument
from serving.state.receipts import ReceiptSigner
from serving.state.sealing import SubjectKeys
from serving.state.sqlite_writer import StoreError
from serving.stores import open_stores

if TYPE_CHECKING:
    from serving.inference.triton import TritonBackends
    from serving.state.review_webhook import ReviewWebhook, WebhookPlace
    from serving.state.voucherify import VoucherifyDelivery

log = logging.getLogger(__name__)

# How long what one gateway was told of an item, or an erasure by another process, may take to be
# known to the others, at most.
_FOLLOW_SECONDS = 0.5
_ANONYMOUS_SECONDS = 5.0
_OUTSIDE_SECONDS = 1.0
_OBJECTS_TO_COLLECT = 10_000
_RETENTION_SECONDS = 600.0  # how often it is looked whether the daily job is due
_PACING_SECONDS = 5.0  # how often it is looked whether the price of spending is to be solved anew
_UNFINISHED_SECONDS = 5.0  # how often what is left of erasures is tried again


async def open_gateway(settings: Settings, clock: Clock, release_id: str | None = None) -> Gateway:
    """A gateway that is ready to serve `release_id`, or else the live one.

    Raises UserError when there is no release or it is refused. The caller holds the StateFolder.
    """
    _webhook_place(settings)  # what is wrong with it is said before anything is opened
    registry = CollectorRegistry()
    counted = DecisionMetrics(registry)
    triton = _triton(settings, counted)
    live, problem = await _release(settings, counted, triton, release_id)
    secrets = secrets_of(settings)
    control = open_control(settings, secrets, clock)
    opened = open_stores(settings, SubjectKeys(control))
    StoreMetrics(registry, opened.feed)
    # What was restored lives as long as the process; a collection that walks over it stops every
    # decision for tens of milliseconds and finds nothing.
    gc.collect()
    gc.freeze()
    # What decisions make is gone with their last reference. Looked for after every 700 objects, as
    # is usual, rings of objects that hold one another would cost an eighth of each decision.
    gc.set_threshold(_OBJECTS_TO_COLLECT)
    overlay = CatalogueOverlay(control.items_changed_since)
    overlay.follow([live.current])
    live.overlay = overlay.lay
    recognised = Subjects(control, secrets, clock)
    tracing = open_tracing(settings.otlp_endpoint)
    signer = TokenSigner(secrets.derive("attribution"), clock)
    ledger, holders = open_ledger(settings), CouponHolders(control)
    shelf = OfferShelf(
        *(FollowedDocument(control, DOCUMENT, compiled, CompiledBook()), ledger, holders),
        OfferSigner([secrets.derive("offer", one) for one in secrets.masters], clock),
        secrets.derive("holdout").hex(),
        timedelta(minutes=settings.offer_minutes),
        ledger.pacing,
        OfferPacing(ledger.pacing, PacingMetrics(registry)),
    )
    shelf.follow_book()
    ruled = FollowedDocument(control, rule_book.DOCUMENT, rule_book.compiled, RuleSet())
    ruled.follow()
    tested = FollowedDocument(
        control, experiment_arms.DOCUMENT, experiment_arms.assigner_of, Assigner()
    )
    tested.follow()
    decider = Decider(
        *(live, opened.features, clock, signer, _decision_settings(settings), counted),
        *(tracing, shelf, ruled),
    )
    counted.in_flight.set_function(lambda: decider.admission.active)
    measured = ReleaseMetrics(registry)
    lost = counted.impressions_lost.inc
    ingest = Ingest(
        *(recognised, opened.event_log, opened.told, clock),
        lambda item_id: live.current.category(item_id),
    )
    stores = Stores(control, opened.event_log, opened.features)
    receipts = ReceiptSigner(control.service_key("receipt"))
    shadow = Shadow(
        *(live, opened.features, clock, signer, measured),
        busy=lambda: decider.admission.active > 0,
        rules=ruled,
        lists=decider.settings.lists,
    )

    def forget_computed() -> None:
        decider.query_vectors.clear()
        shadow.forget()

    rights = Rights(
        *(stores, ingest, clock, receipts, lambda found: item_names(live, found)),
        lambda state, now_us: segments_of(
            state, now_us, None, live.current.rules, live.current.learned
        ),
        forget_computed,
        lambda subject_ids, decision_ids: holders.reservations(
            ledger, subject_ids, decision_ids, clock.now()
        ),
    )
    try:
        await rights.finish()
    except StoreError as error:  # what is left opens no more, and is tried again
        log.warning("erasures are not finished: %s", error)
    return Gateway(
        settings=settings,
        clock=clock,
        secrets=secrets,
        control=control,
        event_log=opened.event_log,
        features=opened.features,
        feed=opened.feed,
        live=live,
        follower=await _watched(settings, live, decider, measured, problem),
        shadow=shadow,
        overlay=overlay,
        decider=decider,
        ledger=ledger,
        holders=holders,
        shelf=shelf,
        rules=ruled,
        experiments=tested,
        subjects=recognised,
        ingest=ingest,
        stores=stores,
        rights=rights,
        answer_key=control.service_key("answers"),
        impressions=ImpressionLog(recognised, opened.event_log, settings.impression_queue, lost),
        traffic=Traffic(settings.internal_networks),
        page_limits=PageLimits(
            settings.page_requests_per_minute,
            settings.page_events_per_minute,
            settings.page_new_visitors_per_minute,
        ),
        registry=registry,
        metrics=HttpMetrics(registry),
        anonymous=AnonymousTally(settings.state / ANONYMOUS),
        tracing=tracing,
        triton=triton,
    )


async def _release(
    settings: Settings,
    counted: DecisionMetrics,
    triton: "TritonBackends | None",
    release_id: str | None,
) -> tuple[LiveRelease, str | None]:
    """The release to begin with and, where that is not the live one, what is wrong with it."""
    live = LiveRelease(
        settings.releases,
        settings.models,
        on_batch=counted.batch,
        breaker=BreakerSettings() if triton is None else BreakerSettings(cool_off_s=0.5),
        backends=triton,
    )
    if release_id is None:
        return live, await load_last_good(live)
    await live.load_or_keep(release_id)
    return live, None


async def _watched(
    settings: Settings,
    live: LiveRelease,
    decider: Decider,
    measured: ReleaseMetrics,
    problem: str | None,
) -> Follower:
    """Who follows the releases' folder, and judges by the decisions that are made."""
    guard = ReleaseGuard(_guard_limits(settings))
    decider.watch = ReleaseWatch(live, guard, measured)
    follower = Follower(
        live,
        guard,
        measured,
        healthy_after_s=settings.release_healthy_seconds,
        guarding=settings.guard,
        problem=problem,
    )
    if problem is not None:
        await follower.note_refused()
    return follower


def _triton(settings: Settings, counted: DecisionMetrics) -> "TritonBackends | None":
    if settings.triton_url is None:
        return None
    # Here, because gRPC takes a while to import and most gateways do without it.
    from serving.inference.triton import TritonBackends
    from serving.inference.triton_client import TritonClient, address_of
    from serving.inference.triton_watch import TritonSettings

    return TritonBackends(
        TritonClient(address_of(settings.triton_url), settings.triton_tls),
        TritonSettings(control=settings.triton_control),
        counted.model_server,
    )


def _decision_settings(settings: Settings) -> DecisionSettings:
    return DecisionSettings(
        max_full=min(settings.max_full_decisions, settings.max_total_decisions),
        max_total=settings.max_total_decisions,
        query_vectors=settings.query_vectors,
        lists=ListSettings(
            diversity=settings.list_diversity,
            category_cap=settings.list_category_cap,
            margin=settings.list_margin,
            most_loss=settings.list_most_loss,
        ),
        explore=ExploreSettings(
            settings.explore_share, settings.explore_slots, settings.explore_most_loss
        ),
    )


def _guard_limits(settings: Settings) -> GuardLimits:
    return GuardLimits(
        window_s=settings.guard_window_seconds,
        min_decisions=settings.guard_min_decisions,
        watch_s=settings.guard_watch_seconds,
        error_share=settings.guard_error_share,
        p99_ratio=settings.guard_p99_ratio,
        full_share=settings.guard_full_share,
        score_psi=settings.guard_score_psi,
    )


async def close_gateway(gateway: Gateway) -> None:
    """Finish what is being written, take a snapshot, and let go of everything. What fails is logged
    and noted in `gateway.left_undone`; the steps after it are taken all the same."""

    async def step(name: str, act: Callable[[], Awaitable[None] | None]) -> None:
        try:
            ended = act()
            if ended is not None:
                await ended
        except Exception as error:
            log.error("shutting down, %s: %s: %s", name, type(error).__name__, error)
            gateway.left_undone.append(name)

    await asyncio.gather(*gateway.background, return_exceptions=True)
    await step("writing events", gateway.ingest.drain)
    await step("writing impressions", gateway.impressions.stop)
    if gateway.feed is not None:
        await step("following the event log", gateway.feed.stop)
    # Without it the next start replays more of the log.
    await step("writing a snapshot", gateway.features.snapshot)
    await step("closing the feature store", gateway.features.aclose)
    await step("closing the event log", gateway.event_log.close)
    await step("writing anonymous sums", gateway.anonymous.flush)
    await step("writing what was counted", lambda: gateway.shelf.pacing.flush(gateway.clock.now()))
    await step("closing the coupon ledger", gateway.ledger.close)
    await step("closing the control store", gateway.control.close)
    await step("ending the shadow", gateway.shadow.close)
    await step("ending the decisions", gateway.decider.close)
    await step("letting go of the release", gateway.live.close)
    if gateway.triton is not None:
        await step("leaving the model server", gateway.triton.close)
    await step("sending traces", gateway.tracing.close)


def create_app(gateway: Gateway, *, follow_pointer: bool = True) -> FastAPI:
    """The HTTP application of `gateway`, which it closes when it shuts down.

    `follow_pointer`: swap to another release when `releases/current` names one.
    """

    async def follow_store() -> None:
        if gateway.follow_erasures():
            await gateway.features.drop_erased()
        gateway.rules.follow()
        gateway.experiments.follow()
        await gateway.follow_catalogue()
        await gateway.follow_offers()

    async def write_anonymous() -> None:
        await asyncio.to_thread(gateway.anonymous.write, gateway.anonymous.taken())

    async def finish_erasures() -> None:
        try:
            await gateway.rights.finish()
        except StoreError as error:
            log.warning("erasures are not finished: %s", error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gateway.impressions.start()
        if gateway.feed is not None:
            gateway.feed.start()
        documentation.document(app)  # now, so that nobody has to wait for it
        period = gateway.settings.snapshot_minutes * 60
        outside, webhook = _outside(gateway), _webhook(gateway)
        beside = [
            _every(period, gateway.features.snapshot, "snapshot"),
            _every(_RETENTION_SECONDS, lambda: _retain(gateway), "retention", at_once=True),
            _every(_FOLLOW_SECONDS, follow_store, "control store"),
            _every(_ANONYMOUS_SECONDS, write_anonymous, "anonymous sums"),
            _every(_UNFINISHED_SECONDS, finish_erasures, "erasures"),
            _every(_PACING_SECONDS, gateway.pace_offers, "pacing", at_once=True),
        ]
        if outside is not None:
            beside.append(_every(_OUTSIDE_SECONDS, outside.deliver, "coupon system"))
        if webhook is not None:
            beside.append(_every(_OUTSIDE_SECONDS, webhook.deliver, "review webhook"))
        if follow_pointer:
            look = gateway.follower.look
            beside.append(_every(gateway.settings.release_poll_seconds, look, "releases"))
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            for told in (outside, webhook):
                if told is not None:
                    await told.aclose()
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


async def _retain(gateway: Gateway) -> None:
    removed = await enforce_when_due(
        gateway.settings.retention, gateway.stores, gateway.rights, gateway.clock
    )
    if removed is not None:
        log.info("retention: %s", removed)


def _every(
    seconds: float, act: Callable[[], Awaitable[object]], name: str, *, at_once: bool = False
) -> asyncio.Task[None]:
    """A task that does `act` again and again; one failure does not end it."""

    async def repeat() -> None:
        wait = not at_once
        while True:
            if wait:
                await asyncio.sleep(seconds)
            wait = True
            try:
                await act()
            except Exception:
                log.exception("the %s task failed; it goes on", name)

    return asyncio.create_task(repeat(), name=name)


def _outside(gateway: Gateway) -> "VoucherifyDelivery | None":
    settings = gateway.settings
    if settings.voucherify_url is None:
        return None
    from serving.state.voucherify import VoucherifyDelivery, VoucherifyPlace

    place = VoucherifyPlace(
        settings.voucherify_url, settings.voucherify_app_id, settings.voucherify_app_token
    )
    return VoucherifyDelivery(gateway.ledger.outbox, place, gateway.clock)


def _webhook_place(settings: Settings) -> "WebhookPlace | None":
    """Raises UserError."""
    if settings.review_webhook_url is None:
        return None
    from serving.state.review_webhook import WebhookPlace

    return WebhookPlace.of(settings.review_webhook_url, settings.review_webhook_secret)


def _webhook(gateway: Gateway) -> "ReviewWebhook | None":
    place = _webhook_place(gateway.settings)
    if place is None:
        return None
    from serving.state.review_webhook import ReviewWebhook

    return ReviewWebhook(gateway.control, place, gateway.clock)


def _version() -> str:
    try:
        return version("tillwise")
    except PackageNotFoundError:
        return "0"
