"""The parts that the routes use, put together once by the app."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from fastapi import Request
from prometheus_client import CollectorRegistry

from contract.clock import Clock
from contract.experiments import Assigner
from contract.rule_set import RuleSet
from serving.api.known_callers import KnownCallers
from serving.decision.decide import Decider
from serving.decision.offer_shelf import OfferShelf
from serving.decision.shadow import Shadow
from serving.inference.catalogue_overlay import CatalogueOverlay
from serving.inference.follower import Follower
from serving.inference.release import Release
from serving.inference.releases import LiveRelease
from serving.ingest.accept import Ingest
from serving.ingest.feed import FeatureFeed
from serving.ingest.impressions import ImpressionLog
from serving.ingest.rights import Rights, Stores
from serving.ingest.subjects import Subjects
from serving.ingest.traffic import Traffic
from serving.monitoring.anonymous import AnonymousTally
from serving.monitoring.http import HttpMetrics
from serving.monitoring.tracing import Tracing
from serving.settings import Settings
from serving.state.control_store import ControlStore
from serving.state.coupon_holders import CouponHolders
from serving.state.event_log import EventLog
from serving.state.feature_store import FeatureStore
from serving.state.followed_document import FollowedDocument
from serving.state.secrets import Secrets
from serving.state.sql_coupon_ledger import SqlCouponLedger

if TYPE_CHECKING:
    from serving.api.page_limits import PageLimits
    from serving.inference.triton import TritonBackends


@dataclass
class Gateway:
    """One running gateway."""

    settings: Settings
    clock: Clock
    secrets: Secrets
    control: ControlStore
    event_log: EventLog
    features: FeatureStore
    live: LiveRelease
    follower: Follower
    shadow: Shadow
    overlay: CatalogueOverlay
    decider: Decider
    ledger: SqlCouponLedger
    holders: CouponHolders
    shelf: OfferShelf
    rules: FollowedDocument[RuleSet]
    experiments: FollowedDocument[Assigner]
    subjects: Subjects
    ingest: Ingest
    impressions: ImpressionLog
    stores: Stores
    rights: Rights
    answer_key: bytes  # what answers kept for repeats are sealed with, together with the caller's
    traffic: Traffic
    page_limits: "PageLimits"
    registry: CollectorRegistry
    metrics: HttpMetrics
    anonymous: AnonymousTally
    tracing: Tracing
    feed: FeatureFeed | None = None  # None: features are told of every event as it is accepted
    triton: "TritonBackends | None" = None  # None: the models run in this process
    # Writes that go on after their answer; held here so that shutting down waits for them.
    background: set[asyncio.Task[Any]] = field(default_factory=set)
    known: KnownCallers = field(default_factory=KnownCallers)
    # Idempotency keys whose request is being acted on; only one process serves a state folder.
    answering: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    following: asyncio.Lock = field(default_factory=asyncio.Lock)
    erasures: int = 0  # as many as are known of
    left_undone: list[str] = field(default_factory=list)  # what shutting down could not do
    checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def follow_catalogue(self) -> None:
        """Let what was said of items by any gateway count from now on, when this returns. Raises
        StoreError."""
        # On a thread: many changes take a while, in which decisions go on with what held before.
        # One at a time, so that they count in the order in which they were said.
        async with self.following:
            await asyncio.to_thread(self.overlay.follow, self._deciding())
            # A release that began to decide meanwhile.
            while late := [
                one for one in self._deciding() if one.catalogue.said < self.overlay.number
            ]:
                await asyncio.to_thread(self.overlay.lay, late[0])

    def _deciding(self) -> list[Release]:
        return [one for one in (self.live.current, self.live.candidate) if one is not None]

    async def follow_offers(self) -> None:
        """Let what was written of offers, and used of them, by any gateway count from now on.
        Raises StoreError."""
        self.shelf.follow_book()
        await self.shelf.follow_uses(self.clock.now())

    async def pace_offers(self) -> None:
        """Solve the price of spending of a day's budget, if it is time. Raises StoreError."""
        await self.shelf.keep_pace(self.clock.now())

    def follow_erasures(self) -> bool:
        """Let go of what was computed when any process has erased somebody, and say whether one
        has. Raises StoreError."""
        number = self.control.erasures()
        if number == self.erasures:
            return False
        self.erasures = number
        self.decider.query_vectors.clear()
        self.shadow.forget()
        return True


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves `request`."""
    return cast(Gateway, request.app.state.gateway)
