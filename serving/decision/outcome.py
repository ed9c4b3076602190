"""What a decision leaves behind: the answer, and the record of it that training learns from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from contract.attribution import GROUPS
from contract.pair_features import PAIR_FEATURES_VERSION
from serving.decision.messages import DecideRequest, DecideResponse, ExperimentArm, Rung

# Stages that work with the release. The others fail for want of a store, or for the caller's wish.
_OF_THE_RELEASE = frozenset(
    {
        *("eligibility", "encode", "query_tower", "sequence_encoder", "retrieval", "ranker"),
        *("blend", "session_knn", "popular", "lists", "reasons", "attributions"),
        "payment_shipping",
    }
)
# Where nothing is drawn the order is computed: it would have been shown every time.
_CERTAIN = 1.0


@dataclass(frozen=True)
class SubjectContext:
    """Whom the decision is for, as the API resolved it: the random subject id, if there is one, the
    purposes in effect for this request, and the subjects whose histories are read as this one's
    (none: its own alone)."""

    subject_id: str | None = None
    purposes: frozenset[str] = frozenset()
    histories: tuple[str, ...] = ()

    @property
    def personal(self) -> bool:
        """Whether history, recent items and search terms may be used."""
        return "personalization" in self.purposes


def stable_id(request: DecideRequest, subject: SubjectContext) -> str:
    """What a shopper is assigned by: the subject where one is known, else the visitor. It is hashed
    and forgotten."""
    return subject.subject_id or request.visitor_id


class Shown(NamedTuple):
    """One shown item with its score, the pair features [F] that it was ranked with and, where the
    ranker decided, what each of contract.attribution.GROUPS added to the score, [G]."""

    item_id: str
    score: float
    reason_codes: tuple[str, ...]
    pair_features: Sequence[float]
    attributions: Sequence[float] | None = None
    rule: str | None = None  # that put it there
    propensity: float = _CERTAIN  # of standing there, given what stands before it


@dataclass(frozen=True)
class Decision:
    """A decision that was made."""

    response: DecideResponse
    request: DecideRequest = field(repr=False)  # holds raw ids
    subject: SubjectContext
    occurred_at: datetime
    shown: tuple[Shown, ...]
    # The segments in effect, computed when asked for; None where no history could be read.
    segments: Callable[[], tuple[str, ...]] | None = field(default=None, repr=False)
    # What could be offered and what was, as it is logged, written down when asked for; None where
    # nothing was asked.
    offers: Callable[[], dict[str, Any]] | None = field(default=None, repr=False)
    offers_ruled: frozenset[str] = frozenset()  # the ids of those that a rule gives
    offers_withdrawn: bool = False  # because they could not be put on record in time
    rules: dict[str, Any] | None = None  # what the merchant's rules did; None: there are none
    # What the shopper agreed to, where a variant used less of it; None: all of it was in effect.
    agreed: frozenset[str] | None = None
    # The options of payment and delivery in the models' order, with their shares.
    orders: dict[str, Any] = field(default_factory=dict)
    exploration: dict[str, Any] | None = None  # the places that were drawn, and from what
    refused: dict[str, str] = field(default_factory=dict)  # by item id: what the shopper said of it

    @property
    def decision_id(self) -> UUID:
        """Its id, also that of its event."""
        return self.response.decision_id

    @property
    def rung(self) -> Rung:
        """How good an answer was possible."""
        return self.response.rung

    @property
    def shed(self) -> bool:
        """Whether it was answered from a cheaper rung because too many were under way."""
        return "overload" in self.response.degraded

    @property
    def failed(self) -> bool:
        """Whether a stage failed or was late that works with the release."""
        return any(stage in _OF_THE_RELEASE for stage in self.response.degraded)

    def in_experiments(self, arms: tuple[ExperimentArm, ...], agreed: frozenset[str]) -> "Decision":
        """The same decision, as one of those variants, which may use less than is `agreed`."""
        response = self.response.model_copy(update={"experiments": arms})
        return replace(self, response=response, agreed=agreed)

    def event_body(self) -> dict[str, Any]:
        """The `decision` of its event: what was shown, how likely, with what and by what.

        Features and segments are there only under `personalization`, the one purpose that models
        may use.
        """
        body: dict[str, Any] = {
            "decision_id": str(self.decision_id),
            "release_id": self.response.release_id,
            "rung": self.rung,
            "degraded": list(self.response.degraded),
            "total_ms": self.response.timings_ms.get("total"),
            "cart": [line.item_id for line in self.request.cart.items],
            "cart_quantities": [line.quantity for line in self.request.cart.items],
            "cart_prices": [line.price for line in self.request.cart.items],
            "pair_features_version": PAIR_FEATURES_VERSION,
            "shown": [self._shown(place, item) for place, item in enumerate(self.shown)],
            "offers": self._offered(),
            "experiments": [one.model_dump() for one in self.response.experiments],
        }
        if self.agreed is not None and self.agreed != self.subject.purposes:
            body["agreed"] = sorted(self.agreed)
        body |= self.orders
        if self.exploration is not None:
            body["exploration"] = self.exploration
        if self.rules is not None:
            body["rules"] = self.rules
        if self.refused:
            body["refused"] = self.refused
        if self.subject.personal and self.segments is not None:
            body["segments"] = list(self.segments())
        return body

    def _offered(self) -> dict[str, Any] | None:
        if self.offers is None:
            return None
        told = self.offers()
        if not self.offers_withdrawn:
            return told
        arms = [arm | {"shown": False} for arm in told["arms"]]
        return told | {"arms": arms, "withdrawn": True}

    def _shown(self, place: int, item: Shown) -> dict[str, Any]:
        record: dict[str, Any] = {
            "item_id": item.item_id,
            "index": place,
            "score": item.score,
            "propensity": item.propensity,
            "reasons": list(item.reason_codes),
        }
        if item.attributions is not None:
            record["attributions"] = dict(zip(GROUPS, item.attributions, strict=True))
        if item.rule is not None:
            record["rule"] = item.rule
        if self.subject.personal:
            record["pair_features"] = item.pair_features
        return record
