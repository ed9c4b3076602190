"""Varied, capped and margin-weighted lists in a decision: an order of what may be shown, on any
rung, and the rules' word still last."""

import numpy as np
import pytest

from contract.candidates import MAX_CANDIDATES
from contract.catalogue import ItemChange
from contract.errors import UserError
from contract.lists import ListSettings
from contract.manifest import QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from contract.rule_set import RuleSet
from contract.rules import RuleBook
from serving.decision.limits import DecisionSettings
from serving.decision.outcome import Decision
from serving.inference.release import Release
from serving.settings import load_settings
from serving.settings_of_parts import decision_settings
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import deciding, known, loaded, request, with_models
from tests.serving.inference.broken_models import failing
from tests.serving.release_factory import Factory

ONE_EACH = ListSettings(category_cap=1)
VARIED = ListSettings(diversity=0.7, most_loss=0.9)


def with_lists(lists: ListSettings) -> DecisionSettings:
    return DecisionSettings(lists=lists)


def shown(decision: Decision) -> list[str]:
    return [one.item_id for one in decision.response.recommendations]


def categories(release: Release, decision: Decision) -> list[str | None]:
    return [release.category(item_id) for item_id in shown(decision)]


async def test_off_by_default(release: Release, store: MemoryFeatureStore) -> None:
    with deciding(release, store) as decider:
        decision = await decider.decide(request("item-1"), known())
    assert "lists" not in decision.response.timings_ms


async def test_one_of_each_category(release: Release, store: MemoryFeatureStore) -> None:
    dairy_and_bread = {"include_categories": ["GROCERY", "DAIRY"]}
    asked = request("item-1", filter=dairy_and_bread)
    with deciding(release, store, with_lists(ONE_EACH)) as decider:
        decision = await decider.decide(asked, known())
    assert (decision.rung, decision.response.degraded) == ("full", ())
    assert decision.response.timings_ms["lists"] > 0
    kinds = categories(release, decision)
    assert len(kinds) == len(set(kinds)) == 5
    scores = [one.score for one in decision.response.recommendations]
    assert scores == sorted(scores, reverse=True)  # who sorts by them does not undo the order


async def test_varied_items_are_less_alike(factory: Factory, store: MemoryFeatureStore) -> None:
    alike = []
    for lists in (ListSettings(), VARIED):
        release = loaded(factory)  # a Decider ends the models of its release
        with deciding(release, store, with_lists(lists)) as decider:
            decision = await decider.decide(request("item-1"), known())
        assert decision.rung == "full"
        vectors = release.item_vectors[release.vocabulary.indices(shown(decision))]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        alike.append(float((vectors @ vectors.T).sum()))
    assert alike[1] < alike[0]


@pytest.mark.parametrize(
    ("broken", "rung"),
    [((RANKER,), "no_ranker"), ((QUERY_TOWER, SEQUENCE_ENCODER), "session_knn")],
)
async def test_the_cap_holds_on_cheaper_rungs_and_nothing_else_does(
    factory: Factory, store: MemoryFeatureStore, broken: tuple[str, ...], rung: str
) -> None:
    answers = []
    for lists in (ONE_EACH, VARIED, ListSettings()):
        models = {name: failing(name, 8) for name in broken}
        release = with_models(loaded(factory), factory, models)
        with deciding(release, store, with_lists(lists)) as decider:
            decision = await decider.decide(request("item-1"), known())
        assert decision.rung == rung
        answers.append((shown(decision), categories(release, decision)))
    (_, capped), (varied, _), (usual, _) = answers
    assert len(set(capped)) == 5
    assert varied == usual


async def test_margin_moves_what_leaves_more(factory: Factory, store: MemoryFeatureStore) -> None:
    with deciding(loaded(factory), store) as decider:
        before = shown(await decider.decide(request("item-1"), known()))
    release = loaded(factory)
    dearest, *others = reversed(release.vocabulary.indices(before).tolist())
    said = {index: ItemChange(price=100, cost=100) for index in others}
    release.catalogue.say(said | {dearest: ItemChange(price=100, cost=0)}, 1)
    anything = with_lists(ListSettings(margin=1.0, most_loss=1.0))
    with deciding(release, store, anything) as decider:
        decision = await decider.decide(request("item-1"), known())
    assert decision.rung == "full"
    assert shown(decision)[0] == before[-1]


async def test_rules_choose_from_the_chosen_and_from_all_others(
    release: Release, store: MemoryFeatureStore
) -> None:
    with deciding(release, store, with_lists(ONE_EACH)) as decider:
        (plain,) = await decider.preview(request("item-1"), known(), [RuleSet()])
        first = shown(plain)[0]
        away = {"id": "away", "actions": [{"kind": "exclude", "items": [first]}]}
        book = RuleBook.model_validate({"rules": [away]})
        (ruled,) = await decider.preview(request("item-1"), known(), [RuleSet(book)])
    assert shown(ruled)[:4] == shown(plain)[1:]
    # The one that moves up was chosen under the cap too.
    assert len(set(categories(release, ruled))) == 5
    assert release.manifest.index.count <= MAX_CANDIDATES  # so that nothing was cut off here


def test_the_environment_turns_each_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not decision_settings(load_settings()).lists.on
    for name, value in (("DIVERSITY", ".3"), ("CATEGORY_CAP", "2"), ("MARGIN", ".1")):
        monkeypatch.setenv(f"TILLWISE_LIST_{name}", value)
    monkeypatch.setenv("TILLWISE_LIST_MOST_LOSS", ".2")
    assert decision_settings(load_settings()).lists == ListSettings(0.3, 2, 0.1, 0.2)
    monkeypatch.setenv("TILLWISE_LIST_MARGIN", "1.5")
    with pytest.raises(UserError, match="TILLWISE_LIST_MARGIN"):
        load_settings()
