"""What may not be shown is never shown, on any rung; and when five may be shown, five are."""

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.encoding import FIRST_ITEM
from contract.item_index import ItemIndex
from contract.manifest import QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from serving.decision.decide import Decider
from serving.decision.limits import DecisionSettings
from serving.decision.messages import DecideRequest
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import (
    Forbidden,
    deciding,
    known,
    loaded,
    nobody,
    purchase,
    request,
    with_models,
)
from tests.serving.inference.broken_models import failing
from tests.serving.release_factory import DEPARTMENTS, Factory

ITEMS = range(60)
CATEGORIES = (*DEPARTMENTS, *(f"{DEPARTMENTS[n % 4]} AISLE {n % 12}" for n in range(12)), "NONE")


def allowed(asked: DecideRequest) -> set[str]:
    """The items that may be shown, straight from how the factory made the catalogue."""
    wanted, away = asked.filter, {line.item_id for line in asked.cart.items}
    found = set()
    for n in ITEMS:
        path = {DEPARTMENTS[n % 4], f"{DEPARTMENTS[n % 4]} AISLE {n % 12}"}
        price = None if n % 13 == 12 else 100 + n
        dear = wanted.max_price is not None and asked.cart.currency == "USD"
        region = asked.context.region
        if (
            n % 10 != 9
            and not (n % 7 == 6 and region is not None and region != "west")
            and f"item-{n}" not in away
            and f"item-{n}" not in wanted.exclude_items
            and not path & set(wanted.exclude_categories)
            and (not wanted.include_categories or path & set(wanted.include_categories))
            and not (dear and (price is None or price > (wanted.max_price or 0)))
        ):
            found.add(f"item-{n}")
    return found


class Shop:
    """One decider per rung, in a loop of their own, for many examples."""

    def __init__(self, factory: Factory, store: MemoryFeatureStore) -> None:
        self.runner = asyncio.Runner()
        self._open: list[Any] = []
        silent = {name: failing(name, 8) for name in (QUERY_TOWER, SEQUENCE_ENCODER)}
        other = ItemIndex(np.zeros((len(ITEMS) + FIRST_ITEM, 3), np.float32))
        wrong_index = dataclasses.replace(loaded(factory), index=other)
        self.deciders: dict[str, Decider] = {
            "full": self._decider(loaded(factory), store),
            "no_ranker": self._decider(
                with_models(loaded(factory), factory, {RANKER: failing(RANKER, 8)}), store
            ),
            "no_towers": self._decider(with_models(loaded(factory), factory, silent), store),
            "no_index": self._decider(wrong_index, store),
            "shed": self._decider(loaded(factory), store, DecisionSettings(max_full=0)),
        }

    def _decider(self, release: Any, store: Any, limits: DecisionSettings | None = None) -> Decider:
        block = deciding(release, store, limits)
        decider = block.__enter__()
        self._open.append(block)
        return decider

    def close(self) -> None:
        for block in self._open:
            block.__exit__(None, None, None)
        self.runner.close()


@pytest.fixture(scope="module")
def shop(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    store = MemoryFeatureStore(tmp_path_factory.mktemp("store"))

    async def fill() -> None:
        for place in range(5):
            await store.apply(purchase(place))

    asyncio.run(fill())
    held = Shop(factory, store)
    yield held
    held.close()


some_items = st.lists(st.sampled_from([f"item-{n}" for n in range(65)]), max_size=20)
some_categories = st.lists(st.sampled_from(CATEGORIES), max_size=4)


@given(
    rung=st.sampled_from(["full", "no_ranker", "no_towers", "no_index", "shed"]),
    personal=st.booleans(),
    cart=some_items,
    exclude=some_items,
    include_categories=some_categories,
    exclude_categories=some_categories,
    max_price=st.none() | st.integers(95, 165),
    region=st.sampled_from([None, "west", "east"]),
    currency=st.sampled_from(["USD", "EUR"]),
    num_results=st.integers(1, 5),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_never_what_may_not_be_shown_and_always_as_many_as_can(
    shop: Shop,
    rung: str,
    personal: bool,
    cart: list[str],
    exclude: list[str],
    include_categories: list[str],
    exclude_categories: list[str],
    max_price: int | None,
    region: str | None,
    currency: str,
    num_results: int,
) -> None:
    asked = request(
        *cart,
        num_results=num_results,
        context={"region": region},
        filter={
            "exclude_items": exclude,
            "include_categories": include_categories,
            "exclude_categories": exclude_categories,
            "max_price": max_price,
        },
    )
    asked = asked.model_copy(update={"cart": asked.cart.model_copy(update={"currency": currency})})
    subject = known() if personal else nobody()
    decision = shop.runner.run(shop.deciders[rung].decide(asked, subject))
    found = [one.item_id for one in decision.response.recommendations]
    may = allowed(asked)
    assert set(found) <= may
    assert len(found) == len(set(found)) == min(num_results, len(may))
    assert (decision.rung == "empty") == (not may)
    assert all(one.reasons for one in decision.response.recommendations)


async def test_a_strict_filter_finds_the_five_there_are_among_many(tmp_path: Any) -> None:
    factory = Factory(tmp_path, num_items=3_000)
    factory.write()
    # The cheapest five that are available; the towers' nearest are others.
    with deciding(loaded(factory), Forbidden()) as decider:
        decision = await decider.decide(request("item-2900", filter={"max_price": 104}), nobody())
    assert decision.rung == "full"
    assert {one.item_id for one in decision.response.recommendations} == {
        f"item-{n}" for n in range(5)
    }


async def test_prices_in_another_currency_are_not_compared(factory: Factory) -> None:
    euros = request("item-1", filter={"max_price": 1})
    euros = euros.model_copy(update={"cart": euros.cart.model_copy(update={"currency": "EUR"})})
    with deciding(loaded(factory), Forbidden()) as decider:
        decision = await decider.decide(euros, nobody())
        dollars = await decider.decide(request("item-1", filter={"max_price": 1}), nobody())
    assert decision.response.degraded == ("price_filter",)
    assert len(decision.response.recommendations) == 5
    assert dollars.response.recommendations == ()


async def test_items_that_the_catalogue_does_not_know_are_named(factory: Factory) -> None:
    asked = request("item-1", "item-999", "item-999", recent_items=["item-2", "other"])
    with deciding(loaded(factory), Forbidden()) as decider:
        decision = await decider.decide(asked, nobody())
    assert decision.response.missing_item_ids == ("item-999", "other")
    assert decision.rung == "full"
