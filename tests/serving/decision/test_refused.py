"""What a shopper said is not for them is not suggested to them, on any rung, and the record says
why."""

import dataclasses
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from contract.encoding import FIRST_ITEM
from contract.events import Event, EventItem, FeedbackKind
from contract.item_index import ItemIndex
from contract.manifest import QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from contract.rule_set import RuleSet
from contract.rules import RuleBook
from serving.decision.limits import DecisionSettings, NoRules
from serving.decision.outcome import Decision
from serving.inference.release import Release
from serving.monitoring.decisions import DecisionMetrics
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import (
    KNOWN,
    deciding,
    known,
    loaded,
    nobody,
    request,
    with_models,
)
from tests.serving.inference.broken_models import failing
from tests.serving.release_factory import BUILT_AT, Factory

RUNGS = ("full", "no_ranker", "no_towers", "no_index", "shed")


def said(kind: FeedbackKind, *items: str, days_ago: float = 1.0) -> Event:
    at = BUILT_AT - timedelta(days=days_ago)
    return Event(
        event_id=uuid5(UUID(int=1), f"{kind}{items}{days_ago}"),
        event_name="feedback",
        feedback=kind,
        occurred_at=at,
        received_at=at,
        session_id="session-said",
        items=tuple(EventItem(item_id=item_id) for item_id in items),
        subject_id=UUID(KNOWN),
        purposes=("analytics", "personalization"),
    )


def ids(decision: Decision) -> list[str]:
    return [one.item_id for one in decision.response.recommendations]


def broken(rung: str, factory: Factory) -> tuple[Release, DecisionSettings]:
    """A release and limits that lead to that rung."""
    release = loaded(factory)
    if rung == "no_ranker":
        release = with_models(release, factory, {RANKER: failing(RANKER, 8)})
    if rung == "no_towers":
        towers = {name: failing(name, 8) for name in (QUERY_TOWER, SEQUENCE_ENCODER)}
        release = with_models(release, factory, towers)
    if rung == "no_index":
        rows = len(release.vocabulary)
        other = ItemIndex(np.zeros((rows, 3), np.float32))
        release = dataclasses.replace(release, index=other)
        assert rows > FIRST_ITEM
    return release, DecisionSettings(max_full=0 if rung == "shed" else 12)


@pytest.mark.parametrize("rung", RUNGS)
async def test_on_no_rung_is_it_suggested_again(
    factory: Factory, store: MemoryFeatureStore, rung: str
) -> None:
    release, limits = broken(rung, factory)
    with deciding(release, store, limits) as decider:
        before = await decider.decide(request("item-1"), known())
        gone = ids(before)
        await store.apply(said("not_for_me", *gone[:2]))
        await store.apply(said("hidden", *gone[2:4]))
        after = await decider.decide(request("item-1"), known())
    assert len(gone) == 5
    assert len(ids(after)) == 5
    assert not set(gone[:4]) & set(ids(after))
    words = dict.fromkeys(gone[:2], "not_for_me") | dict.fromkeys(gone[2:4], "hidden")
    assert after.refused == words
    assert after.event_body()["refused"] == words
    assert "refused" not in before.event_body()


async def test_it_counts_for_them_alone_with_consent_alone_and_for_its_time(
    factory: Factory, store: MemoryFeatureStore
) -> None:
    with deciding(loaded(factory), store) as decider:
        usual = ids(await decider.decide(request("item-1"), known()))
        await store.apply(said("not_for_me", *usual, days_ago=15))
        now = await decider.decide(request("item-1"), known())
        stranger = await decider.decide(request("item-1"), nobody())
        without = await decider.decide(request("item-1"), known("analytics"))
    assert not set(usual) & set(ids(now))
    assert stranger.refused == without.refused == {}
    limits = DecisionSettings(feedback_days=10)
    with deciding(loaded(factory), store, limits) as decider:
        later = await decider.decide(request("item-1"), known())
    assert later.refused == {}
    assert ids(later) == usual


async def test_no_rule_puts_it_back(factory: Factory, store: MemoryFeatureStore) -> None:
    pin = {"id": "ours", "actions": [{"kind": "pin", "items": ["item-3"]}]}
    rules = NoRules(RuleSet(RuleBook.model_validate({"rules": [pin]})), 1)
    await store.apply(said("hidden", "item-3"))
    with deciding(loaded(factory), store, rules=rules) as decider:
        theirs = await decider.decide(request("item-1"), known())
        others = await decider.decide(request("item-1"), nobody())
    assert ids(others)[0] == "item-3"
    assert "item-3" not in ids(theirs)


async def test_who_refuses_everything_is_shown_nothing_and_everything_is_counted(
    factory: Factory, store: MemoryFeatureStore
) -> None:
    await store.apply(said("not_for_me", *(f"item-{n}" for n in range(60))))
    metrics = DecisionMetrics(CollectorRegistry())
    with deciding(loaded(factory), store, metrics=metrics) as decider:
        decision = await decider.decide(request("item-1"), known())
    assert decision.rung == "empty"
    sample: Any = metrics.registry.get_sample_value
    left_out = sample("tillwise_items_refused_total", {"feedback": "not_for_me"})
    # What is sold out or in the cart would not have been suggested anyway.
    assert left_out == len(decision.refused) == 53
