"""What a shopper says of items: for how long it holds, what takes it back, what a return undoes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import features, feedback
from contract.clock import DAY_US, to_us
from contract.events import FEEDBACK_CODE, Event, key_of
from contract.features import FEEDBACK, PURCHASES, TRACES, SubjectState, hashes_beside
from tests.contract.examples import event, frame_of, logs, many, same, us


def said(number: int, kind: str, *items: str | tuple[str, int], day: float) -> Event:
    return event(number, "feedback", day=day, items=items or ("milk",), feedback=kind)


def state_of(*log: Event) -> SubjectState:
    return features.update_all({}, log)


def refused(*log: Event, day: float, days: float = 90.0) -> dict[int, int]:
    keys, words = feedback.refused(state_of(*log), us(day), days)
    assert (np.diff(keys.astype(object)) > 0).all()
    return dict(zip(keys.tolist(), words.tolist(), strict=True))


def test_a_word_holds_for_its_days() -> None:
    no = said(1, "not_for_me", day=1)
    assert refused(no, day=0) == {}
    assert refused(no, day=1) == {key_of("milk"): FEEDBACK_CODE["not_for_me"]}
    assert refused(no, day=90.9) != {}
    assert refused(no, day=91) == {}
    assert refused(no, day=1, days=0) == {}


def test_the_latest_word_is_told_and_another_item_is_another() -> None:
    log = (said(1, "not_for_me", day=1), said(2, "hidden", "milk", "tea", day=2))
    assert refused(*log, day=3) == {
        key_of("milk"): FEEDBACK_CODE["hidden"],
        key_of("tea"): FEEDBACK_CODE["hidden"],
    }


@pytest.mark.parametrize("kind", FEEDBACK_CODE)
def test_who_buys_it_again_has_changed_their_mind(kind: str) -> None:
    log = (event(1, day=0), said(2, kind, day=1))
    assert refused(*log, day=3) != {}
    assert refused(*log, event(3, day=2), day=1.5) != {}
    assert refused(*log, event(3, day=2), day=3) == {}
    assert refused(*log, event(3, day=2, items=["tea"]), day=3) != {}


def test_without_consent_or_a_kind_nothing_is_remembered() -> None:
    assert not len(
        state_of(event(1, "feedback", purposes=("analytics",), feedback="hidden"))[FEEDBACK.name]
    )
    assert not len(state_of(event(1, "feedback"))[FEEDBACK.name])


def slow_refused(mine: list[Event], now_us: int, days: float) -> set[int]:
    """`feedback.refused` by its definition."""
    said: dict[str, int] = {}
    bought: dict[str, int] = {}
    for one in mine:
        at = to_us(one.occurred_at)
        told = said if one.feedback else bought if one.event_name == "purchase" else None
        if told is not None and at <= now_us and "personalization" in one.purposes:
            for item in one.items:
                told[item.item_id] = max(told.get(item.item_id, at), at)
    return {
        key_of(item_id)
        for item_id, at in said.items()
        if at > now_us - days * DAY_US and bought.get(item_id, at) <= at
    }


@many
@given(logs(max_size=16), st.integers(0, 5), st.sampled_from((0.25, 90.0)))
def test_live_replayed_and_by_definition_it_is_the_same(
    log: list[Event], eighth: int, days: float
) -> None:
    now_us = us(eighth / 8)
    replayed = features.replay(frame_of(log))
    for subject in {one.subject_id for one in log}:
        mine = [one for one in log if one.subject_id == subject]
        live = feedback.refused(features.update_all({}, mine), now_us, days)
        later = feedback.refused(replayed.get(str(subject), {}), now_us, days)
        assert set(live[0].tolist()) == slow_refused(mine, now_us, days)
        assert all(same(one, other) for one, other in zip(live, later, strict=True))


def bought(*log: Event, day: float = 9) -> set[int]:
    view = features.view(state_of(*log), us(day))
    assert len(view.lines) >= len(view.purchased)
    return set(view.purchased["item_key"].tolist())


def test_what_a_shop_says_came_back_was_not_bought() -> None:
    buy = event(1, day=1, items=[("milk", 2), "bread"])
    part = said(2, "returned", ("milk", 1), day=2)
    rest = said(3, "returned", ("milk", 1), "eggs", day=3)
    milk, bread = key_of("milk"), key_of("bread")
    assert bought(buy) == {milk, bread}
    assert bought(buy, part) == {milk, bread}
    assert bought(buy, part, rest) == {bread}
    assert bought(buy, part, rest, day=2) == {milk, bread}
    assert bought(buy, part, rest, event(4, day=4, items=["milk"])) == {milk, bread}
    assert bought(buy, said(2, "hidden", ("milk", 2), day=2)) == {milk, bread}


def test_a_return_that_is_also_refunded_is_one_return() -> None:
    buy = event(1, day=1, items=[("milk", 2)])
    back = said(2, "returned", ("milk", 1), day=2)
    refund = event(3, "refund", day=3, items=[("milk", 1)])
    assert bought(buy, back, refund) == {key_of("milk")}
    assert bought(buy, back, refund, event(4, "refund", day=4, items=[("milk", 1)])) == set()


def test_the_value_of_purchases_is_the_views_where_nothing_came_back() -> None:
    log = (event(1, day=1), said(2, "not_for_me", day=2))
    state = state_of(*log)
    view = features.view(state, us(3))
    assert same(view.purchased, PURCHASES.value(state[PURCHASES.name], us(3)))


def test_features_that_no_release_knows_have_a_hash_of_their_own() -> None:
    assert features.FEATURES[-2:] == (FEEDBACK, TRACES)
    assert not any(feature.of_products for feature in features.FEATURES[-2:])
    assert all(feature.of_products for feature in features.FEATURES[:-2])
    assert len({*hashes_beside(), features.feature_hash()}) == 4  # with neither, one and both
