"""What a decision is allowed: how many at once, and how much of its time each stage may take."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from contract import feedback
from contract.exploration import ExploreSettings
from contract.lists import ListSettings
from contract.rule_set import RuleSet
from serving.decision.delicate import DELICATE
from serving.decision.outcome import Decision
from serving.decision.reason_texts import ENGLISH, Texts
from serving.inference.release import Release


class ReleaseSource(Protocol):
    """Where a decision gets its release."""

    def lease(self, stable_id: str | None = None) -> AbstractContextManager[Release]:
        """The release for the shopper `stable_id`, kept running until the end of the block."""
        ...


class RuleSource(Protocol):
    """Where a decision gets the merchant's rules."""

    @property
    def current(self) -> RuleSet:
        """Those in force."""
        ...

    @property
    def version(self) -> int:
        """Of the document that they are from."""
        ...


@dataclass(frozen=True)
class NoRules:
    """A RuleSource for a shop that has none."""

    current: RuleSet = field(default_factory=RuleSet)
    version: int = 0


class DecisionWatch(Protocol):
    """Who is told which release made which decision."""

    def decided(self, release: Release, decision: Decision, seconds: float) -> None:
        """A decision was made."""
        ...

    def crashed(self, release: Release, seconds: float) -> None:
        """A decision ended in an error."""
        ...


@dataclass(frozen=True)
class DecisionSettings:
    """Limits of the decision. Stage budgets are shares of a request's deadline."""

    # How many are let in at once; how many of them the models can serve in time is measured.
    max_full: int = 12
    max_total: int = 64
    threads: int = 2
    query_vectors: int = 16_384  # held per release, 64 floats each
    lists: ListSettings = field(default_factory=ListSettings)
    explore: ExploreSettings = field(default_factory=ExploreSettings)
    feedback_days: float = feedback.DAYS  # an item is not for who said so
    delicate: tuple[str, ...] = DELICATE  # words of categories whose items no reason names
    texts: Texts = ENGLISH  # of reasons
    features_share: float = 0.20
    encode_share: float = 0.20
    towers_share: float = 0.50
    retrieval_share: float = 0.40
    ranker_share: float = 0.40
    # Of the time for the embedded models, how much may be expected to go by before they are done.
    room_share: float = 0.75
    cheaper_share: float = 0.25
    offers_share: float = 0.15
    shed_share: float = 0.60  # the same rung, when it is the first thing that is tried
    most_pause_ms: float = 2.0  # between two shed decisions, so that full ones get on
    # Kept back from the stages before, so that a late failure still leaves time for a lower rung.
    reserve_share: float = 0.30
