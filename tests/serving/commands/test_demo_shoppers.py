"""The demo's simulated shoppers keep to what they agreed to, and those who are offered something
pay with it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from contract.clock import AsOfClock
from contract.consent import PURPOSES
from serving.api.demo_page import DemoShopper, Shelf
from serving.api.demo_shop import SOURCE
from serving.commands.demo_baskets import Basket
from serving.commands.demo_offers import example_offers
from serving.commands.demo_run import agree_to_offers
from serving.commands.demo_shoppers import Shoppers, consent_of
from serving.commands.shop_client import ShopClient
from serving.decision.offer_shelf import DOCUMENT
from serving.state.audit import COMMAND_LINE
from serving.state.control_records import Consent
from tests.serving.conftest import Running

SEED = 7
VISITORS = [f"household-{number}" for number in range(12)]


class Within(ShopClient):
    """Calls the gateway that runs in the loop, from another thread."""

    def __init__(self, running: Running) -> None:
        super().__init__("127.0.0.1", 0, "")
        self._running = running
        self._loop = asyncio.get_running_loop()

    def send(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = self._running.client.request(
            method, path, json=body, headers=self._running.bearer()
        )
        answer = asyncio.run_coroutine_threadsafe(asked, self._loop).result(30)
        said: dict[str, Any] = answer.json()
        if answer.status_code >= 400:
            raise ConnectionError(said["detail"])
        return said


async def imported(running: Running, visitor_id: str) -> str:
    """A subject as an import leaves it."""
    found = await running.post("/v1/subjects/resolve", {"visitor_id": visitor_id})
    subject_id = str(found.json()["subject_id"])
    consent = Consent(PURPOSES - {"offers"}, running.clock.now(), "import")
    await running.gateway.control.record_consent(subject_id, consent)
    return subject_id


async def examples(running: Running) -> None:
    """The examples, with nobody held out."""
    book = example_offers("USD").model_copy(update={"holdout_share": 0.0})
    body = book.model_dump_json(exclude_none=True)
    await running.gateway.control.put_document(DOCUMENT, body, None, COMMAND_LINE, "all")
    await running.gateway.follow_offers()


@pytest.fixture
async def subjects(running: Running) -> dict[str, str]:
    """The ids of visitors of an import."""
    await examples(running)
    return {one: await imported(running, one) for one in VISITORS}


async def test_what_is_offered_is_paid_with(running: Running, subjects: dict[str, str]) -> None:
    clock = AsOfClock(running.clock.now())
    shelf = Shelf(running.gateway.live.current)
    shoppers = Shoppers(Within(running), shelf, clock, SEED)
    cart = tuple(f"item-{number}" for number in range(1, 13))
    visits = [
        Basket(one, f"basket-{one}", clock.now() + timedelta(hours=n), cart, frozenset())
        for n, one in enumerate(VISITORS)
    ]
    assert await asyncio.to_thread(shoppers.come, visits, 60.0, lambda share: None) == len(visits)
    await running.quiet()
    logged = running.logged()
    bought = {event.transaction_id for event in logged if event.event_name == "purchase"}
    assert len(bought) >= shoppers.redeemed > 0
    used = await running.gateway.ledger.used(clock.now())
    assert sum(one.total for one in used.values()) >= shoppers.redeemed
    for visitor_id, subject_id in subjects.items():
        consent = running.gateway.control.consent_of(subject_id)
        assert consent is not None
        said = consent_of(visitor_id, SEED)
        assert ("offers" in consent.purposes) == said["offers"]
        assert (consent.source == SOURCE) == said["offers"]


def test_consent_is_everybodys_own_and_the_same_every_time() -> None:
    said = [consent_of(f"household-{number}", SEED) for number in range(2_000)]
    assert said == [consent_of(f"household-{number}", SEED) for number in range(2_000)]
    shares = {name: sum(one[name] for one in said) / len(said) for name in PURPOSES}
    assert shares["analytics"] > shares["personalization"] > shares["offers"] > 0.4
    assert all(one["personalization"] for one in said if one["offers"])


async def test_whom_the_page_plays_agreed_to_offers_unless_they_said_otherwise(
    running: Running, subjects: dict[str, str]
) -> None:
    control, (kept, other) = running.gateway.control, VISITORS[:2]
    refused = Consent(frozenset({"analytics"}), running.clock.now(), SOURCE, "demo-1")
    await control.record_consent(subjects[kept], refused)
    played = [
        DemoShopper(visitor_id=one, label=one, session_id=one, consent={}, cart=(), bought_too=())
        for one in (kept, other, "nobody-knows-me")
    ]
    await agree_to_offers(running.gateway, played)
    found = {one: control.consent_of(subjects[one]) for one in (kept, other)}
    assert {one: held and held.purposes for one, held in found.items()} == {
        kept: refused.purposes,
        other: PURPOSES,
    }
    assert not running.gateway.control.look_up(
        *running.gateway.subjects.pseudonyms("nobody-knows-me", None)
    ).subject_id
