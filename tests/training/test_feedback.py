"""What a shopper says is learned from: a refused item is a negative of theirs, a returned one is no
positive of anybody's."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pyarrow as pa
import pytest
import torch

from contract.clock import to_us
from contract.frames import EVENT_SCHEMA
from tests.training.conftest import small_recipe
from tests.training.shop import NUM_SHOPPERS, START, build_shop, item_id, subject_id
from training.data.baskets import read_baskets
from training.data.returns import returned
from training.data.source import Source, read_source
from training.data.storage import events_writer, read_events
from training.fit import Fit
from training.recommender import Recommender, neural_side

CPU = torch.device("cpu")
STAPLE = item_id(0)  # in every fifth basket of everybody
DAY_OF_WORDS = START + timedelta(days=60)


def _said(shopper: int, kind: str, item: str, transaction: str | None = None) -> dict[str, Any]:
    name = f"{shopper}-{kind}-{item}"
    return {
        "schema_version": 3,
        "event_id": str(uuid5(NAMESPACE_URL, name)),
        "event_name": "feedback",
        "feedback": kind,
        "occurred_at": DAY_OF_WORDS,
        "received_at": DAY_OF_WORDS,
        "subject_id": subject_id(shopper),
        "session_id": name,
        "purposes": ["analytics", "personalization"],
        "items": [{"item_id": item, "quantity": 1}],
        "transaction_id": transaction,
        "synthetic": True,
    }


def _shop(folder: Path, *more: dict[str, Any]) -> Path:
    """The small shop, with more events."""
    build_shop(folder)
    events = read_events(folder)
    with events_writer(folder) as writer:
        writer.write(pa.concat_tables([events, pa.Table.from_pylist(list(more), EVENT_SCHEMA)]))
    return folder


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The shop where everybody says, after 60 of 120 days, that the staple is not for them."""
    words = [_said(shopper, "not_for_me", STAPLE) for shopper in range(NUM_SHOPPERS)]
    return read_source(_shop(tmp_path_factory.mktemp("refusing"), *words))


def test_a_refused_item_is_a_negative_of_its_shopper_until_they_buy_it_again(
    refusing: Source,
) -> None:
    fit = Fit(refusing, small_recipe(), device=CPU)
    (window,), held_out = fit.ranking_questions()
    staple = fit.vocabulary.index(STAPLE)
    known = [one for one in window.asked if one.situation.view.known]
    said = [one for one in known if staple in one.refused.tolist()]
    assert said
    for one in said:
        assert staple not in one.targets
    assert not any(len(one.refused) for one in window.asked if not one.situation.view.known)
    assert not any(len(one.refused) for one in held_out.asked)
    bought = set()  # again, after they said so and before the cut
    for number in refusing.baskets.between(to_us(DAY_OF_WORDS) + 1, fit.cut_us).tolist():
        entries = refusing.baskets.entries(np.array([number]))[1]
        if STAPLE in [refusing.baskets.item_ids[item] for item in entries]:
            bought.add(refusing.baskets.subjects[int(refusing.baskets.subject[number])])
    words = refusing.timelines
    for shopper in range(NUM_SHOPPERS):
        keys = words.refused(subject_id(shopper), fit.cut_us)
        assert len(keys) == (subject_id(shopper) not in bought)
        assert not len(words.refused(subject_id(shopper), to_us(DAY_OF_WORDS)))


def _place_of_staple(fitted: Recommender, source: Source) -> tuple[float, float]:
    """How far up the staple stands for those who refused it, 1 the first of all items: with the
    query tower, and with the ranker among its candidates."""
    fit = Fit(source, small_recipe(), device=CPU)
    window = fit.ranking_questions()[0][0]
    staple = fit.vocabulary.index(STAPLE)
    asked = [one.situation for one in window.asked if staple in one.refused.tolist()]
    neural = neural_side(fitted.towers, asked, fitted.vocabulary)
    scores = neural.query_vectors @ neural.item_vectors.T
    by_tower = (scores < scores[:, [staple]]).mean(axis=1)
    _, ranked = fitted.scored(asked, label="staple")
    by_ranker = [
        (found < found[index == staple]).mean() for index, found in ranked if staple in index
    ]
    return float(by_tower.mean()), float(np.mean(by_ranker))


def test_towers_and_ranker_learn_from_what_is_refused(refusing: Source) -> None:
    settings = ("tower_epochs=3", "ranker_epochs=4", "tower_patience=3", "refused_weight=")
    heard, deaf = (
        _place_of_staple(Fit(refusing, small_recipe(*told), device=CPU).run(), refusing)
        for told in ((*settings[:3], f"{settings[3]}{weight}") for weight in ("32", "0.001"))
    )
    assert heard[0] < deaf[0] - 0.1
    assert heard[1] < deaf[1] - 0.03


def test_what_came_back_is_no_positive(tmp_path: Path) -> None:
    bought = build_shop(tmp_path / "before")
    first = read_events(bought).to_pylist()[0]
    mine = [row for row in read_events(bought).to_pylist() if row["subject_id"] == subject_id(7)]
    before = [row for row in mine if row["occurred_at"] < DAY_OF_WORDS]
    last = before[-1]
    item = last["items"][0]["item_id"]
    gone = first["items"][0]["item_id"]
    shop = _shop(
        tmp_path / "after",
        _said(7, "returned", item),  # of no transaction: of their latest order with it
        _said(0, "returned", gone, first["transaction_id"]),
        _said(9, "not_for_me", STAPLE),
    )
    events = read_events(shop)
    assert returned(events) == {
        (last["transaction_id"], item): 1,
        (first["transaction_id"], gone): 1,
    }
    was, now = read_baskets(read_events(bought)), read_baskets(events)
    lost = set(_lines(was)) - set(_lines(now))
    assert lost == {(last["transaction_id"], item), (first["transaction_id"], gone)}
    assert set(_lines(now)) < set(_lines(was))


def _lines(baskets: Any) -> list[tuple[str, str]]:
    number, item = baskets.entries(np.arange(len(baskets)))
    return [
        (baskets.basket_id[at], baskets.item_ids[one])
        for at, one in zip(number.tolist(), item.tolist(), strict=True)
    ]


def test_a_return_that_is_refunded_and_said_is_one_return(tmp_path: Path) -> None:
    buy = {
        **_said(1, "returned", STAPLE),
        "event_name": "purchase",
        "feedback": None,
        "transaction_id": "t",
        "items": [{"item_id": STAPLE, "quantity": 2}],
    }
    refund = buy | {"event_name": "refund", "items": [{"item_id": STAPLE, "quantity": 1}]}
    back = _said(1, "returned", STAPLE, "t")
    both = pa.Table.from_pylist([buy, refund, back], EVENT_SCHEMA)
    assert returned(both) == {("t", STAPLE): 1}
    assert len(read_baskets(both)) == 1
    twice = pa.Table.from_pylist([buy, refund, back, back], EVENT_SCHEMA)
    assert returned(twice) == {("t", STAPLE): 2}
