"""The checkout decision, as one straight line: features, encode, the two towers, retrieval, ranker,
reasons, offers, and the merchant's rules last. It alone knows the order of the stages and which
rung follows when one of them fails."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import perf_counter
from types import MappingProxyType
from uuid import UUID

from contract.candidates import MAX_CANDIDATES
from contract.clock import Clock, to_us
from contract.encoding import Encoded, Situation
from contract.events import honoured_time, unchecked
from contract.expression_variables import Value
from contract.features import UNKNOWN, SubjectState
from contract.manifest import RANKER
from contract.rule_set import RuleSet
from serving.decision import (
    exploration,
    fallback,
    lists,
    offers,
    payment_shipping,
    ranking,
    retrieval,
    rules,
    towers,
)
from serving.decision.admission import Admission, Overloaded, Place
from serving.decision.blend import blend
from serving.decision.candidate_set import CandidateSet, Owed, Ranked
from serving.decision.checkout import Answer, Checkout, StageSpans
from serving.decision.deadline import Deadline
from serving.decision.eligibility import Eligible, eligible, has_said, unless_refused
from serving.decision.engine import Engines
from serving.decision.limits import (
    DecisionSettings,
    DecisionWatch,
    NoRules,
    ReleaseSource,
    RuleSource,
)
from serving.decision.messages import (
    DecideRequest,
    DecideResponse,
    Offer,
)
from serving.decision.offer_shelf import OfferShelf
from serving.decision.outcome import Decision, SubjectContext, stable_id
from serving.decision.payment_shipping import Orders
from serving.decision.suggestions import suggestions
from serving.decision.tokens import TokenSigner
from serving.decision.vector_cache import VectorCaches
from serving.decision.workers import Workers
from serving.inference.embedded import EmbeddedBackend
from serving.inference.release import Release
from serving.monitoring.decisions import DecisionMetrics
from serving.monitoring.tracing import Tracing
from serving.random_pieces import random_id
from serving.state.feature_merge import ReadsMany, ReadsNow, as_one, read_as_one

_NOTHING_ASSUMED: Mapping[str, Value] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class _Draft:
    """The decision of the models, before the rules. `state` None: no history was read."""

    checkout: Checkout
    answer: Answer
    state: SubjectState | None
    offered: offers.Offered
    orders: Orders
    shelf: OfferShelf | None

    @property
    def known(self) -> SubjectState | None:
        """What is known of the shopper; None where it could not be read."""
        return None if "features" in self.checkout.deadline.degraded else self.state


class Decider:
    """Makes decisions with the live release. Used from one event loop."""

    def __init__(
        self,
        live_release: ReleaseSource,
        feature_store: ReadsMany,
        clock: Clock,
        signer: TokenSigner,
        settings: DecisionSettings = DecisionSettings(),  # noqa: B008 - frozen
        metrics: DecisionMetrics | None = None,
        tracing: Tracing | None = None,
        shelf: OfferShelf | None = None,
        rules: RuleSource | None = None,
    ) -> None:
        self.settings = settings
        self.admission = Admission(settings.max_full, settings.max_total)
        self._live = live_release
        self._feature_store = feature_store
        self._clock = clock
        self._signer = signer
        self.shelf = shelf
        self._metrics = metrics
        self._rules: RuleSource = rules or NoRules()
        self.watch: DecisionWatch | None = None
        self._tracing = tracing or Tracing()
        self._spans = StageSpans(self._tracing) if self._tracing.on else None
        # A store in this process answers at once; a stage that may wait needs a timer.
        self._read_now = feature_store.read_now if isinstance(feature_store, ReadsNow) else None
        looked_up = None if metrics is None else metrics.vector_looked_up
        self.query_vectors = VectorCaches(settings.query_vectors, looked_up)
        self._engines = Engines(self.query_vectors)
        self._workers = Workers(settings.threads, "decision")
        # The lower rung has a thread of its own: it must work when the others are stuck.
        self._spare_worker = Workers(1, "lower-rung")
        self._shed_turn = asyncio.Lock()

    def close(self) -> None:
        """End the threads; the release stays."""
        self._engines.close()
        self._workers.close()
        self._spare_worker.close()

    def is_behind(self, waited_s: float, waiting: int = 0) -> bool:
        """Whether a request of a known caller that has waited so long for its turn, as `waiting`
        others still do, should be refused unseen."""
        now = perf_counter()
        self.admission.note_wait(waited_s, now)
        return self.admission.is_behind(waited_s, now, waiting)

    def count_refusal(self) -> None:
        """One more was refused."""
        if self._metrics is not None:
            self._metrics.rejected.inc()

    async def decide(
        self, request: DecideRequest, subject: SubjectContext, *, began: float | None = None
    ) -> Decision:
        """The decision for `request` within its `deadline_ms`, counted from `began` (the
        perf_counter at which the request arrived; default: now). Raises Overloaded.
        """
        began = perf_counter() if began is None else began
        self.admission.note_deadline(request.deadline_ms)
        try:
            now = perf_counter()
            full = not self.admission.keeps_late(now)
            place = self.admission.enter(full=full, spent_s=now - began)
        except Overloaded:
            self.count_refusal()
            raise
        lease = self._live.lease(stable_id(request, subject))
        with place, lease as release, self._tracing.span("decision") as span:
            try:
                decision = await self._decide(request, subject, release, place, began)
            except Overloaded:
                self.count_refusal()
                raise
            except Exception:
                if self.watch is not None:
                    self.watch.crashed(release, perf_counter() - began)
                raise
            if self.watch is not None:
                self.watch.decided(release, decision, perf_counter() - began)
            if self._tracing.on:
                span.set_attributes(
                    {
                        "tillwise.rung": decision.rung,
                        "tillwise.release": release.release_id,
                        "tillwise.degraded": ",".join(decision.response.degraded),
                    }
                )
        if self._metrics is not None:
            said = decision.response
            self._metrics.stages(said.timings_ms)
            self._metrics.decided(said.rung, perf_counter() - began, said.degraded)
        return decision

    async def _decide(
        self,
        request: DecideRequest,
        subject: SubjectContext,
        release: Release,
        place: Place,
        began: float,
    ) -> Decision:
        deadline = Deadline(request.deadline_ms, self._spans, began, lambda: self.admission.crowded)
        now, held = self._clock.now(), self._rules.current
        now_us, generation = _behaviour_us(request, now), self.query_vectors.generation
        checkout = Checkout(
            *(request, subject, release, place, deadline, now_us, generation, self._depth(held)),
            beyond=exploration.beyond(self.settings.explore, subject),
            chooses=_chooses(request, self.shelf),
        )
        drafted = await self._drafted(checkout, now, held, shelf=self.shelf)
        decision = self._finished(drafted, now, held)
        if self._metrics is not None and decision.rules is not None:
            self._metrics.rules_failed.inc(len(decision.rules["failed"]))
        return decision

    async def preview(
        self,
        request: DecideRequest,
        subject: SubjectContext,
        books: Sequence[RuleSet],
        assumed: Mapping[str, Value] = _NOTHING_ASSUMED,
        shelf: OfferShelf | None = None,
    ) -> list[Decision]:
        """What the decision would be under each of `books`, all of one draft of the models, in
        their order; `shelf` (None: the usual one) has the offers, `assumed` values of variables
        hold for conditions. It leaves nothing behind. Raises Overloaded."""
        lease = self._live.lease(stable_id(request, subject))
        with self.admission.enter(full=True) as place, lease as release:
            deadline = Deadline(request.deadline_ms)
            now = self._clock.now()
            now_us, generation = _behaviour_us(request, now), self.query_vectors.generation
            depth, shelf = self._depth(*books), shelf or self.shelf
            checkout = Checkout(
                *(request, subject, release, place, deadline, now_us, generation, depth),
                assumed=assumed,
                dry=True,
                chooses=_chooses(request, shelf),
            )
            draft = await self._drafted(checkout, now, *books, shelf=shelf)
            return [self._finished(draft, now, held) for held in books]

    async def _drafted(
        self, checkout: Checkout, now: datetime, *books: RuleSet, shelf: OfferShelf | None
    ) -> _Draft:
        """The decision of the models, with offers of `shelf`; `books` say what rules will want to
        read."""
        answer, state = Answer("full"), None
        if "recommendations" in checkout.request.placements:
            answer, state = await self._recommend(checkout)
        if state is None and any(held.on_shopper for held in books):
            state = await self._features(checkout)
        offered, state = await self._offer(checkout, state, now, shelf)
        if state is None and _moves_choices(checkout):
            state = await self._features(checkout)
        sent = payment_shipping.as_sent(checkout)
        orders = checkout.deadline.inline(
            "payment_shipping", lambda: payment_shipping.ordered(checkout, state, sent), sent
        )
        return _Draft(checkout, answer, state, offered, orders, shelf)

    def _finished(self, draft: _Draft, now: datetime, held: RuleSet) -> Decision:
        """The decision, with the rules' word last."""
        checkout, answer, offered = draft.checkout, draft.answer, draft.offered
        request, release, deadline = checkout.request, checkout.release, checkout.deadline
        known = draft.known
        before = done = rules.untouched(answer, draft.orders, offered.shown_ids)
        if len(held):
            on_offer = rules.NO_OFFERS
            if offered is not offers.NOTHING:
                on_offer = rules.OnOffer.of(offered.valid, offered.shown, offered.drawn, request)
            done = deadline.inline(
                "rules",
                lambda: rules.override(checkout, answer, known, held, now, before, on_offer),
                before,
            )
            offered = offered.ruled(done.offers, done.offers_by, done.under)
        drawn = self._explored(checkout, done)
        if drawn is not None:
            done = replace(done, answer=drawn.answer)
        chances = {} if drawn is None else drawn.chances
        listed = suggestions(checkout, done, chances, self.settings.delicate, self.settings.texts)
        decision_id = random_id()
        issued = self._issued(draft, offered, decision_id, now)
        said = {
            "decision_id": decision_id,
            "attribution_token": self._signer.sign(decision_id, release.release_id),
            "recommendations": listed.told,
            "offers": issued,
            "rejected_offers": offers.rejections(offered),
            "payment_method_order": done.payments,
            "shipping_option_order": done.shipping,
            "applied_rules": done.applied,
            "experiments": (),
            "missing_item_ids": checkout.missing_item_ids(),
            "degraded": tuple(deadline.degraded),
            "rung": answer.rung,
            "release_id": release.release_id,
            "timings_ms": deadline.told_ms(),
        }
        response = unchecked(DecideResponse, said)
        segments = None if known is None else checkout.segments(known)
        return Decision(
            *(response, request, checkout.subject, now, listed.shown, segments),
            offers=None if offered is offers.NOTHING else offered.record,
            offers_ruled=frozenset(offered.by),
            orders=draft.orders.record(),
            rules=done.record(self._rules.version) if len(held) else None,
            exploration=None if drawn is None else drawn.record,
            refused={} if answer.may is None else answer.may.refused,
        )

    def _explored(self, checkout: Checkout, done: rules.Overridden) -> exploration.Explored | None:
        """The list with its last places drawn; None where it is shown as it is."""
        if not checkout.beyond:
            return None
        return checkout.deadline.inline(
            "exploration",
            lambda: exploration.explored(
                checkout, done.answer, done.by.keys(), self.settings.explore
            ),
            None,
        )

    async def _recommend(self, checkout: Checkout) -> tuple[Answer, SubjectState | None]:
        """The answer, and the state that was read for it; None where none was."""
        if not checkout.place.full:
            await self._wait_for_turn(checkout)
        may = checkout.deadline.inline(
            "eligibility", lambda: eligible(checkout.release, checkout.request), None
        )
        if may is None or not may.count:
            return Answer("empty"), None
        if may.price_ignored:
            checkout.deadline.degrade("price_filter")
        state = await self._features(checkout)
        if has_said(state):
            may = self._unless_refused(checkout, may, state)
            if not may.count:
                return Answer("empty", may=may), state
        if checkout.place.full and not self._has_room(checkout):
            checkout.place.settle_for_less()
            if self.admission.is_crowded_out(checkout.deadline.elapsed_ms() / 1_000, beside=1):
                raise Overloaded
        if checkout.place.full:
            answer = await self._with_models(checkout, may, state)
        else:
            answer = None
            checkout.deadline.degrade("overload")
            if self._metrics is not None:
                self._metrics.shed.inc()
        answer = answer or await self._without_models(checkout, may, state)
        return self._arranged(checkout, answer.checked(may)), state

    def _unless_refused(self, checkout: Checkout, may: Eligible, state: SubjectState) -> Eligible:
        """`may` without what the shopper said is not for them."""
        known, days = checkout.release.vocabulary, self.settings.feedback_days
        left = checkout.deadline.inline(
            "feedback", lambda: unless_refused(may, known, state, checkout.now_us, days), may
        )
        if self._metrics is not None and not checkout.dry:
            self._metrics.refused(left.refused.values())
        return left

    def _arranged(self, checkout: Checkout, answer: Answer) -> Answer:
        """`answer` as the shop wants lists to be; as it is, where that fails."""
        wanted = self.settings.lists
        if not wanted.on or not len(answer.index):
            return answer
        return checkout.deadline.inline(
            "lists", lambda: lists.arranged(checkout.release, answer, wanted), answer
        )

    def _depth(self, *books: RuleSet) -> int:
        """How many of the ranked items the later stages choose from: better lists from all."""
        if self.settings.lists.on:
            return MAX_CANDIDATES
        return max(held.depth for held in books)

    async def _offer(
        self,
        checkout: Checkout,
        state: SubjectState | None,
        now: datetime,
        shelf: OfferShelf | None,
    ) -> tuple[offers.Offered, SubjectState | None]:
        """What may be offered and what is, or nothing where that could not be said in time; and
        the state, read now if it was not."""
        asked = "offers" in checkout.request.placements
        if not asked or shelf is None or not shelf.current.book.offers:
            return offers.NOTHING, state
        if state is None and "offers" in checkout.subject.purposes:
            state = await self._features(checkout)
        known = None if "features" in checkout.deadline.degraded else state
        deadline, work = checkout.deadline, partial(offers.consider, checkout, known, shelf, now)
        if not shelf.waits:
            return deadline.at_once("offers", work, offers.NOTHING), state
        allowed_ms = checkout.share(self.settings.offers_share)
        return await deadline.stage("offers", allowed_ms, work, offers.NOTHING), state

    def _issued(
        self, draft: _Draft, offered: offers.Offered, decision_id: UUID, now: datetime
    ) -> tuple[Offer, ...]:
        """What is offered, with its tokens."""
        checkout, shelf = draft.checkout, draft.shelf
        if shelf is None or not offered.shown:
            return ()
        nothing: tuple[Offer, ...] = ()
        return checkout.deadline.inline(
            "offers",
            lambda: offers.issued(checkout, offered, shelf, decision_id, now, self.settings.texts),
            nothing,
        )

    def _has_room(self, checkout: Checkout) -> bool:
        """Whether the models would be done in time. To find out by being late would cost the time
        of this decision and of those behind it."""
        if not isinstance(checkout.release.models, EmbeddedBackend):
            return True
        allowed_ms = checkout.deadline.remaining_ms() - checkout.share(self.settings.reserve_share)
        expected_ms = self._engines.of(checkout.release).expected_ms()
        return expected_ms <= max(allowed_ms, 0.0) * self.settings.room_share

    async def _wait_for_turn(self, checkout: Checkout) -> None:
        """Shed decisions compute on the event loop, which the stages of full ones need too: so they
        come one by one, and pause between while there is time for it."""
        async with self._shed_turn:
            keep_ms = checkout.share(self.settings.shed_share)
            pause_ms = (checkout.deadline.remaining_ms() - keep_ms) / self.admission.active
            await asyncio.sleep(min(max(pause_ms, 0.0), self.settings.most_pause_ms) / 1_000)

    async def _features(self, checkout: Checkout) -> SubjectState:
        """The subject's state, read only when personalization is agreed to."""
        subject = checkout.subject
        if not subject.personal or subject.subject_id is None:
            return {}
        histories = subject.histories or (subject.subject_id,)
        nothing: SubjectState = {}
        if (read_now := self._read_now) is not None:
            return checkout.deadline.inline(
                "features", lambda: as_one(read_now(histories)), nothing
            )
        return await checkout.deadline.stage(
            "features",
            checkout.share(self.settings.features_share),
            lambda: read_as_one(self._feature_store, histories),
            nothing,
            reserve_ms=checkout.share(self.settings.reserve_share),
        )

    async def _with_models(
        self, checkout: Checkout, may: Eligible, state: SubjectState
    ) -> Answer | None:
        """The rungs `full` and `no_ranker`; None where the models or the index failed."""
        if isinstance(checkout.release.models, EmbeddedBackend):
            reserve_ms = checkout.share(self.settings.reserve_share)
            engine = self._engines.of(checkout.release)
            work = await engine.run(checkout, may, state, reserve_ms)
            return _of_models(checkout, work.found, work.ranked, work.owed)
        shares, deadline = self.settings, checkout.deadline
        reserve_ms = checkout.share(shares.reserve_share)
        bare: tuple[Situation, Encoded | None] = (Situation(UNKNOWN, (), 0), None)
        situation, encoded = await deadline.stage(
            "encode",
            checkout.share(shares.encode_share),
            lambda: self._workers.run(checkout.place, lambda: checkout.encoded(state)),
            bare,
            reserve_ms=reserve_ms,
            breaker=checkout.release.breakers.get("encode"),
        )
        if encoded is None:
            return None
        vectors = await towers.query_vectors(
            *(checkout, encoded, self.query_vectors.of(checkout.release)),
            *(shares.towers_share, shares.reserve_share),
        )
        if not vectors:
            return None
        found = await deadline.stage(
            "retrieval",
            checkout.share(shares.retrieval_share),
            lambda: self._workers.run(
                checkout.place,
                lambda: retrieval.retrieve(checkout.release, situation, may, vectors),
            ),
            None,
            reserve_ms=reserve_ms,
            breaker=checkout.release.breakers.get("retrieval"),
        )
        if found is None:
            return None
        # With one tower silent its features are zero, which the ranker never saw in training.
        ranked = await self._rank(checkout, found) if len(vectors) == len(towers.SOURCES) else None
        return _of_models(checkout, found, ranked)

    async def _rank(self, checkout: Checkout, found: CandidateSet) -> Ranked | None:
        models, limit = checkout.release.models, checkout.limit
        return await checkout.deadline.stage(
            "ranker",
            checkout.share(self.settings.ranker_share),
            lambda: ranking.rank(models, found, limit),
            None,
            reserve_ms=checkout.share(self.settings.reserve_share) / 2,
            breaker=checkout.release.breakers[RANKER],
        )

    async def _without_models(
        self, checkout: Checkout, may: Eligible, state: SubjectState
    ) -> Answer:
        """The rungs `session_knn`, `popular` and `empty`."""
        release, limit, deadline = checkout.release, checkout.limit, checkout.deadline
        if checkout.place.full or not self._spare_worker.busy:
            shares = self.settings
            counted = await deadline.stage(
                "session_knn",
                checkout.share(shares.cheaper_share if checkout.place.full else shares.shed_share),
                lambda: self._spare_worker.run(
                    checkout.place,
                    lambda: fallback.counted(release, checkout.situation(state), may, limit),
                ),
                None,
            )
            if counted is not None:
                return Answer("session_knn", *counted)
        popular = deadline.inline(
            "popular",
            lambda: fallback.most_popular(release, checkout.standing(state), may, limit),
            None,
        )
        return Answer("popular", *popular) if popular is not None else Answer("empty")


def _of_models(
    checkout: Checkout,
    found: CandidateSet | None,
    ranked: Ranked | None,
    owed: Owed | None = None,
) -> Answer | None:
    """What the models came up with; without the ranker's word the sources' own scores decide."""
    if found is None:
        return None
    if ranked is not None:
        return Answer("full", found, ranked, owed=owed)
    limit = checkout.limit
    blended = checkout.deadline.inline("blend", lambda: blend(found, limit), None)
    return Answer("no_ranker", found, blended) if blended is not None else None


def _chooses(request: DecideRequest, shelf: OfferShelf | None) -> bool:
    """Whether nothing but the uplift network may choose an offer."""
    return shelf is not None and shelf.current.chooses and "offers" in request.placements


def _moves_choices(checkout: Checkout) -> bool:
    """Whether a history would say something of how the shopper pays or has things delivered."""
    asked = {"payment", "shipping"} & set(checkout.request.placements)
    return bool(asked) and checkout.release.choices is not None


def _behaviour_us(request: DecideRequest, now: datetime) -> int:
    """The moment up to which behaviour counts: the caller's, but never in the future."""
    said = request.context.occurred_at
    # Before 1970 there is no behaviour, and calendars of some zones do not reach back to year 1.
    return to_us(now if said is None or said.year < 1970 else honoured_time(said, now))
