"""What rules make of the products of a decision: the strongest claim to an item decides whether it
may be shown, boosts move it, and pins take their places."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

from contract.rule_draft import Draft, Log, Shop
from contract.rules import Boost, Exclude, Pin, Rule

Claim = tuple[Rule, Pin | Exclude | Boost]
_NONE: Final[frozenset[str]] = frozenset()


class Products:
    """The products of one decision under the claims of rules."""

    def __init__(self, claims: Sequence[Claim], draft: Draft, shop: Shop, log: Log) -> None:
        self._claims, self._limit, self._shop, self._log = claims, draft.limit, shop, log
        self._drafted, self._candidates = draft.items, dict.fromkeys(draft.items)
        self._new = [one for one in self._introduced() if one not in self._candidates]
        self._candidates |= dict.fromkeys(self._new)
        self._concerned = [self._concerns(action) for _, action in claims]
        self._out: dict[str, Rule] = {}
        self.by: dict[str, str] = {}

    def shown(self) -> tuple[str, ...]:
        """What is shown, the best first; `by` then names the rule of what a rule put there."""
        self._settle()
        kept = list(self._candidates)
        if self._out:
            kept = [item for item in kept if item not in self._out]
        kept = self._boosted(kept)
        slots = self._pinned()
        pinned = set(slots.values())
        rest = (item for item in kept if item not in pinned and self._shop.sellable(item))
        found = (slots.get(place) or next(rest, None) for place in range(1, self._limit + 1))
        shown = tuple(item for item in found if item is not None)
        self.by = {item: self.by[item] for item in shown if item in self.by}
        return shown

    def _introduced(self) -> Iterable[str]:
        """What rules want to see that the models did not find."""
        sellable = self._shop.sellable
        for _, action in self._claims:
            if isinstance(action, Pin) or (isinstance(action, Boost) and action.places is None):
                yield from (item for item in action.items if sellable(item))
            if isinstance(action, Boost) and action.places is None:
                for category in action.categories:
                    yield from self._shop.members(category, self._limit)

    def _concerns(self, action: Pin | Exclude | Boost) -> frozenset[str]:
        """The candidates that `action` speaks of."""
        found = frozenset([item for item in action.items if item in self._candidates])
        if isinstance(action, Pin) or not action.categories:
            return found
        by_category = self._by_category
        return found.union(*(by_category.get(one, _NONE) for one in action.categories))

    @cached_property
    def _by_category(self) -> dict[str, set[str]]:
        wanted = frozenset(
            name
            for _, action in self._claims
            if not isinstance(action, Pin)
            for name in action.categories
        )
        members: dict[str, set[str]] = defaultdict(set)
        for items in (self._drafted, self._new):  # of its draft the shop knows the most
            for item, path in zip(items, self._shop.categories(items), strict=True):
                if not wanted.isdisjoint(path):
                    for category in wanted.intersection(path):
                        members[category].add(item)
        return members

    def _settle(self) -> None:
        """Of claims to the same item the first decides whether it is out."""
        first: dict[str, Claim] = {}
        for (rule, action), concerned in zip(self._claims, self._concerned, strict=True):
            is_out = isinstance(action, Exclude)
            overruled: dict[str, list[str]] = defaultdict(list)
            for item in concerned:
                held = first.setdefault(item, (rule, action))
                if isinstance(held[1], Exclude) != is_out:
                    overruled[held[0].id].append(item)
                elif is_out:
                    self._out.setdefault(item, rule)
            for other, items in overruled.items():
                verb = "shown" if is_out else "left out"
                self._log.note(rule, f"{_named(items)}: {verb} by {other}")
            if is_out and (not overruled or len(concerned) > sum(map(len, overruled.values()))):
                self._log.follow(rule)

    def _boosted(self, kept: list[str]) -> list[str]:
        """`kept` with every item moved as the strongest boost that concerns it says."""
        moved: dict[str, tuple[int, Boost]] = {}
        for claim, (rule, action) in enumerate(self._claims):
            if not isinstance(action, Boost):
                continue
            wanted = self._concerned[claim].difference(self._out)
            if wanted:
                self._log.follow(rule)
            else:
                self._log.note(rule, "there is nothing that could be preferred")
            for item in wanted.difference(moved):
                moved[item] = claim, action
                self.by[item] = rule.id
        if not moved:
            return kept
        first = {item: claim for item, (claim, boost) in moved.items() if boost.places is None}
        up = {item: boost.places for item, (_, boost) in moved.items() if boost.places is not None}
        before = sorted((item for item in kept if item in first), key=first.__getitem__)
        if up:  # what moves up goes before what stands there
            place = {
                item: at - up[item] - 0.5 if item in up else at for at, item in enumerate(kept)
            }
            kept = sorted(kept, key=place.__getitem__)
        return before + [item for item in kept if item not in first]

    def _pinned(self) -> dict[int, str]:
        """Item by position, from 1; the strongest rule chooses first."""
        slots: dict[int, str] = {}
        for rule, action in self._claims:
            if not isinstance(action, Pin):
                continue
            for offset, item in enumerate(action.items):
                if not self._shop.sellable(item):
                    self._log.note(rule, f"{item}: can not be sold in this checkout, so left out")
                elif item in slots.values():
                    self._log.follow(rule)
                elif item not in self._out:
                    self._place(rule, item, min(action.position + offset, self._limit), slots)
        return slots

    def _place(self, rule: Rule, item: str, wanted: int, slots: dict[int, str]) -> None:
        """At `wanted`, or at the free position nearest after it, or before it."""
        positions = (*range(wanted, self._limit + 1), *range(wanted - 1, 0, -1))
        position = next((place for place in positions if place not in slots), None)
        if position is None:
            self._log.note(rule, f"{item}: no place is left")
            return
        if position != wanted:
            self._log.note(rule, f"{item}: at place {position}, as {wanted} is taken")
        slots[position] = item
        self.by[item] = rule.id
        self._log.follow(rule)


def _named(items: Sequence[str], most: int = 3) -> str:
    told = ", ".join(sorted(items)[:most])
    return told if len(items) <= most else f"{told} and {len(items) - most} more"
