"""What rules work on: the decision of the models, the limits that no rule can move, and the record
of what was followed and what was not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from contract.rules import Rule

MOST_NOTES: Final = 50


class Shop(Protocol):
    """What no rule can change at this checkout."""

    def sellable(self, item_id: str) -> bool:
        """Known, in stock here, within the caller's filter and not in the cart."""
        ...

    def categories(self, item_ids: Iterable[str]) -> Iterable[Sequence[str]]:
        """Of each item its categories, at any level."""
        ...

    def members(self, category: str, limit: int) -> Sequence[str]:
        """Sellable items of a category, at most `limit`, the best known first."""
        ...

    def may_give(self, offer_id: str) -> bool:
        """Whether the checkout may have the offer: it is valid and within its limits."""
        ...

    def go_together(self, offer_ids: Sequence[str]) -> bool:
        """Whether it may have all of them at once."""
        ...


@dataclass(frozen=True)
class Draft:
    """The decision of the models. `items` are all candidates, the best first, of which `limit` are
    shown; payments and shipping options in the order of the models."""

    items: Sequence[str] = ()
    limit: int = 5
    offers: Sequence[str] = ()
    payments: Sequence[str] = ()
    shipping: Sequence[str] = ()


@dataclass(frozen=True)
class Note:
    """What a rule could not do, and why."""

    rule_id: str
    text: str


@dataclass(frozen=True)
class Ruled:
    """The decision after the rules. `by` names the rule that put an item there, `offers_by` that of
    an offer, `blocked` the one that took an offer away; `applied` are those that were followed, the
    strongest first."""

    items: tuple[str, ...]
    offers: tuple[str, ...]
    payments: tuple[str, ...]
    shipping: tuple[str, ...]
    by: Mapping[str, str] = field(default_factory=dict)
    offers_by: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    applied: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


class Log:
    """Which rules were followed, and what was not."""

    def __init__(self) -> None:
        self._followed: set[str] = set()
        self._notes: dict[tuple[str, str], None] = {}

    def follow(self, rule: Rule) -> None:
        """Something that `rule` says was done."""
        self._followed.add(rule.id)

    def note(self, rule: Rule, text: str) -> None:
        """Something that it says was not."""
        if len(self._notes) < MOST_NOTES:
            self._notes[rule.id, text] = None

    def applied(self, rules: Sequence[Rule]) -> tuple[str, ...]:
        """The ids of those of `rules` that were followed."""
        return tuple(rule.id for rule in rules if rule.id in self._followed)

    def notes(self) -> tuple[Note, ...]:
        """The notes, each once, at most MOST_NOTES."""
        return tuple(Note(*one) for one in self._notes)
