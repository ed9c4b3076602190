from dataclasses import replace
from math import expm1, log, log1p, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import candidates
from contract.candidates import (
    LOOKED,
    LOOKED_MINUTES,
    MAX_CANDIDATES,
    gather,
    looked_at,
    merge,
    purchased,
    sources_of,
    sources_within,
)
from contract.encoding import FIRST_ITEM, Situation, Vocabulary
from contract.events import Event
from contract.items import Floats, Indices
from contract.pair_features import (
    COUNTING_FEATURES,
    PAIR_FEATURES,
    pair_features,
)
from contract.quotas import QUOTAS
from tests.contract.examples import event, many, us
from tests.contract.shop import (
    BREAD,
    EGGS,
    MILK,
    SOAP,
    TEA,
    VOCABULARY,
    indices,
    item_table,
    neighbours,
    random_table,
    sessions,
    situation,
    situations,
)

# Bought milk and bread on day 0, milk and soap on day 60; now it is day 120.
TOLD = situation(
    event(1, day=0, items=["milk", "bread", "caviar"]),
    event(2, day=60, items=["milk", "soap"]),
    day=120,
    cart=("bread", "champagne", "eggs"),
)


def test_purchased_in_the_vocabulary() -> None:
    own = purchased(TOLD, VOCABULARY)
    assert own.index.tolist() == [MILK, BREAD, SOAP]
    assert own.column("baskets").tolist() == [2, 1, 1]
    assert own.column("weight_60d").tolist() == pytest.approx([1 / 4 + 1 / 2, 1 / 4, 1 / 2])
    assert own.column("days_since").tolist() == [60, 120, 60]
    assert own.column("gap_days").tolist() == [60, 0, 0]
    assert own.column("in_last").tolist() == [1, 0, 1]


def test_pair_features_by_hand() -> None:
    table, vectors = item_table(), np.zeros((len(VOCABULARY), 2), np.float32)
    vectors[[TEA, MILK, SOAP], 0] = (1, 2, 3)
    evidence = gather(
        TOLD, VOCABULARY, neighbours(), sessions(), query_vector=np.array([1, 9], np.float32)
    )
    matrix = pair_features(evidence, indices(TEA, MILK, SOAP), table, vectors)
    old, new = 2 ** (-120 / 14), 2 ** (-60 / 14)
    # A cosine times the root of the baskets' ratio is the share of the cart item's baskets.
    with_bread = 0.5 * sqrt(expm1(3) / expm1(2.5))
    with_eggs = 0.25 * sqrt(expm1(3) / expm1(2))
    lift_bread = 0.5 * 20 / sqrt(expm1(3) * expm1(2.5))
    lift_eggs = 0.25 * 20 / sqrt(expm1(3) * expm1(2))
    usual = (  # milk in both baskets, 60 days apart; soap in the newer one
        ("baskets", (0, 1, 1 / 2)),
        ("days_since", (7, log1p(60), log1p(60))),
        ("due_ratio", (0, 60 / 60, 0)),
        ("weight", (0, 1 + 0.9, 1)),
        ("items", (0, log1p(1), log1p(1))),
        ("item_share", (0, 1, 1)),
        ("item_lead", (0, 1, 1)),
    )
    everywhere = {
        "subject_known": 1,
        "subject_baskets": log1p(2),
        "days_since_visit": log1p(60),
        "cart_size": log1p(2),  # champagne is not in the vocabulary
        "sequence": 0,
    }
    expected = {
        "baskets": (0, log1p(2), log1p(1)),
        "basket_share": (0, 2 / 2, 1 / 2),
        "weight_60d": (0, log1p(3 / 4), log1p(1 / 2)),
        "weight_14d": (0, log1p(old + new), log1p(new)),
        "weight_rank": (0, 1, 1 / 2),
        "days_since_bought": (7, log1p(60), log1p(60)),
        "due_ratio": (0, 60 / 60, 60 / 30),  # milk's own gap; for soap the usual one
        "own_gap_days": (0, log1p(60), 0),
        "in_last_basket": (0, 1, 1),
        "category_weight": (0, log1p(3 / 4), log1p(1 / 2)),
        "wide_category_weight": (0, log1p(3 / 4), log1p(1 / 2)),
        "cart_similarity": (0, 0.5 + 0.25, 0),
        "cart_similarity_mean": (0, (0.5 + 0.25) / 2, 0),
        # eggs: 2/2 at place 1, bread: 1/2 at place 2; milk stands in two of three sessions
        "session_knn": (0, log1p((0.9 + 0.5 * 0.8) * log(3 / 2)), 0),
        "category_in_cart": (0, 0, 0),
        "wide_category_in_cart": (0, log1p(1), 0),  # eggs are DAIRY too
        "popularity": (0, 3, 1),
        "recent_popularity": (0, 2, 1.5),
        "trend": (0, 2 - 3, 1.5 - 1),
        "repeat_rate": (0, 0.5, 1),
        "item_gap_days": (0, log1p(7), log1p(30)),
        "price": (0, 5, 2),
        "query_tower": (-1 / sqrt(2 / 3), 0, 1 / sqrt(2 / 3)),  # 1, 2, 3 standardised
        "weekly_popularity": (0, 1, 0),
        "buyers": (0, 2, 0.5),
        "baskets_per_buyer": (0, log1p(expm1(3) / expm1(2)), log1p(expm1(1))),
        # of milk 5, bread 4 and soap 2, each by its weight; tea has no price
        "price_against_own": (0, 5 - 5.75 / 1.5, 2 - 5.75 / 1.5),
        # bread stood in one basket of two known items, beside milk
        "own_similar": (0, 1 / sqrt(2 * 2), 0),
        "own_together": (0, 1, 0),
        "own_together_rare": (0, 1, 0),
        "own_lift": (0, 1 / (2 * (1 / 2) + 0.5), 0),
        **{f"{level}_{name}": values for level in ("narrow", "wide") for name, values in usual},
        "staples_similarity": (0, 0.5 * log1p(1 / 4), 0),  # bread and milk
        "cart_nearest": (0, 0.5, 0),
        "cart_second": (0, 0.25, 0),
        "cart_chance": (0, -log(1 - with_bread) - log(1 - with_eggs), 0),
        "cart_best_chance": (0, with_bread, 0),
        "cart_lift": (0, (log1p(lift_bread) + log1p(lift_eggs)) / 2, 0),
        "narrow_lift": (0, (1.5 + 0.5) / 2, -(1 + 0.5) / 2),
        "narrow_lift_max": (0, 1.5, -0.5),
        "wide_lift": (0, (1 + 2) / 2, -(0.5 + 1) / 2),
        "wide_lift_max": (0, 2, -0.5),
        **{name: (value,) * 3 for name, value in everywhere.items()},
    }
    assert set(expected) == set(PAIR_FEATURES)
    for name, column in zip(PAIR_FEATURES, matrix.T, strict=True):
        assert column.tolist() == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name


def test_long_overdue_is_capped_and_short_gaps_count_as_a_day() -> None:
    told = situation(event(1, items=["bread"]), day=3)  # bread: usual gap half a day
    evidence = gather(told, VOCABULARY, neighbours(), None)
    vectors = np.zeros((len(VOCABULARY), 2), np.float32)
    due = PAIR_FEATURES.index("due_ratio")
    assert pair_features(evidence, indices(BREAD), item_table(), vectors)[0, due] == 3 / 1
    later = gather(situation(event(1, items=["bread"]), day=300), VOCABULARY, neighbours(), None)
    assert pair_features(later, indices(BREAD), item_table(), vectors)[0, due] == 5


def test_no_category_is_not_a_category() -> None:
    """Tea has none: another item without one is not like it."""
    told = situation(event(1, items=["tea", "milk"]), day=0, cart=("tea", "eggs"))
    evidence = gather(told, VOCABULARY, neighbours(), None)
    vectors = np.zeros((len(VOCABULARY), 2), np.float32)
    matrix = pair_features(evidence, indices(TEA, MILK, BREAD), item_table(), vectors)
    columns = {name: matrix[:, at].tolist() for at, name in enumerate(PAIR_FEATURES)}
    assert columns["category_weight"] == pytest.approx([0, log1p(1), 0])
    assert columns["wide_category_weight"] == pytest.approx([0, log1p(1), 0])
    assert columns["category_in_cart"] == [0, 0, 0]
    assert columns["wide_category_in_cart"] == pytest.approx([0, log1p(1), 0])


def vector(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@many
@given(
    situations(),
    st.integers(0, 10**6),
    st.lists(st.integers(0, len(VOCABULARY) - 1), unique=True),
    st.booleans(),
    st.sampled_from((0.0, 1e-6, 1.0, 1e6)),
)
def test_pair_features_are_always_finite(
    told: Situation, seed: int, wanted: list[int], modelled: bool, scale: float
) -> None:
    query = vector(seed, 4) * np.float32(scale) if modelled else None
    knn = sessions() if modelled else None
    evidence = gather(
        told, VOCABULARY, neighbours(), knn, query_vector=query, sequence_vector=query
    )
    vectors = vector(seed + 1, len(VOCABULARY), 4)
    with np.errstate(all="raise", under="ignore"):
        matrix = pair_features(evidence, indices(*wanted), random_table(seed), vectors)
    assert matrix.shape == (len(wanted), len(PAIR_FEATURES))
    assert matrix.dtype == np.float32
    assert np.isfinite(matrix).all()


@many
@given(situations(), st.integers(0, 10**6), st.permutations(range(FIRST_ITEM, len(VOCABULARY))))
def test_order_of_the_candidates_does_not_matter(
    told: Situation, seed: int, order: list[int]
) -> None:
    evidence = gather(told, VOCABULARY, neighbours(), sessions())
    table, vectors = random_table(seed), vector(seed, len(VOCABULARY), 4)
    index = indices(*order)
    shuffled = pair_features(evidence, index, table, vectors)
    straight = pair_features(evidence, np.sort(index), table, vectors)
    assert shuffled[np.argsort(index)].tolist() == straight.tolist()


def test_a_shop_that_knows_nothing() -> None:
    empty = gather(situation(day=0), Vocabulary(()), neighbours(), None)
    sources = sources_of(empty, indices())
    assert [found.tolist() for found in sources.values()] == [[], [], [], []]
    assert merge(sources, empty.cart).brought.shape == (0, len(QUOTAS))


def test_counting_features_need_no_model() -> None:
    assert set(PAIR_FEATURES) - set(COUNTING_FEATURES) == {"query_tower", "sequence"}


@pytest.mark.parametrize("away", [(), (MILK,), (BREAD, TEA), (MILK, SOAP, EGGS, TEA)])
def test_sources_within_what_may_be_shown(away: tuple[int, ...]) -> None:
    """The same sources without `away`; popular ones are filled up with others."""
    evidence = gather(TOLD, VOCABULARY, neighbours(), sessions())
    mask = np.ones(len(VOCABULARY), bool)
    mask[[*range(FIRST_ITEM), *away]] = False
    usual, every = indices(TEA, MILK), indices(TEA, MILK, EGGS, BREAD, SOAP)
    every.flags.writeable = False  # as those of a release are
    found = sources_within(evidence, mask, int(mask.sum()), usual, every)
    expected = sources_of(evidence, every)
    assert list(found) == list(expected)
    assert {name: items.tolist() for name, items in found.items()} == {
        name: [item for item in items.tolist() if mask[item]] for name, items in expected.items()
    }


def test_sources_by_hand() -> None:
    evidence = gather(TOLD, VOCABULARY, neighbours(), sessions())
    sources = sources_of(evidence, indices(TEA, MILK))
    assert {name: found.tolist() for name, found in sources.items()} == {
        "personal": [MILK, SOAP, BREAD],  # weights 3/4, 1/2, 1/4
        "neighbours": [MILK, BREAD, EGGS],  # 3/4, 1/8, 1/8
        "session_knn": [MILK],
        "popular": [TEA, MILK],
    }
    merged = merge(sources, evidence.cart)
    assert merged.index.tolist() == [MILK, SOAP, TEA]
    names = list(QUOTAS)
    brought = [{names[s] for s in np.flatnonzero(row)} for row in merged.brought]
    assert brought == [
        {"personal", "neighbours", "session_knn", "popular"},
        {"personal"},
        {"popular"},
    ]


def slow_merge(
    sources: dict[str, list[int]], exclude: set[int], limit: int
) -> dict[int, list[bool]]:
    """Item -> which source brought it."""
    cut = {
        name: [item for item in sources.get(name, []) if item >= 2 and item not in exclude][:quota]
        for name, quota in QUOTAS.items()
    }
    places: dict[int, tuple[int, int]] = {}
    for trust, found in enumerate(cut.values()):
        for place, item in enumerate(found):
            if item >= FIRST_ITEM and item not in exclude:
                places[item] = min(places.get(item, (place, trust)), (place, trust))
    kept = sorted(places, key=lambda item: places[item])[:limit]
    return {item: [item in found for found in cut.values()] for item in sorted(kept)}


@many
@given(
    st.dictionaries(
        st.sampled_from([*QUOTAS, "unheard of"]), st.lists(st.integers(0, 30), max_size=12)
    ),
    st.sets(st.integers(0, 30), max_size=8),
    st.integers(0, 30),
)
def test_merge_against_the_slow_way(
    sources: dict[str, list[int]], exclude: set[int], limit: int
) -> None:
    arrays: dict[str, Indices] = {name: indices(*found) for name, found in sources.items()}
    merged = merge(arrays, indices(*exclude), limit)
    expected = slow_merge(sources, exclude, limit)
    assert merged.index.tolist() == list(expected)
    assert merged.brought.tolist() == list(expected.values())


def test_quotas_and_the_limit() -> None:
    blocks = {name: 1_000 * n + np.arange(500) for n, name in enumerate(QUOTAS, start=1)}
    merged = merge(blocks, indices())
    assert sum(QUOTAS.values()) > MAX_CANDIDATES == len(merged.index)
    # In the first 40 places all six sources stand; of the next ones four: the 40 x 6 = 240 items
    # are all in, the 16 left are the places 40..43 of the four longer sources.
    per_source = dict(zip(QUOTAS, merged.brought.sum(axis=0).tolist(), strict=True))
    assert per_source == {
        "personal": 44,
        "neighbours": 44,
        "session_knn": 40,
        "query_tower": 44,
        "sequence": 44,
        "popular": 40,
    }
    for name, quota in QUOTAS.items():
        alone = merge({name: blocks[name]}, indices())
        assert alone.index.tolist() == blocks[name][:quota].tolist()


def test_knn_scores_leave_the_cart_out() -> None:
    found = candidates.knn_scores(sessions(), indices(MILK, EGGS))
    assert found.index.tolist() == [BREAD]


def test_time_runs_backwards_without_harm() -> None:
    """A view may be asked for a moment before the subject's latest event."""
    early = situation(event(1, day=5), day=0)
    assert purchased(early, VOCABULARY).index.tolist() == []
    assert us(0) == early.now_us


MINUTE = 1 / (24 * 60)


def viewed(number: int, minutes: float, *items: str, name: str = "view_item") -> Event:
    """Looked at, so many minutes after day 1."""
    return event(number, name, day=1 + minutes * MINUTE, items=items)


def looked(told: Situation, *cart: int) -> list[int]:
    found: list[int] = looked_at(told, VOCABULARY, indices(*cart)).tolist()
    return found


def test_what_was_looked_at_of_late_each_once_the_latest_last() -> None:
    log = [
        viewed(1, 0, "tea"),  # too long ago
        viewed(2, 10, "soap"),
        viewed(3, 20, "milk", "caviar"),
        viewed(4, 25, "eggs", name="hover"),
        viewed(5, 30, "soap"),
    ]
    now = 1 + LOOKED_MINUTES * MINUTE
    told = situation(*log, day=now)
    assert looked(told) == [MILK, SOAP]
    assert looked(told, MILK) == [SOAP]  # the cart counts as the cart
    page = replace(told, recent_items=("bread", "milk", "champagne"))
    assert looked(page) == [SOAP, BREAD, MILK]
    assert looked(situation(*log, day=2)) == []
    bought = event(6, day=1 + 22 * MINUTE, items=["tea"])
    assert looked(situation(*log, bought, day=now)) == [SOAP]  # the visit before is over
    assert looked(situation(day=1)) == []


def test_only_the_latest_that_were_looked_at_count() -> None:
    many_items = tuple(f"item-{n}" for n in range(2 * LOOKED))
    vocabulary = Vocabulary(many_items)
    told = replace(situation(day=0), recent_items=many_items)
    latest = vocabulary.indices(many_items[-LOOKED:]).tolist()
    assert looked_at(told, vocabulary, indices()).tolist() == latest


def test_what_was_looked_at_counts_as_the_cart_does_and_may_be_suggested() -> None:
    """The same as with the items in the cart, but for the cart's own size and its items' place."""
    page = replace(situation(day=1, cart=("bread",)), recent_items=("eggs",))
    with_look = gather(page, VOCABULARY, neighbours(), sessions())
    as_cart = gather(situation(day=1, cart=("eggs", "bread")), VOCABULARY, neighbours(), sessions())
    assert with_look.intent.tolist() == as_cart.cart.tolist() == [EGGS, BREAD]
    vectors = np.zeros((len(VOCABULARY), 2), np.float32)
    index = indices(TEA, MILK, SOAP)
    one, other = (
        pair_features(evidence, index, item_table(), vectors) for evidence in (with_look, as_cart)
    )
    size = PAIR_FEATURES.index("cart_size")
    assert (one[:, size] == np.float32(log1p(1))).all()
    assert np.delete(one, size, axis=1).tolist() == np.delete(other, size, axis=1).tolist()
    assert one[1, PAIR_FEATURES.index("cart_similarity")] == pytest.approx(0.25 + 0.5)
    offered = merge({"popular": indices(BREAD, EGGS)}, with_look.cart)
    assert offered.index.tolist() == [EGGS]
