"""Last places that are drawn: exact chances in the event, never what a rule put there, never
without consent, and nothing at all while it is off."""

import pytest

from contract.errors import UserError
from contract.exploration import POOL, ExploreSettings
from contract.manifest import RANKER
from contract.rule_set import RuleSet
from contract.rules import RuleBook
from serving.decision.decide import Decider
from serving.decision.limits import DecisionSettings
from serving.decision.outcome import Decision
from serving.inference.release import Release
from serving.settings import load_settings
from serving.settings_of_parts import decision_settings
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import deciding, known, loaded, nobody, request, with_models
from tests.serving.inference.broken_models import failing
from tests.serving.release_factory import Factory

BOTH = ("analytics", "personalization")
ALWAYS = DecisionSettings(explore=ExploreSettings(1.0, slots=2, most_loss=1.0))
HALF = DecisionSettings(explore=ExploreSettings(0.5, most_loss=1.0))


def shown(decision: Decision) -> list[str]:
    return [one.item_id for one in decision.response.recommendations]


async def in_cart(decider: Decider, cart_id: str, *purposes: str) -> Decision:
    asked = request("item-1").model_copy(deep=True)
    cart = asked.cart.model_copy(update={"cart_id": cart_id})
    return await decider.decide(asked.model_copy(update={"cart": cart}), known(*purposes))


async def test_off_by_default(release: Release, store: MemoryFeatureStore) -> None:
    with deciding(release, store) as decider:
        decision = await decider.decide(request("item-1"), known(*BOTH))
    body = decision.event_body()
    assert "exploration" not in body
    assert "exploration" not in decision.response.timings_ms
    assert [one["propensity"] for one in body["shown"]] == [1.0] * 5


async def test_the_event_says_what_was_drawn_and_how_likely(
    factory: Factory, store: MemoryFeatureStore
) -> None:
    with deciding(loaded(factory), store) as decider:
        usual = shown(await in_cart(decider, "c-1", *BOTH))
    drawn, other = 0, 0
    with deciding(loaded(factory), store, HALF) as decider:
        for number in range(60):
            decision = await in_cart(decider, f"c-{number}", *BOTH)
            assert (decision.rung, decision.response.degraded) == ("full", ())
            body = decision.event_body()
            (slot,) = body["exploration"]["slots"]
            last = body["shown"][4]
            assert shown(decision)[:4] == usual[:4]
            assert (slot["index"], slot["usual"]) == (4, usual[4])
            assert last["item_id"] == shown(decision)[4]
            assert last["item_id"] in slot["pool"]
            assert len(slot["pool"]) == POOL
            at_random = 0.5 / POOL
            same = last["item_id"] == usual[4]
            assert last["propensity"] == pytest.approx(at_random + 0.5 * same)
            assert [one["propensity"] for one in body["shown"][:4]] == [1.0] * 4
            scores = [one.score for one in decision.response.recommendations]
            assert scores == sorted(scores, reverse=True)
            drawn, other = drawn + 1, other + (not same)
    assert drawn == 60
    assert 15 <= other <= 42  # 28.5 in the mean, within 3.5 standard deviations


async def test_the_same_cart_sees_the_same_list(
    release: Release, store: MemoryFeatureStore
) -> None:
    with deciding(release, store, ALWAYS) as decider:
        first = await in_cart(decider, "c-7", *BOTH)
        again = await in_cart(decider, "c-7", *BOTH)
    assert shown(first) == shown(again)


@pytest.mark.parametrize("purposes", [("personalization",), ("analytics",)])
async def test_never_without_both_purposes(
    release: Release, store: MemoryFeatureStore, purposes: tuple[str, ...]
) -> None:
    with deciding(release, store, ALWAYS) as decider:
        decision = await decider.decide(request("item-1"), known(*purposes))
        stranger = await decider.decide(request("item-1"), nobody())
    assert decision.exploration is None
    assert stranger.exploration is None


async def test_what_rules_say_stays(factory: Factory, store: MemoryFeatureStore) -> None:
    pinned = {"kind": "pin", "items": ["item-20"], "position": 5}
    away = {"kind": "exclude", "categories": ["BAKERY"]}
    rules = [{"id": "pinned", "actions": [pinned]}, {"id": "away", "actions": [away]}]
    held = RuleSet(RuleBook.model_validate({"rules": rules}))

    class Book:
        current, version = held, 1

    release = loaded(factory)
    moved = set()
    with deciding(release, store, ALWAYS, rules=Book()) as decider:
        for number in range(30):
            decision = await in_cart(decider, f"c-{number}", *BOTH)
            items = shown(decision)
            assert items[4] == "item-20"
            assert all(release.category(one) != "BAKERY" for one in items)
            body = decision.event_body()
            assert body["shown"][4]["propensity"] == 1.0
            assert body["shown"][4]["rule"] == "pinned"
            for slot in body["exploration"]["slots"]:
                assert "item-20" not in slot["pool"]
                assert all(release.category(one) != "BAKERY" for one in slot["pool"])
            moved.add(items[3])
    assert len(moved) > 5


async def test_a_dry_run_draws_nothing(release: Release, store: MemoryFeatureStore) -> None:
    with deciding(release, store, ALWAYS) as decider:
        (decision,) = await decider.preview(request("item-1"), known(*BOTH), [RuleSet()])
    assert decision.exploration is None


async def test_only_where_the_ranker_spoke(factory: Factory, store: MemoryFeatureStore) -> None:
    release = with_models(loaded(factory), factory, {RANKER: failing(RANKER, 8)})
    with deciding(release, store, ALWAYS) as decider:
        decision = await decider.decide(request("item-1"), known(*BOTH))
    assert decision.rung == "no_ranker"
    assert decision.exploration is None
    assert len(shown(decision)) == 5


def test_the_environment_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not decision_settings(load_settings()).explore.on
    for name, value in (("SHARE", ".1"), ("SLOTS", "2"), ("MOST_LOSS", ".3")):
        monkeypatch.setenv(f"TILLWISE_EXPLORE_{name}", value)
    assert decision_settings(load_settings()).explore == ExploreSettings(0.1, 2, 0.3)
    monkeypatch.setenv("TILLWISE_EXPLORE_SLOTS", "5")
    with pytest.raises(UserError, match="TILLWISE_EXPLORE_SLOTS"):
        load_settings()
