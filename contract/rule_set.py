"""The rules of a shop, compiled: which of them hold at a checkout, without evaluating most."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contract.candidates import MAX_CANDIDATES
from contract.events import EventContext
from contract.expression_needs import Atom, Needs, atoms_of, needs_of
from contract.expressions import (
    Expression,
    Facts,
    checked,
    parse,
    sample_facts,
    seconds_of,
)
from contract.fields import one_line
from contract.rules import EMPTY_BOOK, Boost, Exclude, Pin, Rule, RuleBook, in_order
from contract.schedule import Schedule

# Of processor time for the conditions of all rules together, on the largest cart there may be.
MAX_SECONDS: Final = 0.020
_ALWAYS: Final = Schedule()


class RuleRefused(ValueError):  # noqa: N818 - it names what happened, not a fault
    """A rule may not be saved. `place` of it in the book, and the `field` that is wrong; None: all
    of them together."""

    def __init__(
        self, why: str, place: int | None = None, rule_id: str | None = None, field: str = ""
    ) -> None:
        super().__init__(why)
        self.place, self.rule_id, self.field = place, rule_id, field


@dataclass(frozen=True)
class Matched:
    """The rules that hold, the strongest first, and the ids of those whose condition could not be
    evaluated and which therefore do not."""

    rules: tuple[Rule, ...] = ()
    failed: tuple[str, ...] = ()


NOTHING: Final = Matched()


@dataclass(frozen=True, eq=False)
class _Compiled:
    rule: Rule
    expression: Expression | None
    needs: Needs
    scheduled: bool  # there is a schedule to look at


class RuleSet:
    """Compiled once, then asked at every checkout; never changed. From any thread."""

    def __init__(self, book: RuleBook = EMPTY_BOOK) -> None:
        """Raises ExpressionRefused where a condition does not compile."""
        self.book = book
        self._rules = [_compiled(rule) for rule in in_order(book)]
        self.variables: frozenset[str] = frozenset().union(
            *(one.expression.variables for one in self._rules if one.expression is not None)
        )
        self._on_products = any(
            isinstance(action, Pin | Exclude | Boost)
            for one in self._rules
            for action in one.rule.actions
        )
        by_atom: dict[str, dict[bool | int | str, list[int]]] = defaultdict(dict)
        self._unindexed: list[int] = []
        for place, one in enumerate(self._rules):
            atoms = one.needs.sharpest
            if atoms is None:
                self._unindexed.append(place)
            for variable, value in atoms or ():
                by_atom[variable].setdefault(value, []).append(place)
        self._by_atom: Mapping[str, Mapping[bool | int | str, list[int]]] = dict(by_atom)

    @property
    def depth(self) -> int:
        """How many ranked items the rules choose from; 0: no rule speaks of products."""
        return MAX_CANDIDATES if self._on_products else 0

    @property
    def on_shopper(self) -> bool:
        """Whether a condition reads who the shopper is."""
        return any(name.startswith(("shopper.", "segments")) for name in self.variables)

    def __len__(self) -> int:
        return len(self._rules)

    def matching(self, facts: Facts, now: datetime, context: EventContext | None) -> Matched:
        """The rules that hold. `facts` has the values of `variables`; `now` is the gateway's."""
        if not self._rules:
            return NOTHING
        said: dict[str, bool | None] = {}  # rules that say the same are asked once
        rules: list[Rule] = []
        failed: list[str] = []
        values = facts.values
        for place in self._possible(values):
            one = self._rules[place]
            holds = one.needs.met(values)
            if holds is False or (one.scheduled and not one.rule.schedule.holds(now, context)):
                continue
            if one.expression is not None and not (holds and one.needs.exact):
                text = one.expression.text
                if text not in said:
                    said[text] = one.expression.holds(facts)
                # What nobody could tell of the shopper is no fault of the rule.
                if said[text] is None and one.expression.variables <= values.keys():
                    failed.append(one.rule.id)
                if not said[text]:
                    continue
            rules.append(one.rule)
        return Matched(tuple(rules), tuple(failed))

    def _possible(self, values: Mapping[str, object]) -> Sequence[int]:
        """The places of the rules that can hold, ascending."""
        found = set(self._unindexed)
        for variable, table in self._by_atom.items():
            for atom in _atoms(variable, values.get(variable)):
                places = table.get(atom[1])
                if places is not None:
                    found.update(places)
        return sorted(found)

    def failing(self, facts: Facts) -> dict[str, str]:
        """Why conditions could not be evaluated, by rule id; for a dry run."""
        faults = (
            (one.rule.id, one.expression.fault(facts))
            for one in self._rules
            if one.expression is not None
        )
        return {rule_id: fault for rule_id, fault in faults if fault is not None}


def _atoms(variable: str, value: object) -> Iterable[Atom]:
    return atoms_of(variable, value) if isinstance(value, bool | int | str | list | dict) else ()


def _compiled(rule: Rule) -> _Compiled:
    scheduled = rule.schedule != _ALWAYS
    if rule.condition is None:
        return _Compiled(rule, None, Needs(), scheduled)
    expression = parse(rule.condition)
    return _Compiled(rule, expression, needs_of(expression.root), scheduled)


def checked_set(book: RuleBook) -> RuleSet:
    """The rules of a book that is to be saved, the disabled ones checked as well. Raises
    RuleRefused."""
    for place, rule in enumerate(book.rules):
        field = "title"
        try:
            one_line(rule.title)
            field = "condition"
            if rule.condition is not None:
                checked(rule.condition)
        except ValueError as refusal:
            raise RuleRefused(str(refusal), place, rule.id, field) from refusal
    compiled = RuleSet(book)
    seconds = sum(
        max(seconds_of(expression, facts) for facts in sample_facts("rule"))
        for expression in {
            one.expression.text: one.expression
            for one in compiled._rules
            if one.expression is not None
        }.values()
    )
    if seconds > MAX_SECONDS:
        raise RuleRefused(
            f"all conditions together take {seconds * 1_000:.0f} ms on the largest cart, at most "
            f"{MAX_SECONDS * 1_000:.0f} may be"
        )
    return compiled
