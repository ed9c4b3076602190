"""Opens a gateway, part by part in the order in which they need one another."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from contract.clock import Clock
from contract.experiments import Assigner
from contract.rule_set import RuleSet
from serving.api.gateway import Gateway
from serving.api.known_callers import KnownCallers
from serving.api.page_limits import PageLimits
from serving.api.subjects import item_names
from serving.control import open_control, open_ledger, secrets_of
from serving.decision import experiment_arms, rule_book
from serving.decision.checkout import segments_of
from serving.decision.decide import Decider
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
from serving.inference.releases import LiveRelease
from serving.inference.wanted import load_last_good
from serving.ingest.accept import Ingest
from serving.ingest.held_beside import HeldBeside
from serving.ingest.impressions import ImpressionLog
from serving.ingest.rights import Rights, Stores
from serving.ingest.subjects import Subjects
from serving.ingest.traffic import Traffic
from serving.monitoring.anonymous import FILE as ANONYMOUS
from serving.monitoring.anonymous import AnonymousTally
from serving.monitoring.decisions import DecisionMetrics
from serving.monitoring.http import HttpMetrics
from serving.monitoring.kpis import FILE as FACTS
from serving.monitoring.offer_pacing import PacingMetrics
from serving.monitoring.releases import ReleaseMetrics
from serving.monitoring.stores import StoreMetrics
from serving.monitoring.tracing import Tracing, open_tracing
from serving.settings import Settings
from serving.settings_of_parts import (
    decision_settings,
    guard_limits,
    voucherify_place,
    webhook_place,
)
from serving.state.callers_file import CallersFile
from serving.state.control_store import ControlStore
from serving.state.coupon_holders import CouponHolders
from serving.state.fact_file import FactFile
from serving.state.feature_store import FeatureStore
from serving.state.followed_document import FollowedDocument
from serving.state.receipts import ReceiptSigner
from serving.state.sealing import SubjectKeys
from serving.state.secrets import Secrets
from serving.state.sql_coupon_ledger import SqlCouponLedger
from serving.state.sqlite_writer import StoreError
from serving.state.state_folder import CALLERS
from serving.stores import open_stores

if TYPE_CHECKING:
    from serving.inference.triton import TritonBackends

log = logging.getLogger(__name__)

_OBJECTS_TO_COLLECT = 10_000


@dataclass(frozen=True)
class _Ground:
    """What most parts stand on."""

    settings: Settings
    clock: Clock
    registry: CollectorRegistry
    secrets: Secrets
    control: ControlStore


@dataclass(frozen=True)
class _Offers:
    ledger: SqlCouponLedger
    holders: CouponHolders
    shelf: OfferShelf


@dataclass(frozen=True)
class _Decisions:
    """Who decides, and who makes decisions again with a release on trial."""

    decider: Decider
    shadow: Shadow
    measured: ReleaseMetrics

    def forget_computed(self) -> None:
        self.decider.query_vectors.clear()
        self.shadow.forget()


async def open_gateway(settings: Settings, clock: Clock, release_id: str | None = None) -> Gateway:
    """A gateway that is ready to serve `release_id`, or else the live one.

    Raises UserError when there is no release or it is refused. The caller holds the StateFolder.
    """
    # What is wrong with either is said before anything is opened.
    for look in (webhook_place, voucherify_place):
        look(settings)
    registry = CollectorRegistry()
    counted = DecisionMetrics(registry)
    triton = _triton(settings, counted)
    live, problem = await _release(settings, counted, triton, release_id)
    secrets = secrets_of(settings)
    control = open_control(settings, secrets, clock, may_be_away=True)
    ground = _Ground(settings, clock, registry, secrets, control)
    opened = open_stores(settings, SubjectKeys(control))
    StoreMetrics(registry, opened.feed)
    _collect_rarely()
    overlay = _overlay(control, live)
    subjects = Subjects(control, secrets, clock)
    tracing = open_tracing(settings.otlp_endpoint)
    offers = _offers(ground)
    rules, experiments = _rules(control), _experiments(control)
    decisions = _decisions(ground, live, opened.features, counted, tracing, offers.shelf, rules)
    ingest = Ingest(
        *(subjects, opened.event_log, opened.told, clock),
        lambda item_id: live.current.category(item_id),
    )
    facts = FactFile(settings.state / FACTS, settings.control_store == "sqlite")
    stores = Stores(control, opened.event_log, opened.features, facts)
    lost = counted.impressions_lost.inc
    return Gateway(
        settings=settings,
        clock=clock,
        secrets=secrets,
        control=control,
        event_log=opened.event_log,
        features=opened.features,
        feed=opened.feed,
        live=live,
        shadow=decisions.shadow,
        overlay=overlay,
        decider=decisions.decider,
        ledger=offers.ledger,
        holders=offers.holders,
        shelf=offers.shelf,
        rules=rules,
        experiments=experiments,
        subjects=subjects,
        ingest=ingest,
        stores=stores,
        rights=await _rights(stores, ingest, clock, live, offers, decisions),
        follower=await _watched(settings, live, decisions, problem),
        answer_key=control.service_key("answers"),
        known=_known_callers(settings, secrets),
        impressions=ImpressionLog(subjects, opened.event_log, settings.impression_queue, lost),
        traffic=Traffic(settings.internal_networks),
        page_limits=_page_limits(settings),
        registry=registry,
        metrics=HttpMetrics(registry),
        anonymous=AnonymousTally(settings.state / ANONYMOUS),
        tracing=tracing,
        triton=triton,
    )


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


def _collect_rarely() -> None:
    """Of all that stands so far nothing is garbage, and of what comes little."""
    # What was restored lives as long as the process; a collection that walks over it stops every
    # decision for tens of milliseconds and finds nothing.
    gc.collect()
    gc.freeze()
    # What decisions make is gone with their last reference. Looked for after every 700 objects, as
    # is usual, rings of objects that hold one another would cost an eighth of each decision.
    gc.set_threshold(_OBJECTS_TO_COLLECT)


def _if_there(follow: Callable[[], object]) -> None:
    """What a control store says that is away now is followed later, as all that comes later is."""
    try:
        follow()
    except StoreError as error:
        log.warning("not followed yet: %s", error)


def _overlay(control: ControlStore, live: LiveRelease) -> CatalogueOverlay:
    """What was said of items, laid over the release that is live and over those that will be."""
    overlay = CatalogueOverlay(control.items_changed_since)
    _if_there(lambda: overlay.follow([live.current]))
    live.overlay = overlay.lay
    return overlay


def _offers(ground: _Ground) -> _Offers:
    """The offers as they stand now, and where their uses are counted."""
    secrets, control = ground.secrets, ground.control
    ledger = open_ledger(ground.settings, at_once=control.opened)
    holders = CouponHolders(control)
    shelf = OfferShelf(
        *(FollowedDocument(control, DOCUMENT, compiled, CompiledBook()), ledger, holders),
        OfferSigner([secrets.derive("offer", one) for one in secrets.masters], ground.clock),
        secrets.derive("holdout").hex(),
        timedelta(minutes=ground.settings.offer_minutes),
        ledger.pacing,
        OfferPacing(ledger.pacing, PacingMetrics(ground.registry)),
    )
    _if_there(shelf.follow_book)
    return _Offers(ledger, holders, shelf)


def _rules(control: ControlStore) -> FollowedDocument[RuleSet]:
    rules = FollowedDocument(control, rule_book.DOCUMENT, rule_book.compiled, RuleSet())
    _if_there(rules.follow)
    return rules


def _experiments(control: ControlStore) -> FollowedDocument[Assigner]:
    experiments = FollowedDocument(
        control, experiment_arms.DOCUMENT, experiment_arms.assigner_of, Assigner()
    )
    _if_there(experiments.follow)
    return experiments


def _decisions(
    ground: _Ground,
    live: LiveRelease,
    features: FeatureStore,
    counted: DecisionMetrics,
    tracing: Tracing,
    shelf: OfferShelf,
    rules: FollowedDocument[RuleSet],
) -> _Decisions:
    signer = TokenSigner(ground.secrets.derive("attribution"), ground.clock)
    decider = Decider(
        *(live, features, ground.clock, signer, decision_settings(ground.settings), counted),
        *(tracing, shelf, rules),
    )
    counted.in_flight.set_function(lambda: decider.admission.active)
    measured = ReleaseMetrics(ground.registry)
    shadow = Shadow(
        *(live, features, ground.clock, signer, measured),
        busy=lambda: decider.admission.active > 0,
        rules=rules,
        lists=decider.settings.lists,
        feedback_days=decider.settings.feedback_days,
    )
    return _Decisions(decider, shadow, measured)


async def _rights(
    stores: Stores,
    ingest: Ingest,
    clock: Clock,
    live: LiveRelease,
    offers: _Offers,
    decisions: _Decisions,
) -> Rights:
    """What shoppers may ask for; erasures that were begun before are gone on with."""
    rights = Rights(
        *(stores, ingest, clock, ReceiptSigner(stores.control.service_key("receipt"))),
        lambda found: item_names(live, found),
        lambda state, now_us: segments_of(
            state, now_us, None, live.current.rules, live.current.learned
        ),
        decisions.forget_computed,
        HeldBeside(offers.ledger, offers.holders, stores.facts.path, clock),
    )
    try:
        await rights.finish()
    except StoreError as error:  # what is left opens no more, and is tried again
        log.warning("erasures are not finished: %s", error)
    return rights


async def _watched(
    settings: Settings, live: LiveRelease, decisions: _Decisions, problem: str | None
) -> Follower:
    """Who follows the releases' folder, and judges by the decisions that are made."""
    guard = ReleaseGuard(guard_limits(settings))
    decisions.decider.watch = ReleaseWatch(live, guard, decisions.measured)
    follower = Follower(
        live,
        guard,
        decisions.measured,
        healthy_after_s=settings.release_healthy_seconds,
        guarding=settings.guard,
        problem=problem,
    )
    if problem is not None:
        await follower.note_refused()
    return follower


def _known_callers(settings: Settings, secrets: Secrets) -> KnownCallers:
    """Those of a store that may be away when this process starts outlive the process."""
    if settings.control_store == "sqlite":
        return KnownCallers()
    return KnownCallers(file=CallersFile(settings.state / CALLERS, secrets))


def _page_limits(settings: Settings) -> PageLimits:
    return PageLimits(
        settings.page_requests_per_minute,
        settings.page_events_per_minute,
        settings.page_new_visitors_per_minute,
    )
