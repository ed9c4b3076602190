"""Which rules hold: the same with the index as without it, and in the time that was promised."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.events import EventContext
from contract.expression_variables import (
    CartLine,
    Suggested,
    Value,
    cart_values,
    context_values,
    decision_values,
    hostile_samples,
    shopper_values,
)
from contract.expressions import Facts, parse
from contract.rule_set import RuleRefused, RuleSet, checked_set
from contract.rules import Rule, RuleBook

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)  # a Monday
HERE = EventContext(country="DE", timezone="Europe/Berlin")


def rule(rule_id: str, condition: str | None = None, **more: Any) -> Rule:
    actions = [{"kind": "pin", "items": ["x"]}]
    return Rule.model_validate({"id": rule_id, "condition": condition, "actions": actions} | more)


def facts(**said: Any) -> Facts:
    """A checkout in which little is known but what is said."""
    values: dict[str, Value] = (
        shopper_values(
            known=said.get("known", False),
            signed_in=False,
            first_order=None,
            orders=said.get("orders", 0),
            segments=said.get("segments", ()),
        )
        | cart_values(
            [CartLine(one, 1, 100, (f"of {one}",)) for one in said.get("cart", ())], "EUR"
        )
        | context_values(EventContext(country=said.get("country")), None)
        | decision_values(Suggested(said.get("items", ())))
    )
    return Facts(values)


def names(rules: RuleSet, at: Facts, now: datetime = NOON, here: Any = HERE) -> list[str]:
    return [one.id for one in rules.matching(at, now, here).rules]


def test_the_strongest_first_and_without_the_disabled() -> None:
    book = RuleBook(
        rules=(
            rule("b"),
            rule("a"),
            rule("off", enabled=False, priority=9),
            rule("top", "cart.total >= 200", priority=5),
        )
    )
    rules = RuleSet(book)
    assert len(rules) == 3
    assert names(rules, facts(cart="xy")) == ["top", "a", "b"]
    assert names(rules, facts(cart="x")) == ["a", "b"]
    assert rules.variables == {"cart.total"}
    assert names(RuleSet(), facts()) == []


@pytest.mark.parametrize(
    ("schedule", "holds"),
    [
        ({}, True),
        ({"valid_from": "2026-01-05T12:00:00Z", "valid_until": "2026-01-05T13:00:00Z"}, True),
        ({"valid_until": "2026-01-05T12:00:00Z"}, False),
        ({"valid_from": "2026-01-05T12:00:01Z"}, False),
        ({"weekdays": ["monday"], "hours": {"from_hour": 13, "until_hour": 14}}, True),  # in Berlin
        ({"hours": {"from_hour": 7, "until_hour": 8}, "timezone": "America/New_York"}, True),
        ({"hours": {"from_hour": 8, "until_hour": 9}, "timezone": "America/New_York"}, False),
        ({"countries": ["FR"]}, False),
    ],
)
def test_a_schedule_is_by_the_gateways_clock_in_the_zone_that_it_names(
    schedule: dict[str, Any], holds: bool
) -> None:
    assert names(RuleSet(RuleBook(rules=(rule("r", schedule=schedule),))), facts()) == ["r"] * holds


def test_a_condition_that_fails_does_not_hold_and_says_so() -> None:
    book = RuleBook(rules=(rule("bad", "cart.quantities['x'] > 1"), rule("good", "true")))
    rules = RuleSet(book)
    matched = rules.matching(facts(cart="y"), NOON, None)
    assert ([one.id for one in matched.rules], matched.failed) == (["good"], ("bad",))
    assert list(rules.failing(facts(cart="y"))) == ["bad"]
    assert "Key not found" in rules.failing(facts(cart="y"))["bad"]
    assert not rules.matching(facts(cart="x"), NOON, None).failed


def test_what_is_wrong_is_refused_with_its_place_also_in_a_disabled_rule() -> None:
    book = RuleBook(rules=(rule("a"), rule("b", "segmets == []", enabled=False)))
    with pytest.raises(RuleRefused, match="character 1: undeclared") as refused:
        checked_set(book)
    assert (refused.value.place, refused.value.rule_id) == (1, "b")
    assert refused.value.field == "condition"


def test_many_slow_conditions_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.rule_set.MAX_SECONDS", 0.001)  # on however quick a machine
    slow = "cart.items.filter(i, i.contains('b')).size() == {} || cart.total == {}"
    book = RuleBook(rules=tuple(rule(f"r{n}", slow.format(n, n)) for n in range(400)))
    with pytest.raises(RuleRefused, match="all conditions together take"):
        checked_set(book)


ATOMS = st.sampled_from(
    [
        *("'a' in segments", "'b' in segments", "'x' in cart.items", "'y' in cart.quantities"),
        *("shopper.known", "!shopper.known", "shopper.known == true", "'of x' in cart.categories"),
        *("context.country == 'DE'", "'FR' == context.country", "context.country in ['DE', 'AT']"),
        *("cart.total >= 200", "200 > cart.total", "cart.total == 100", "cart.total <= 100"),
        *(
            "shopper.orders in [1, 2]",
            "shopper.orders > 1",
            "cart.quantities['x'] > 0",
            "1 / 0 > 0",
        ),
        *("context.country != 'DE'", "decision.items.exists(i, i == 'p')", "segments == ['a']"),
        *(
            "size(cart.items) > 1",
            "cart.currency == 'EUR'",
            "true",
            "false",
            "'p' in decision.items",
        ),
    ]
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({}) ? ({}) : ({})".format, inner, inner, inner),
    ),
    max_leaves=6,
).filter(lambda text: text.count("exists") < 3)
CHECKOUTS = st.builds(
    facts,
    known=st.booleans(),
    orders=st.integers(0, 3),
    segments=st.lists(st.sampled_from("abc"), unique=True),
    cart=st.lists(st.sampled_from("xyz"), unique=True),
    country=st.sampled_from(["DE", "FR", None]),
    items=st.lists(st.sampled_from("pq"), unique=True).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(CONDITIONS, max_size=12), CHECKOUTS)
def test_the_index_finds_what_evaluating_everything_finds(conditions: list[str], at: Facts) -> None:
    book = RuleBook(rules=tuple(rule(f"r{n:02}", one) for n, one in enumerate(conditions)))
    held = [one.id for one in book.rules if parse(one.condition or "").holds(at)]
    assert names(RuleSet(book), at) == held


def test_every_hostile_sample_passes_a_book_of_everything() -> None:
    book = RuleBook(rules=(rule("a", "'a' in cart.items || shopper.orders > 2"), rule("b")))
    rules = checked_set(book)
    for sample in hostile_samples():
        assert "b" in names(rules, Facts(sample))
