"""The popular list that speaks for a shopper, on the rung `popular` and among the candidates."""

import asyncio
import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract import candidates
from contract.clock import to_us
from contract.encoding import FIRST_ITEM, Situation
from contract.events import EventContext
from contract.features import UNKNOWN, view
from contract.manifest import POPULAR, QUERY_TOWER, SEQUENCE_ENCODER
from contract.popular import PopularLists
from serving.decision.candidate_set import SOURCE, popular
from serving.decision.eligibility import Eligible
from serving.decision.limits import DecisionSettings
from serving.decision.outcome import Decision
from serving.decision.retrieval import retrieve
from serving.inference.release import Release
from serving.inference.releases import LiveRelease
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import (
    CLOCK,
    KNOWN,
    Forbidden,
    deciding,
    known,
    loaded,
    nobody,
    request,
    with_models,
)
from tests.serving.inference.broken_models import failing
from tests.serving.release_factory import Factory

# Numbers of items, best first: 0 to 19 are popular with everybody.
CELLS = {
    ("unknown", None): [50, 51, 52, 53],
    ("repeat_buyers", None): [30, 31, 32, 33],
    (None, "north"): [21, 22, 23, 24],
    ("repeat_buyers", "north"): [44, 43, 42, 41],
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """A release with lists, written and loaded like any other."""
    factory = Factory(tmp_path_factory.mktemp("listed"))
    everybody = np.arange(20) + FIRST_ITEM
    lists = {cell: np.array(numbers) + FIRST_ITEM for cell, numbers in CELLS.items()}
    content = PopularLists(everybody, lists).as_bytes(factory.vocabulary())
    dataclasses.replace(factory, popular=content).write()
    return factory


@pytest.fixture
def shop(listed: Factory) -> Iterator[Release]:
    held = loaded(listed)
    yield held
    held.models.close()


def numbers(decision: Decision) -> list[int]:
    return [int(one.item_id.removeprefix("item-")) for one in decision.response.recommendations]


def _silent(release: Release, factory: Factory) -> Release:
    size = len(factory.item_vectors()[0])
    broken = {name: failing(name, size) for name in (QUERY_TOWER, SEQUENCE_ENCODER)}
    return with_models(release, factory, broken)


@pytest.mark.parametrize(
    ("region", "agreed", "expected"),
    [
        (None, False, [0, 1, 2, 3]),
        ("north", False, [21, 22, 23, 24]),
        ("south", False, [0, 1, 2, 3]),
        (None, True, [50, 51, 52, 53]),
        ("north", True, [21, 22, 23, 24]),  # no list of unknown shoppers there
        ("south", True, [50, 51, 52, 53]),
    ],
)
async def test_a_cold_shopper_gets_the_list_of_their_segment_and_region(
    shop: Release,
    listed: Factory,
    tmp_path: Path,
    region: str | None,
    agreed: bool,
    expected: list[int],
) -> None:
    store = MemoryFeatureStore(tmp_path)  # which knows nobody
    subject = known() if agreed else nobody()
    asked = request(num_results=4, context={"region": region} if region else {})
    with deciding(_silent(shop, listed), store if agreed else Forbidden()) as decider:
        decision = await decider.decide(asked, subject)
    assert decision.rung == "popular"
    assert numbers(decision) == expected
    codes = {why.code for one in decision.response.recommendations for why in one.reasons}
    assert codes == {"popular_now"}


async def test_a_list_that_is_too_short_is_filled_up(shop: Release, listed: Factory) -> None:
    north = {"region": "north"}
    with deciding(_silent(shop, listed), Forbidden()) as decider:
        decision = await decider.decide(request(num_results=5, context=north), nobody())
    assert numbers(decision) == [21, 22, 23, 24, 0]
    everything = np.ones(len(shop.vocabulary), bool)
    everything[:FIRST_ITEM] = False
    may = Eligible(everything, int(everything.sum()), False)
    usual = shop.popular_lists.of((), "north")
    found = popular(shop, may, 60, usual)
    assert sorted(found.tolist()) == list(range(FIRST_ITEM, 62))
    assert found.tolist()[:4] == usual.tolist()


async def test_the_candidates_are_those_of_training(
    shop: Release, store: MemoryFeatureStore
) -> None:
    """A known shopper in the north: the list of repeat shoppers there, as a fit would take it."""
    now_us = to_us(CLOCK.now())
    history = view(await store.read(KNOWN), now_us)
    situation = Situation(history, ("item-1",), now_us, EventContext(region="north"))
    everything = np.ones(len(shop.vocabulary), bool)
    everything[:FIRST_ITEM] = False
    may = Eligible(everything, int(everything.sum()), False)
    found = retrieve(shop, situation, may, {})
    evidence = candidates.gather(situation, shop.vocabulary, shop.neighbours, shop.knn)
    usual = shop.popular_lists.of_situation(situation)
    assert (usual - FIRST_ITEM).tolist() == CELLS["repeat_buyers", "north"]
    assert candidates.sources_of(evidence, usual)["popular"].tolist() == usual.tolist()
    brought = found.listed.index[found.listed.brought[:, SOURCE["popular"]]]
    assert set(usual.tolist()) <= set(brought.tolist())
    elsewhere = retrieve(shop, dataclasses.replace(situation, personal=False), may, {})
    other = elsewhere.listed.index[elsewhere.listed.brought[:, SOURCE["popular"]]]
    assert set(np.array(CELLS[None, "north"]) + FIRST_ITEM) <= set(other.tolist())


async def test_a_shed_decision_looks_at_no_history(
    shop: Release, store: MemoryFeatureStore
) -> None:
    """The known shopper is a repeat one, but to find that out takes time that there is not."""
    go = threading.Event()
    with deciding(shop, store, DecisionSettings(max_full=0)) as decider:
        place = decider.admission.enter()
        with place:
            stuck = asyncio.create_task(decider._spare_worker.run(place, lambda: go.wait(30)))
            await asyncio.sleep(0)
            asked = request(num_results=4, context={"region": "north"})
            decision = await decider.decide(asked, known())
            go.set()
            await stuck
    assert (decision.rung, numbers(decision)) == ("popular", [21, 22, 23, 24])


def test_a_release_with_one_list_is_read_as_before(release: Release) -> None:
    assert release.popular_lists.lists == {}
    nowhere = Situation(UNKNOWN, (), 0, EventContext(region="north"))
    assert release.popular_lists.of_situation(nowhere).tolist() == release.popular.tolist()


def test_a_torn_file_is_refused_naming_it(tmp_path: Path) -> None:
    factory = Factory(tmp_path, popular=json.dumps({"format": 2, "all": ["item-1"]}).encode())
    factory.write()
    live = LiveRelease(factory.releases_dir, factory.models_dir)
    with pytest.raises(Exception, match=f"{POPULAR}: needs a list of item ids"):
        loaded(factory)
    live.close()
