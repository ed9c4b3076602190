"""What rules make of a decision, and that nothing wins over them but stock, region, filter and the
validity of an offer."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.rule_apply import apply
from contract.rule_draft import Draft, Note, Ruled
from contract.rules import (
    BlockOffer,
    Boost,
    Exclude,
    ForceOffer,
    OrderPayments,
    Pin,
    ReplaceOffer,
    Rule,
    RuleBook,
    in_order,
)
from tests.contract.rule_shop import SmallShop

ITEMS = ("a", "b", "c", "d", "e", "f")
PATHS = {
    "a": ("food", "fruit"),
    "b": ("food",),
    "c": ("drink", "wine"),
    "d": ("drink",),
    "e": (),
    "f": ("food", "fruit"),
}
SHOP = SmallShop(
    {**PATHS, "x": ("promo",), "y": ("promo",)}, valid=frozenset({"two", "five", "ten"})
)
DRAFT = Draft(ITEMS, 3, ("five",), ("card", "invoice", "cash"), ("home", "shop"))


def rule(rule_id: str, *actions: dict[str, Any], priority: int = 0) -> Rule:
    return Rule.model_validate({"id": rule_id, "actions": actions, "priority": priority})


def applied(*rules: Rule, draft: Draft = DRAFT, shop: SmallShop = SHOP) -> Ruled:
    return apply(in_order(RuleBook(rules=rules)), draft, shop)


def pin(*items: str, position: int = 1) -> dict[str, Any]:
    return {"kind": "pin", "items": items, "position": position}


def exclude(*items: str, categories: Sequence[str] = ()) -> dict[str, Any]:
    return {"kind": "exclude", "items": items, "categories": categories}


def boost(*items: str, categories: Sequence[str] = (), places: int | None = None) -> dict[str, Any]:
    return {"kind": "boost", "items": items, "categories": categories, "places": places}


def force(offer_id: str) -> dict[str, Any]:
    return {"kind": "force_offer", "offer_id": offer_id}


@pytest.mark.parametrize(
    ("action", "items"),
    [
        (pin("x"), "xab"),
        (pin("x", "c", position=2), "axc"),
        (pin("x", position=5), "abx"),  # three places are shown: the last of them
        (pin("x", "y", position=3), "ayx"),  # the place before, where none is left after
        (exclude("a"), "bcd"),
        (exclude(categories=["food"]), "cde"),
        (exclude(*"abcde"), "f"),
        (boost("c", places=1), "acb"),
        (boost("f", "e", places=4), "eaf"),
        (boost("d"), "dab"),
        (boost(categories=["drink"]), "cda"),
        (boost("y", categories=["promo"]), "yxa"),  # not among the candidates, yet they come
        (boost("y", "f"), "fya"),  # what the models found goes first
    ],
)
def test_products_are_pinned_left_out_and_moved(action: dict[str, Any], items: str) -> None:
    ruled = applied(rule("r", action))
    assert "".join(ruled.items) == items
    assert ruled.applied == ("r",)
    named = {*action.get("items", ())} if action["kind"] != "exclude" else set()
    assert {item for item in named if item in items} <= set(ruled.by)


def test_the_higher_priority_wins_then_the_earlier_id_and_it_is_told() -> None:
    out, shown = rule("out", exclude("x")), rule("shown", pin("x"))
    assert applied(out, shown).notes == (Note("shown", "x: left out by out"),)
    assert applied(out, shown).applied == ("out",)
    ruled = applied(out, rule("shown", pin("x"), priority=1))
    assert ruled.items == ("x", "a", "b")
    assert ruled.notes == (Note("out", "x: shown by shown"),)
    assert ruled.applied == ("shown",)
    first, second = rule("first", pin("x")), rule("second", pin("y"))
    ruled = applied(second, first)
    assert ruled.items == ("x", "y", "a")
    assert ruled.notes == (Note("second", "y: at place 2, as 1 is taken"),)
    assert ruled.by == {"x": "first", "y": "second"}


def test_the_front_belongs_to_the_strongest_and_many_names_make_a_short_note() -> None:
    ruled = applied(rule("a", boost("c")), rule("b", boost("d"), priority=5))
    assert ruled.items == ("d", "c", "a")
    ruled = applied(rule("a", exclude(*ITEMS)), rule("b", boost(*ITEMS)))
    assert ruled.items == ()
    assert ruled.notes[0] == Note("b", "a, b, c and 3 more: left out by a")
    assert ruled.applied == ("a",)


def test_what_is_not_sellable_stays_out_and_is_told() -> None:
    shop = SmallShop(PATHS, gone=frozenset({"b"}))
    ruled = applied(rule("r", pin("b", "nobody knows it", "c")), shop=shop)
    assert ruled.items == ("a", "d", "c")
    assert [note.text for note in ruled.notes] == [
        "b: can not be sold in this checkout, so left out",
        "nobody knows it: can not be sold in this checkout, so left out",
    ]
    assert ruled.applied == ("r",)


@pytest.mark.parametrize(
    ("rules", "offers", "notes"),
    [
        ([rule("r", force("ten"))], ("ten",), ()),  # in place of what the model chose
        ([rule("r", force("gone"))], ("five",), ("gone: not valid for this checkout",)),
        ([rule("r", {"kind": "block_offer"})], (), ()),
        ([rule("r", {"kind": "block_offer", "offer_ids": ["ten"]})], ("five",), ()),
        ([rule("r", {"kind": "replace_offer", "offer_id": "five", "by": "ten"})], ("ten",), ()),
        (
            [rule("a", {"kind": "block_offer"}), rule("b", force("ten"))],
            (),
            ("ten: blocked by a",),
        ),
        (
            [rule("a", {"kind": "block_offer"}), rule("b", force("ten"), priority=1)],
            ("ten",),
            ("ten: given by b",),
        ),
        (
            [rule("a", force("five")), rule("b", force("ten"))],
            ("five",),
            ("ten: does not go together with five",),
        ),
        (
            [
                rule("a", {"kind": "replace_offer", "offer_id": "five", "by": "ten"}),
                rule("b", force("five")),
            ],
            ("ten",),
            ("five: replaced by a",),
        ),
        (
            [
                rule("a", {"kind": "replace_offer", "offer_id": "five", "by": "ten"}),
                rule("b", {"kind": "block_offer"}),
            ],
            ("ten",),
            ("ten: given by a",),
        ),
        (  # the stronger word about `ten` holds, whichever rule would give it
            [
                rule("a", {"kind": "replace_offer", "offer_id": "ten", "by": "two"}, priority=1),
                rule("b", {"kind": "replace_offer", "offer_id": "five", "by": "ten"}),
            ],
            ("two",),
            ("ten: replaced by a",),
        ),
        (
            [
                rule("a", {"kind": "replace_offer", "offer_id": "ten", "by": "five"}, priority=1),
                rule("b", {"kind": "replace_offer", "offer_id": "five", "by": "ten"}),
            ],
            ("five",),
            ("ten: replaced by a",),
        ),
    ],
)
def test_offers_are_forced_blocked_and_replaced(
    rules: list[Rule], offers: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    ruled = applied(*rules)
    assert ruled.offers == offers
    assert tuple(note.text for note in ruled.notes) == notes


def test_options_are_ordered_and_hidden_but_never_added_or_all_hidden() -> None:
    order = {"kind": "order_payments", "first": ["cash", "crypto"], "hide": ["invoice"]}
    ruled = applied(rule("r", order, {"kind": "order_shipping", "hide": ["home", "shop"]}))
    assert ruled.payments == ("cash", "card")
    assert ruled.shipping == ("home", "shop")
    assert len(ruled.notes) == 2
    assert ruled.applied == ("r",)
    alone = applied(rule("r", {"kind": "order_shipping", "hide": ["home", "shop"]}))
    assert alone.applied == ()
    weaker = rule("z", {"kind": "order_payments", "first": ["invoice", "card"]})
    ruled = applied(rule("r", order), weaker)
    assert ruled.payments == ("cash", "card")
    assert ruled.notes == (Note("z", "invoice: hidden by r"),)


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "pin", "items": []},
        {"kind": "pin", "items": ["a"], "position": 6},
        {"kind": "pin", "items": ["a", "a"]},
        {"kind": "exclude"},
        {"kind": "boost", "items": ["a"], "places": 0},
        {"kind": "replace_offer", "offer_id": "a", "by": "a"},
        {"kind": "order_payments"},
        {"kind": "order_payments", "first": ["a"], "hide": ["a"]},
        {"kind": "order_payments", "first": ["a"], "add": ["b"]},
        {"kind": "discount", "percent": 100},
    ],
)
def test_actions_that_mean_nothing_are_refused(action: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rule("r", action)


# --- whatever the models, the offers and the rules are ---

UNIVERSE = [f"i{number}" for number in range(14)]
CATEGORIES = ["k0", "k1", "k2", "k3"]
OFFERS = ["o0", "o1", "o2", "o3"]
PAYMENTS = ["p0", "p1", "p2", "p3"]
item = st.sampled_from(UNIVERSE)
offer = st.sampled_from(OFFERS)


def some(of: st.SearchStrategy[str], least: int = 0, most: int = 4) -> st.SearchStrategy[list[str]]:
    return st.lists(of, min_size=least, max_size=most, unique=True)


products = st.fixed_dictionaries(
    {"items": some(item, 1), "categories": some(st.sampled_from(CATEGORIES))}
)
actions = st.one_of(
    st.builds(lambda items, at: pin(*items, position=at), some(item, 1), st.integers(1, 5)),
    products.map(lambda said: {"kind": "exclude", **said}),
    st.builds(
        lambda said, places: {"kind": "boost", **said, "places": places},
        products,
        st.none() | st.integers(1, 6),
    ),
    offer.map(force),
    some(offer).map(lambda ids: {"kind": "block_offer", "offer_ids": ids}),
    some(offer, 2, 2).map(lambda ids: {"kind": "replace_offer", "offer_id": ids[0], "by": ids[1]}),
    some(st.sampled_from([*PAYMENTS, "unknown"]), 2, 4).map(
        lambda ids: {"kind": "order_payments", "first": ids[:1], "hide": ids[1:]}
    ),
)
books = st.lists(
    st.builds(
        lambda said, priority: (said, priority),
        st.lists(actions, min_size=1, max_size=3),
        st.integers(-2, 2),
    ),
    max_size=6,
).map(
    lambda made: RuleBook(
        rules=tuple(rule(f"r{n}", *said, priority=p) for n, (said, p) in enumerate(made))
    )
)
shops = st.builds(
    SmallShop,
    st.fixed_dictionaries({one: some(st.sampled_from(CATEGORIES)).map(tuple) for one in UNIVERSE}),
    st.sets(item).map(frozenset),
    st.sets(offer).map(frozenset),
    st.booleans(),
)


@st.composite
def decisions(draw: st.DrawFn) -> tuple[SmallShop, Draft]:
    """Any shop, and any decision that models could have made in it."""
    shop = draw(shops)
    candidates = [one for one in draw(st.permutations(UNIVERSE)) if shop.sellable(one)]
    count = draw(st.integers(0, len(candidates)))
    valid = [one for one in draw(st.permutations(OFFERS)) if shop.may_give(one)]
    chosen = valid[: draw(st.integers(0, len(valid) if shop.together else min(1, len(valid))))]
    payments = draw(some(st.sampled_from(PAYMENTS)))
    return shop, Draft(candidates[:count], draw(st.integers(1, 5)), chosen, payments)


@settings(max_examples=500, deadline=None)
@given(books, decisions())
def test_the_override_always_wins(book: RuleBook, made: tuple[SmallShop, Draft]) -> None:
    shop, draft = made
    rules = in_order(book)
    ruled = apply(rules, draft, shop)
    claims = [(one, action) for one in rules for action in one.actions]
    _products_are_as_the_strongest_says(claims, ruled, draft, shop)
    _offers_are_as_the_strongest_says(claims, ruled, draft, shop)
    _payments_are_as_the_strongest_says(claims, ruled, draft)
    followed, noted = set(ruled.applied), {note.rule_id for note in ruled.notes}
    idle = {one.id for one in rules} - followed - noted
    for one in rules:  # whoever was not followed and not contradicted had nothing to do
        if one.id in idle:
            assert all(
                isinstance(action, ReplaceOffer | OrderPayments | ForceOffer | Pin)
                for action in one.actions
            )
    assert apply((), draft, shop).items == tuple(draft.items[: draft.limit])


Claims = list[tuple[Rule, Any]]


def _speaks_of(action: Any, item_id: str, shop: SmallShop) -> bool:
    if not isinstance(action, Pin | Exclude | Boost):
        return False
    categories = () if isinstance(action, Pin) else action.categories
    return item_id in action.items or bool({*categories} & {*shop.paths.get(item_id, ())})


def _products_are_as_the_strongest_says(
    claims: Claims, ruled: Ruled, draft: Draft, shop: SmallShop
) -> None:
    assert len(set(ruled.items)) == len(ruled.items) <= draft.limit
    strongest = {
        one: next((action for _, action in claims if _speaks_of(action, one, shop)), None)
        for one in UNIVERSE
    }
    for shown in ruled.items:
        assert shop.sellable(shown)
        assert not isinstance(strongest[shown], Exclude)
    free = [one for one in draft.items if not isinstance(strongest[one], Exclude)]
    assert len(ruled.items) >= min(draft.limit, len(free))
    pins = [
        (one, min(action.position + offset, draft.limit))
        for _, action in claims
        if isinstance(action, Pin)
        for offset, one in enumerate(action.items)
        if shop.sellable(one) and not isinstance(strongest[one], Exclude)
    ]
    wanted = list(dict.fromkeys(one for one, _ in pins))
    assert set(wanted[: draft.limit]) <= set(ruled.items)
    if pins and len(ruled.items) == draft.limit:
        assert ruled.items[pins[0][1] - 1] == pins[0][0]
    fronts = [a for _, a in claims if isinstance(a, Boost) and a.places is None]
    if fronts:
        rest = [one for one in ruled.items if one not in wanted]
        boosts = [a for _, a in claims if isinstance(a, Boost)]

        def governed(one: str) -> bool:
            strongest_boost = next((a for a in boosts if _speaks_of(a, one, shop)), None)
            return strongest_boost is fronts[0]

        first = [one for one in rest if governed(one)]
        assert rest[: len(first)] == first
        if len(first) < len(rest):  # then none that it names was left behind
            named = [
                one
                for one in fronts[0].items
                if governed(one) and shop.sellable(one) and not isinstance(strongest[one], Exclude)
            ]
            assert set(named) <= set(ruled.items)


def _offers_are_as_the_strongest_says(
    claims: Claims, ruled: Ruled, draft: Draft, shop: SmallShop
) -> None:
    assert all(shop.may_give(one) for one in ruled.offers)
    assert shop.go_together(ruled.offers)
    for one in OFFERS:
        of_it = [
            action
            for _, action in claims
            if (isinstance(action, ForceOffer) and action.offer_id == one)
            or (isinstance(action, ReplaceOffer) and one in (action.by, action.offer_id))
            or (
                isinstance(action, BlockOffer) and (not action.offer_ids or one in action.offer_ids)
            )
        ]
        if of_it and isinstance(of_it[0], BlockOffer):
            assert one not in ruled.offers
        forcing = [a for _, a in claims if isinstance(a, ForceOffer | ReplaceOffer)]
        if of_it and isinstance(of_it[0], ForceOffer) and forcing[0] is of_it[0]:
            assert (one in ruled.offers) == shop.may_give(one)
        if of_it and _replaces_first(of_it[0], one, forcing, claims, shop):
            assert one not in ruled.offers
        if not of_it and one in ruled.offers:
            assert one in draft.offers


def _replaces_first(
    action: Any, offer_id: str, forcing: Sequence[Any], claims: Claims, shop: SmallShop
) -> bool:
    """Whether `action` replaces the offer by one that nothing stronger speaks against."""
    if not isinstance(action, ReplaceOffer) or action.offer_id != offer_id:
        return False
    before = [one for _, one in claims[: [one for _, one in claims].index(action)]]
    blocked = any(
        isinstance(one, BlockOffer) and (not one.offer_ids or action.by in one.offer_ids)
        for one in before
    )
    return forcing[0] is action and shop.may_give(action.by) and not blocked


def _payments_are_as_the_strongest_says(claims: Claims, ruled: Ruled, draft: Draft) -> None:
    assert set(ruled.payments) <= set(draft.payments)
    assert bool(ruled.payments) == bool(draft.payments)
    orders = [action for _, action in claims if isinstance(action, OrderPayments)]
    if not orders:
        assert ruled.payments == tuple(draft.payments)
    elif orders[0].first[0] in draft.payments:
        assert ruled.payments[0] == orders[0].first[0]
