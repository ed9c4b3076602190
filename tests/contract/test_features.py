"""Every feature, however its events arrive, and against definitions that are slow and obvious."""

from collections import defaultdict
from dataclasses import replace
from itertools import permutations
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import features
from contract.events import Event, key_of
from contract.features import (
    FEATURES,
    PURCHASES,
    RECENT_INTERACTIONS,
    RECENT_SEARCHES,
    SHOPPING_RHYTHM,
    UNKNOWN,
    Feature,
    SubjectState,
    by_key,
    feature_hash,
)
from contract.text import token_numbers
from tests.contract.examples import arrivals, event, folded, frame_of, logs, many, same, us

BIG = 10**6
SMALL_AND_LARGE = [replace(f, capacity=c) for f in FEATURES for c in (3, f.capacity)]
Arrival = tuple[list[Event], list[Event]]


def named(feature: Feature) -> str:
    return f"{feature.name}-{feature.capacity}"


@many
@given(arrivals())
def test_order_and_repetition_do_not_matter(arrival: Arrival) -> None:
    log, arrived = arrival
    for feature in SMALL_AND_LARGE:
        assert same(folded(feature, arrived), folded(feature, log)), named(feature)


@many
@given(arrivals())
def test_replay_is_update(arrival: Arrival) -> None:
    log, arrived = arrival
    frame = frame_of(arrived)
    for feature in SMALL_AND_LARGE:
        replayed = feature.replay(frame)
        for subject in {one.subject_id for one in log}:
            live = folded(feature, [one for one in log if one.subject_id == subject])
            assert same(replayed.get(str(subject), feature.nothing), live), named(feature)
        assert all(len(rows) for rows in replayed.values()), named(feature)


@pytest.mark.parametrize("feature", SMALL_AND_LARGE, ids=named)
def test_replay_of_nothing(feature: Feature) -> None:
    assert feature.replay(frame_of([])) == {}
    assert feature.replay(frame_of([event(1, "page_view", items=())])) == {}


@many
@given(logs(), st.integers(-1, 5))
def test_value_looks_at_nothing_later(log: list[Event], eighth: int) -> None:
    """An earlier moment's value is that of the events up to it, as far as their rows were kept."""
    now_us = us(eighth / 8)
    early = [one for one in log if one.occurred_at.timestamp() * 10**6 <= now_us]
    for feature in SMALL_AND_LARGE:
        state = folded(feature, log)
        known, value = state[state["occurred_us"] <= now_us], feature.value(state, now_us)
        assert same(value, feature.compute(known, now_us)), named(feature)
        if len(folded(replace(feature, capacity=BIG), log)) <= feature.capacity:
            assert same(value, feature.value(folded(feature, early), now_us)), named(feature)


@many
@given(logs())
def test_state_is_not_changed_in_place(log: list[Event]) -> None:
    for feature in SMALL_AND_LARGE:
        state = feature.nothing
        for one in log:
            copy = state.copy()
            after = feature.update(state, one)
            assert same(state, copy), named(feature)
            assert len(after) <= feature.capacity, named(feature)
            state = after


@many
@given(arrivals())
def test_all_features_at_once(arrival: Arrival) -> None:
    log, arrived = arrival
    live: dict[str, SubjectState] = defaultdict(dict)
    for one in arrived:
        live[str(one.subject_id)] = features.update(live[str(one.subject_id)], one)
    replayed = features.replay(frame_of(log))
    for subject, state in live.items():
        for feature in FEATURES:
            found = replayed.get(subject, {}).get(feature.name, feature.nothing)
            assert same(found, state[feature.name])


def slow_purchases(log: list[Event], now_us: int) -> dict[int, tuple[float, ...]]:
    """`PURCHASES` by its definition: item key -> the other columns of `PURCHASED`."""
    net: dict[str, int] = defaultdict(int)
    bought: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in {one.event_id: one for one in log}.values():
        if "personalization" in one.purposes and one.event_name in {"purchase", "refund"}:
            for item in one.items:
                sign = 1 if one.event_name == "purchase" else -1
                net[item.item_id] += sign * item.quantity
                if sign > 0:
                    stamp = int(one.occurred_at.timestamp() * 10**6), key_of(str(one.event_id))
                    bought[item.item_id].append(stamp)
    kept = {item: sorted(set(stamps)) for item, stamps in bought.items() if net[item] > 0}
    latest = max((stamps[-1] for stamps in kept.values()), default=(0, 0))
    return {
        key_of(item): (
            len(stamps),
            sum(0.5 ** ((now_us - at) / us_per_day / 60) for at, _ in stamps),
            sum(0.5 ** ((now_us - at) / us_per_day / 14) for at, _ in stamps),
            stamps[0][0],
            stamps[-1][0],
            stamps[-1] == latest,
        )
        for item, stamps in kept.items()
    }


us_per_day = 24 * 60 * 60 * 10**6


@many
@given(logs(max_size=16))
def test_purchases_against_their_definition(log: list[Event]) -> None:
    mine = [one for one in log if one.subject_id == UUID(int=1)]
    value = PURCHASES.value(folded(PURCHASES, mine), us(3))
    assert (np.diff(value["item_key"].astype(object)) > 0).all()
    found = {row[0]: tuple(row[1:]) for row in value.tolist()}
    assert found == {
        key: pytest.approx(columns) for key, columns in slow_purchases(mine, us(3)).items()
    }


@many
@given(logs(max_size=16), st.integers(0, 5))
def test_lines_say_which_basket_held_what(log: list[Event], day: int) -> None:
    mine = [one for one in log if one.subject_id == UUID(int=1)]
    early = [one for one in mine if one.occurred_at.timestamp() * 10**6 <= us(day)]
    view = features.view({"purchases": folded(PURCHASES, mine)}, us(day))
    assert same(view.purchased, PURCHASES.value(folded(PURCHASES, mine), us(day)))
    kept = set(slow_purchases(early, us(day)))
    held = {
        (stamp(one), key_of(item.item_id))
        for one in early
        if one.event_name == "purchase" and "personalization" in one.purposes
        for item in one.items
        if key_of(item.item_id) in kept
    }
    newest_first = sorted({when for when, _ in held}, reverse=True)
    found = [
        (newest_first[basket], view.purchased["item_key"][row])
        for basket, row in view.lines.tolist()
    ]
    assert len(found) == len(held)
    assert set(found) == held


def stamp(one: Event) -> tuple[int, int]:
    return int(one.occurred_at.timestamp() * 10**6), key_of(str(one.event_id))


def bought(*log: Event, day: float) -> dict[int, tuple[float, ...]]:
    value = PURCHASES.value(folded(PURCHASES, log), us(day))
    return {row[0]: tuple(row[1:]) for row in value.tolist()}


def test_purchases_by_hand() -> None:
    found = bought(
        event(1, day=0, items=["milk", "bread"]), event(2, day=60, items=["milk"]), day=120
    )
    assert found == {
        # 2^-(120/60) + 2^-(60/60); 2^-(120/14) + 2^-(60/14)
        key_of("milk"): pytest.approx(
            (2, 1 / 4 + 1 / 2, 2 ** (-120 / 14) + 2 ** (-60 / 14), us(0), us(60), True)
        ),
        key_of("bread"): pytest.approx((1, 1 / 4, 2 ** (-120 / 14), us(0), us(0), False)),
    }


def test_two_lines_of_one_basket_are_one_basket() -> None:
    assert bought(event(1, day=0, items=["milk", "bread", "milk"]), day=60) == {
        key_of("milk"): pytest.approx((1, 1 / 2, 2 ** (-60 / 14), us(0), us(0), True)),
        key_of("bread"): pytest.approx((1, 1 / 2, 2 ** (-60 / 14), us(0), us(0), True)),
    }


def items_left(*log: Event) -> set[int]:
    """The items that count as bought, the same in every order of arrival."""
    sets = {frozenset(bought(*order, day=9)) for order in permutations(log)}
    (kept,) = sets
    return set(kept)


def test_refunds() -> None:
    buy = event(1, day=1, items=[("milk", 2), "bread"])
    part = event(2, "refund", day=2, items=[("milk", 1)])
    rest = event(3, "refund", day=3, items=[("milk", 1)])
    again = event(4, day=4, items=[("milk", 1)])
    assert items_left(buy, part) == {key_of("milk"), key_of("bread")}
    assert items_left(buy, part, rest) == {key_of("bread")}
    assert items_left(buy, part, rest, again) == {key_of("milk"), key_of("bread")}
    assert items_left(rest) == set()


def test_a_refund_counts_from_its_own_time_on() -> None:
    log = [event(1, day=1), event(2, "refund", day=3)]
    assert set(bought(*log, day=2)) == {key_of("milk")}
    assert set(bought(*log, day=3)) == set()


def test_last_basket_is_the_last_that_was_kept() -> None:
    log = [
        event(1, day=1, items=["bread"]),
        event(2, day=2, items=["milk"]),
        event(3, "refund", day=3, items=["milk"]),
    ]
    assert bought(*log, day=4)[key_of("bread")][-1] is True


def test_last_basket_among_equal_times_is_that_of_the_greater_event_key() -> None:
    log = [event(1, items=["milk"]), event(2, items=["bread"])]
    later = max(log, key=lambda one: key_of(str(one.event_id)))
    found = bought(*log, day=1)
    last = {key for key, columns in found.items() if columns[-1]}
    assert last == {key_of(later.items[0].item_id)}


def test_rhythm_by_hand() -> None:
    log = [
        event(1, day=0, items=["milk", "bread", "eggs"]),
        event(2, day=10, items=["milk"]),
        event(3, "view_item", day=15),
        event(4, day=16, items=["milk", "soap"]),
    ]
    state = folded(SHOPPING_RHYTHM, log)
    # three baskets, 20 - 16 days ago, (16 - 0) / 2 days apart, (3 + 1 + 2) / 3 items each
    assert SHOPPING_RHYTHM.value(state, us(20)).tolist() == [3, 4, 8, 2]
    assert SHOPPING_RHYTHM.value(state, us(0.5)).tolist() == [1, 0.5, 0, 3]
    assert SHOPPING_RHYTHM.value(state, us(-1)).tolist() == [0, 0, 0, 0]


def test_visits_of_repeated_baskets_in_one_frame_keep_their_size() -> None:
    log = [event(1, items=["milk", "bread", "milk"]), event(2, day=1, items=["tea"])]
    frame = frame_of([log[0], log[1], log[0], log[0]])
    (rows,) = SHOPPING_RHYTHM.replay(frame).values()
    assert rows["items"].tolist() == [3, 1]


def test_interactions_keep_the_newest() -> None:
    log = [event(n, "view_item", day=n, items=["milk", "bread"]) for n in range(1, 41)]
    state = folded(RECENT_INTERACTIONS, log)
    assert len(state) == RECENT_INTERACTIONS.capacity == 64
    assert state["occurred_us"][[0, -1]].tolist() == [us(9), us(40)]  # 64 rows are 32 events


def test_one_large_basket_keeps_its_last_lines() -> None:
    whole = event(1, items=[f"item-{n}" for n in range(100)])
    state = folded(RECENT_INTERACTIONS, [whole])
    assert state["position"].tolist() == list(range(100 - 64, 100))
    assert same(RECENT_INTERACTIONS.replay(frame_of([whole]))[str(UUID(int=1))], state)


def test_searches_are_kept_as_eight_tokens() -> None:
    told = event(1, "search", items=(), search_term="oat milk")
    state = folded(RECENT_SEARCHES, [told])
    assert state["tokens"].tolist() == [token_numbers("oat milk", 8) + [0] * 6]


@pytest.mark.parametrize("purposes", [(), ("analytics",), ("analytics", "offers")])
def test_only_personalization_is_remembered(purposes: tuple[str, ...]) -> None:
    log = [
        event(1, purposes=purposes),
        event(2, "search", search_term="oat milk", purposes=purposes),
    ]
    assert not any(len(folded(feature, log)) for feature in FEATURES)
    assert features.replay(frame_of(log)) == {}


def test_unknown_subject() -> None:
    assert not UNKNOWN.known
    assert UNKNOWN.rhythm.tolist() == [0, 0, 0, 0]
    searched = features.update({}, event(1, "search", items=(), search_term="milk"))
    assert features.view(searched, us(0)).known
    assert not features.view(searched, us(-1)).known


def test_hash_tells_versions_and_parts_apart() -> None:
    hashes = {
        feature_hash(),
        feature_hash(1),
        feature_hash(2),
        feature_hash("1"),
        feature_hash(1, 2),
    }
    assert len(hashes) == 5
    assert feature_hash(1, ("a", "b")) == feature_hash(1, ("a", "b"))


@many
@given(st.lists(st.integers(0, 5) | st.integers(0, 2**64 - 1), max_size=60))
def test_keys_are_sorted_as_by_comparing(keys: list[int]) -> None:
    order = by_key(np.array(keys, np.uint64))
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)
