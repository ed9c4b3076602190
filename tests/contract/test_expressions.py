"""Conditions: what they may say, what is refused when one is saved, and that a checkout goes on."""

import time

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from contract.events import EventContext
from contract.expression_variables import (
    VARIABLES,
    CartLine,
    Suggested,
    Value,
    cart_values,
    context_values,
    decision_values,
    hostile_samples,
    shopper_values,
    variables_of,
)
from contract.expressions import (
    MAX_SECONDS,
    Expression,
    ExpressionRefused,
    Facts,
    checked,
    parse,
)
from tests.contract.examples import PROVE

FACTS = Facts(
    shopper_values(
        known=True, signed_in=True, first_order=False, orders=4, segments=("repeat_buyers",)
    )
    | cart_values(
        [CartLine("milk", 2, 120, ("dairy",)), CartLine("milk", 1, None), CartLine("wine", 1, 900)],
        "EUR",
    )
    | context_values(EventContext(device="mobile", country="DE"), None)
    | decision_values(Suggested(("bread",), ("bakery",), ("welcome",)))
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("true", True),
        ("'repeat_buyers' in segments && shopper.orders >= 4", True),
        ("cart.total == 2 * 120 + 900", True),  # a line without a price counts nothing
        ("cart.quantity == 4 && cart.quantities['milk'] == 3", True),
        ("'dairy' in cart.categories || false", True),
        ("context.device in ['tablet', 'mobile']", True),
        ("context.hour == -1 && context.weekday == '' && context.region == ''", True),
        ("decision.items.exists(item, item.startsWith('br'))", True),
        ("'welcome' in decision.offers && !shopper.first_order", True),
        ("double(cart.total) * 0.1 > 113.0", True),
        ("cart.currency.matches('^(USD|GBP)$')", False),
        ("cart.quantities['bread'] > 1", None),  # there is none in this cart
        ("shopper.orders / (shopper.orders - 4) > 1", None),
        ("9223372036854775807 + shopper.orders > 0", None),
    ],
)
def test_a_condition_is_read_as_its_makers_read_it(text: str, holds: bool | None) -> None:
    expression = checked(text)
    assert expression.holds(FACTS) is holds
    assert (expression.fault(FACTS) is None) == (holds is not None)


def test_what_it_reads_is_known() -> None:
    read = checked("'vip' in segments && cart.total > 5000").variables
    assert read == {"segments", "cart.total"}
    assert checked("cart.items.exists(segment, segment == 'a')").variables == {"cart.items"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("true" + " " * 1_000, "longer than 1000"),
        ("cart.total > ", "character 14: Syntax error"),
        ("cart.total > 'a'", "character 12: found no matching overload"),
        ("cart.total > 50.0", "character 12"),  # whole amounts and fractions are not mixed
        ("true\n && cart.totl > 3", "line 2, character 9: undeclared reference to 'cart.totl'"),
        ("nobody.knows", "undeclared reference"),
        ("cart.total", "must say yes or no, and is of type int"),
        ("cart.items.exists(a, cart.items.exists(b, a == b))", "inside another"),
        ("cart.items.all(a, true) || " * 2 + "cart.items.all(a, true)", "goes over lists 3 times"),
        ("&&".join(["1>0"] * 100), "parts, at most"),
        ("dyn(cart.total) == 'a'", "must not use dyn"),
        ("type(cart.total) == int", "must not use"),
        ("timestamp('2020-01-01T00:00:00Z').getHours() == 1", "must not use"),
        ("{'a': 1}['a'] == 1", "must not make maps"),
        ("google.protobuf.Duration{} == google.protobuf.Duration{}", "must not make maps"),
        ("'a'.matches(cart.currency)", "pattern must be written out"),
        ("'a'.matches('(')", "matches: invalid regular expression"),
        ("cart.items.exists(a, a.matches('[a-'))", "matches: invalid regular expression"),
        ("cart.total > 1 || 'a'.matches('(a{1000}){1000}')", "matches: "),
        ("segments.all(a, a == \"'\" || a.matches(r'\\d\"('))", "matches: "),
        ("1 / 0 == 1", "could never be evaluated: divide by zero"),
        ("cart.items.map(i, i + i + i + i).exists(j, j == 'a')", "takes too long"),
        ("(" * 400 + "true" + ")" * 400, "recursion"),
        ("\ud800 == 'a'", "is not text"),
    ],
)
def test_what_is_wrong_or_slow_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ExpressionRefused, match=why.replace("(", r"\(")):
        checked(text)


def test_what_is_very_slow_is_found_out_on_a_small_cart(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def evaluated(expression: Expression, facts: Facts) -> bool | None:
        lines = facts.values["cart.items"]
        assert isinstance(lines, list)
        tried.append(len(lines))
        return expression.by_the_library(facts)

    monkeypatch.setattr(Expression, "holds", evaluated)
    with pytest.raises(ExpressionRefused, match="takes too long"):
        checked("cart.items.exists(a, a.matches('(a{1,100}){1,10}$'))")
    assert max(tried) == 5


def test_an_offer_cannot_speak_of_the_decision_that_it_is_part_of() -> None:
    with pytest.raises(ExpressionRefused, match="undeclared"):
        checked("decision.rung == 'full'", "offer")
    offered = {one.name for one in variables_of("offer")}
    facts = Facts({k: v for k, v in FACTS.values.items() if k in offered}, "offer")
    assert checked("cart.total > 1000", "offer").holds(facts)


@pytest.mark.parametrize("values", [{}, {"cart.total": "much"}, {"cart.total": 2**70}])
def test_values_that_are_missing_or_wrong_fail_and_do_not_raise(values: dict[str, object]) -> None:
    facts = Facts(values)  # type: ignore[arg-type]
    assert checked("cart.total + 1 > 2").holds(facts) is None
    # More than the library can count with is no fault where nothing is counted.
    assert checked("cart.total > 1").holds(facts) is (True if 2**70 in values.values() else None)


def test_every_variable_has_a_value_in_every_sample() -> None:
    for sample in hostile_samples():
        assert set(sample) == {one.name for one in VARIABLES}
        facts = Facts(sample)
        for one in VARIABLES:
            said = "true" if one.kind == "bool" else "1" if one.kind == "int" else "'a'"
            empty = {"list of string": "[]", "map of int by string": None}.get(one.kind, said)
            text = f"{one.name} == {empty} || true" if empty else f"size({one.name}) >= 0"
            assert parse(text).holds(facts) is True


NAMES = st.sampled_from([one.name for one in VARIABLES])
WORDS = st.sampled_from(
    [
        *"()[]{}?:.,+-*/%!<>=&|'\"\\",
        "&&",
        "||",
        "in",
        "==",
        "exists",
        "all",
        "map",
        "a",
        "1",
        "true",
    ]
)


@given(st.lists(st.one_of(NAMES, WORDS, st.text(max_size=3)), max_size=40).map(" ".join))
def test_any_text_is_refused_or_evaluated_in_time(text: str) -> None:
    try:
        expression = checked(text)
    except ExpressionRefused:
        return
    for sample in hostile_samples():
        began = time.thread_time()
        assert expression.holds(Facts(sample)) in (True, False, None)
        assert time.thread_time() - began < 50 * MAX_SECONDS


# Expressions of every kind that is evaluated without the library, over what may be missing.
TEXTS = st.sampled_from(("cart.currency", "context.country", "'DE'", "''", "'a'"))
COUNTS = st.sampled_from(("cart.total", "shopper.orders", "0", "3", "-1", "size(cart.items)"))
LISTS = st.sampled_from(("cart.items", "segments", "cart.categories", "['a', 'DE']", "[]"))
SIGNS = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))
PLAIN = st.one_of(
    st.sampled_from(("true", "shopper.known", "shopper.signed_in", "'a' in cart.quantities")),
    st.builds("{} {} {}".format, TEXTS, SIGNS, TEXTS),
    st.builds("{} {} {}".format, COUNTS, SIGNS, COUNTS),
    st.builds("{} in {}".format, TEXTS, LISTS),
)
MACROS = st.builds(
    "{}.{}({}, {})".format,
    LISTS,
    st.sampled_from(("exists", "all")),
    st.sampled_from(("one", "segments")),
    st.one_of(PLAIN, st.sampled_from(("one == 'a'", "one in segments", "segments != 'DE'"))),
)
EXPRESSIONS = st.recursive(
    PLAIN | MACROS,
    lambda inner: st.one_of(
        st.builds("!({})".format, inner),
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
    ),
    max_leaves=6,
)
KNOWN = st.fixed_dictionaries(
    {},
    optional={
        "cart.currency": st.sampled_from(("DE", "a", "")),
        "context.country": st.sampled_from(("DE", "")),
        "cart.total": st.integers(-2, 4),
        "shopper.orders": st.integers(-1, 3),
        "shopper.known": st.booleans(),
        "shopper.signed_in": st.booleans(),
        "cart.items": st.lists(st.sampled_from(("a", "DE", "b")), max_size=3),
        "cart.categories": st.lists(st.sampled_from(("a", "DE")), max_size=2),
        "segments": st.lists(st.sampled_from(("a", "b")), max_size=2),
        "cart.quantities": st.sampled_from(({}, {"a": 1})),
    },
)


@settings(max_examples=3_000 if PROVE else 300, deadline=None)
@given(EXPRESSIONS, KNOWN)
def test_what_is_evaluated_here_is_what_the_library_says(
    text: str, known: dict[str, Value]
) -> None:
    try:
        expression = parse(text, "offer")
    except ExpressionRefused:  # `one` outside of its macro, too many macros, [] < ...
        reject()
    assert expression._steps is not None
    facts = Facts(known, "offer")
    assert expression.holds(facts) is expression.by_the_library(facts)


def test_what_is_not_evaluated_here_is_left_to_the_library() -> None:
    for text in (
        *("cart.total + 1 > 2", "cart.quantities['milk'] == 3", "cart.currency.startsWith('E')"),
        *("cart.items.exists_one(one, one == 'milk')", "double(cart.total) > 1.5"),
    ):
        expression = parse(text)
        assert expression._steps is None
        assert expression.holds(FACTS) is True
