"""One decision under way: what every stage of it may need, gathered once."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from contract.behaviour import LearnedSegments, in_effect
from contract.encoding import OOV, Encoded, Situation, encode
from contract.events import EventContext
from contract.expression_variables import Value
from contract.features import UNKNOWN, SubjectState, view
from contract.items import Indices
from contract.segment_config import SegmentConfig
from serving.decision.admission import Place
from serving.decision.candidate_set import CandidateSet, Owed, Ranked
from serving.decision.deadline import Deadline
from serving.decision.eligibility import Eligible
from serving.decision.messages import DecideRequest, Rung
from serving.decision.outcome import SubjectContext
from serving.inference.release import Release
from serving.monitoring.tracing import Tracing


@dataclass(frozen=True, eq=False)
class Checkout:
    """The request, for whom, with which release, in which time. `now_us` is the moment that counts
    for behaviour, `generation` that of the query vectors that may be held."""

    request: DecideRequest
    subject: SubjectContext
    release: Release
    place: Place
    deadline: Deadline
    now_us: int
    generation: int = 0
    depth: int = 0  # how many of the ranked items later stages choose from; 0: as many as are shown
    # What rules are to take for so, whatever it is: for a dry run only.
    assumed: Mapping[str, Value] = field(default_factory=dict)
    dry: bool = False  # asked for to see what would be; nothing is counted
    beyond: int = 0  # items behind the last place that are wanted after the rules
    chooses: bool = False  # whether nothing but the uplift network may choose an offer
    # The situation that the models were asked about, once they were.
    asked: list[Situation] = field(default_factory=list)
    # What the uplift network answered (contract.offer_arms), once it was asked.
    expected: list[list[float]] = field(default_factory=list)

    @cached_property
    def cart(self) -> tuple[str, ...]:
        """The cart's item ids, each once, in the order in which they were put in."""
        return tuple(dict.fromkeys(line.item_id for line in self.request.cart.items))

    @cached_property
    def value(self) -> int | None:
        """What the cart's goods are worth in minor units; None where a line has no price."""
        return self.request.cart.value

    @property
    def limit(self) -> int:
        """How many items the ranking stages hand on."""
        return max(self.depth, self.request.num_results + self.beyond)

    @cached_property
    def context(self) -> EventContext:
        """Where and on what, as it is kept with events."""
        return self.request.context.event_context()

    def share(self, share: float) -> float:
        """Milliseconds that are `share` of the whole deadline."""
        return share * self.deadline.budget_ms

    def situation(self, state: SubjectState) -> Situation:
        """What the models may know; without consent that is the cart and the context alone."""
        personal = self.subject.personal
        return Situation(
            view(state, self.now_us) if personal and state else UNKNOWN,
            self.cart,
            self.now_us,
            self.context,
            self.request.recent_items if personal else (),
            self.request.search_terms if personal else (),
            personal,
            rules=self.release.rules,
        )

    def asked_about(self, state: SubjectState) -> Situation:
        """The situation that the models were asked about, else one of `state`."""
        return self.asked[0] if self.asked else self.situation(state)

    def segments(self, state: SubjectState) -> Callable[[], tuple[str, ...]]:
        """The names of the segments in effect, computed when they are asked for: none without
        consent. It holds on to the state, not to the release."""
        if not self.subject.personal:
            return tuple
        if self.asked:  # then the history has been looked at
            return partial(segments_in, self.asked[0], self.release.learned)
        return partial(
            segments_of, state, self.now_us, self.context, self.release.rules, self.release.learned
        )

    def standing(self, state: SubjectState) -> Situation:
        """What the popular list is chosen by. A decision that was shed has no time to look at a
        history: the request alone must do, and so no segment."""
        if self.place.full or not state:
            return self.situation(state)
        return replace(self.situation({}), personal=False)

    def encoded(self, state: SubjectState) -> tuple[Situation, Encoded]:
        """The situation and the models' inputs."""
        situation = self.situation(state)
        encoded = encode(situation, self.release.vocabulary)
        self.asked.append(situation)
        return situation, encoded

    def missing_item_ids(self) -> tuple[str, ...]:
        """Items of the cart and of this page that the catalogue does not know."""
        named = dict.fromkeys((*self.cart, *self.request.recent_items))
        vocabulary = self.release.vocabulary
        return tuple(item_id for item_id in named if vocabulary.index(item_id) == OOV)


def segments_of(
    state: SubjectState,
    now_us: int,
    context: EventContext | None,
    rules: SegmentConfig,
    learned: LearnedSegments | None,
) -> tuple[str, ...]:
    """The names of all segments in effect for who has `state`."""
    return segments_in(Situation(view(state, now_us), (), now_us, context, rules=rules), learned)


def segments_in(situation: Situation, learned: LearnedSegments | None) -> tuple[str, ...]:
    """The names of all segments in effect in `situation`."""
    return in_effect(situation.view, situation.segments, situation.rules, learned)


_NONE: Indices = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a rung came up with."""

    rung: Rung
    candidates: CandidateSet | None = None
    ranked: Ranked | None = None
    may: Eligible | None = None  # what may be shown at all, once that was looked at
    owed: Owed | None = None  # of the best ones, where the engine has asked already

    @property
    def index(self) -> Indices:
        """The items, best first."""
        if self.candidates is None or self.ranked is None:
            return _NONE
        return self.candidates.listed.index[self.ranked.places]

    def checked(self, may: Eligible) -> "Answer":
        """The answer without anything that may not be shown, whatever a stage did."""
        if self.ranked is None:
            return replace(self, may=may)
        kept = may.mask[self.index]
        each = kept.tolist()
        if each and all(each):
            return Answer(self.rung, self.candidates, self.ranked, may, self.owed)
        if not any(each):
            return Answer("empty", may=may)
        ranked = Ranked(self.ranked.places[kept], self.ranked.scores[kept])
        return Answer(self.rung, self.candidates, ranked, may)

    def with_ranked(self, ranked: Ranked) -> "Answer":
        """The answer with these of its candidates, in this order."""
        return replace(self, ranked=ranked)

    def cut(self, limit: int) -> "Answer":
        """The best `limit` of it."""
        ranked = self.ranked
        if ranked is None or len(ranked.places) <= limit:
            return self
        return self.with_ranked(Ranked(ranked.places[:limit], ranked.scores[:limit]))


class StageSpans:
    """Tells traces about stages; the Observer of a Deadline."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def stage_span(self, name: str) -> AbstractContextManager[object]:
        return self._tracing.span(name)

    def stage_past(self, name: str, began: float, ended: float, wrong: str | None) -> None:
        self._tracing.past(name, began, ended, wrong)
