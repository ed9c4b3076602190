"""A day's budget and a cap on showings, over simulated days of a real gateway: the price of
spending is solved as the day goes, shared, kept over a restart, and nothing goes over."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contract.clock import FixedClock
from contract.offer_arms import Arm, OfferArms
from contract.offers import PercentOff
from contract.policy import PRICE_SPREAD
from serving.state.coupon_ledger import Seen
from serving.state.sqlite_writer import StoreError
from tests.serving.api.test_offers import CART, TEN, put, refused, reserve
from tests.serving.conftest import ALL, Running, Start
from tests.serving.release_factory import Factory

ARMS = OfferArms(arms=(Arm(name="ten", discount=PercentOff(percent=10)),)).of_this_version()
PICKED = TEN | {"unconditional": False}
MIDNIGHT = datetime(2017, 11, 20, tzinfo=UTC)
OFF = 499  # of the usual cart


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    made = Factory(tmp_path / "release", uplift=(ARMS, (0.3, 0.5)))
    made.write()
    return made


async def opened(start: Start, factory: Factory, at: datetime, **settings: Any) -> Running:
    return await start(
        FixedClock(at), releases=factory.releases_dir, models=factory.models_dir, **settings
    )


async def moved(running: Running, at: datetime) -> None:
    """What a gateway does beside the decisions, at `at`."""
    running.clock.at = at
    await running.gateway.follow_offers()
    await running.gateway.pace_offers()


def priced(cents: int) -> dict[str, Any]:
    return CART | {"items": [{"item_id": "item-1", "quantity": 1, "price": cents}]}


async def bought(running: Running, number: int, cart: dict[str, Any], pays: bool) -> dict[str, Any]:
    """A checkout whose offer, if it is shown one, is reserved and, if the shopper `pays`, redeemed;
    what came of it."""
    decided = await running.decide(visitor_id=f"v-{number}", cart=cart, consent=ALL)
    decision: dict[str, Any] = decided.json()
    if not decision["offers"]:
        return decision
    offer = decision["offers"][0]
    said = {"offer_token": offer["offer_token"], "visitor_id": f"v-{number}"}
    held = await running.post("/v1/offers/ten/reservations", said)
    decision["held"] = held.status_code
    if held.status_code == 200 and pays:
        value = sum(one["quantity"] * one["price"] for one in cart["items"])
        paid = {
            "transaction_id": f"order-{number}",
            "cart": cart,
            "total": value - offer["discount"]["amount"],
        }
        path = f"/v1/reservations/{held.json()['reservation_id']}/redeem"
        assert (await running.post(path, paid)).status_code == 200
    return decision


async def test_a_budget_lasts_the_day_and_is_never_exceeded(start: Start, factory: Factory) -> None:
    running = await opened(start, factory, MIDNIGHT)
    budget, a_day, chance = 6_000, 96, random.Random(3)
    await put(running, PICKED, margin_rate=0.4, daily_budget={"amount": budget})
    number, spent, shown_late, prices = 0, [], [], []
    for day in range(2):
        late = 0
        for step in range(a_day):
            at = MIDNIGHT + timedelta(days=day, minutes=15 * step + 5)
            await moved(running, at)
            number += 1
            decision = await bought(
                running, number, priced(chance.randrange(500, 4_500)), chance.random() < 0.5
            )
            late += bool(decision["offers"]) and at.hour >= 18
            now = await running.gateway.ledger.pacing.standing(at.date().isoformat(), _us(at))
            assert now.spent <= budget
            if at.hour < 23:
                assert now.spent <= budget * 0.99
            assert now.price is not None
            prices.append(now.price.price)
        await moved(running, MIDNIGHT + timedelta(days=day, hours=23, minutes=59, seconds=59))
        end = MIDNIGHT + timedelta(days=day + 1, hours=1)
        done = await running.gateway.ledger.pacing.standing(
            (MIDNIGHT + timedelta(days=day)).date().isoformat(), _us(end)
        )
        spent.append(done.spent)
        shown_late.append(late)
    # Each day could spend some 11,000; the price keeps something for the evening, and most of the
    # budget is spent.
    assert max(prices) > 0
    assert sum(shown_late) > 0
    assert all(0.6 * budget <= one <= budget for one in spent), spent
    # What was decided is on record with the price, and its chances are exact: 0 or 1 but where an
    # offer is worth about its price.
    await running.quiet()
    said = [one.decision["offers"] for one in running.logged() if one.event_name == "decision"]
    assert {one["pacing"]["day"] for one in said if "pacing" in one} == {"2017-11-20", "2017-11-21"}
    for one in said:
        for arm in one["arms"]:
            price = one["pacing"]["price"]
            worth = arm["expected_gain"] - price * arm["expected_cost"]
            if abs(worth) > PRICE_SPREAD * price * arm["expected_cost"]:
                assert arm["propensity"] == float(worth > 0)
                assert arm["shown"] == (worth > 0)
            else:
                below = 0.5 + 0.5 * worth / (PRICE_SPREAD * price * arm["expected_cost"])
                assert arm["propensity"] == pytest.approx(below)


def _us(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


async def test_the_price_is_shared_and_outlives_a_restart(start: Start, factory: Factory) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=10))
    await put(running, PICKED, margin_rate=0.4, daily_budget={"amount": 3_000})
    for number in range(12):
        await bought(running, number, CART, pays=number % 2 == 0)
    await moved(running, MIDNIGHT + timedelta(hours=10, minutes=20))
    pacing = running.gateway.ledger.pacing
    before = await pacing.standing("2017-11-20", _us(running.clock.at))
    assert before.price is not None
    assert before.price.seen == 12
    await running.stop()
    again = await opened(start, factory, MIDNIGHT + timedelta(hours=10, minutes=20, seconds=10))
    await moved(again, again.clock.at)
    held = await again.gateway.ledger.pacing.standing("2017-11-20", _us(again.clock.at))
    assert held == before
    budget = again.gateway.shelf.current.book.daily_budget
    assert budget is not None
    pace = again.gateway.shelf.pacing.pace(budget, again.clock.now())
    assert pace is not None
    assert pace.price == before.price.price


async def test_without_the_ledger_nothing_is_offered_and_it_says_so(
    start: Start, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=10))
    await put(running, PICKED, margin_rate=0.4, daily_budget={"amount": 30_000})
    assert (await bought(running, 1, CART, pays=True))["offers"]

    async def away(*_: object) -> None:
        raise StoreError("the coupon ledger: away")

    with monkeypatch.context() as patched:
        patched.setattr(running.gateway.ledger.pacing, "standing", away)
        await moved(running, running.clock.at)
        decision = await bought(running, 2, CART, pays=True)
        assert decision["offers"] == []
        assert "pacing" in decision["degraded"]
        metrics = (await running.client.get("/metrics", headers=running.bearer("admin"))).text
        assert "tillwise_offer_spend_known 0.0" in metrics
        assert 'tillwise_offers_withheld_total{why="unknown"} 1.0' in metrics
    await moved(running, running.clock.at)
    assert (await bought(running, 3, CART, pays=True))["offers"]


async def test_what_the_budget_does_not_cover_is_rejected_and_refused(
    start: Start, factory: Factory
) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=23, minutes=10))
    await put(running, PICKED, margin_rate=0.4, daily_budget={"amount": 2 * OFF + 100})
    tokens = [await _token(running, f"v-{n}") for n in range(3)]
    answers = [
        await running.post(
            "/v1/offers/ten/reservations", {"offer_token": token, "visitor_id": f"v-{n}"}
        )
        for n, token in enumerate(tokens)
    ]
    assert [one.status_code for one in answers] == [200, 200, 409]
    refused(answers[2], "CampaignLimitReached")
    await moved(running, running.clock.at)
    after = (await running.decide(visitor_id="v-9", cart=CART, consent=ALL)).json()
    assert after["offers"] == []
    assert after["rejected_offers"] == [
        {"offer_id": "ten", "rejection_reason": "CampaignLimitReached"}
    ]
    # What lapses is given back, and another day has a budget of its own.
    await moved(running, running.clock.at + timedelta(minutes=16))
    again = (await running.decide(visitor_id="v-9", cart=CART, consent=ALL)).json()
    assert again["rejected_offers"] == []
    await moved(running, MIDNIGHT + timedelta(days=1, hours=12))
    assert (await running.decide(visitor_id="v-9", cart=CART, consent=ALL)).json()["offers"]


async def test_a_decision_right_after_a_reservation_knows_of_it(
    start: Start, factory: Factory
) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=23, minutes=10))
    await put(running, PICKED, margin_rate=0.4, daily_budget={"amount": OFF + 100})

    async def decided(visitor_id: str) -> dict[str, Any]:
        answer = await running.decide(visitor_id=visitor_id, cart=CART, consent=ALL)
        return dict(answer.json())

    said = {"offer_token": await _token(running, "v-1"), "visitor_id": "v-1"}
    held = await running.post("/v1/offers/ten/reservations", said)
    assert held.status_code == 200
    spent = await decided("v-2")
    assert spent["offers"] == []
    assert spent["rejected_offers"] == [
        {"offer_id": "ten", "rejection_reason": "CampaignLimitReached"}
    ]
    # Nor does what is given back have to be waited for.
    path = f"/v1/reservations/{held.json()['reservation_id']}/release"
    assert (await running.post(path, b"")).status_code == 200
    assert (await decided("v-2"))["offers"]


async def test_what_is_spent_while_the_price_is_solved_counts(
    start: Start, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=23, minutes=10))
    await put(running, PICKED, margin_rate=0.4, daily_budget={"amount": OFF + 100})
    said = {"offer_token": await _token(running, "v-1"), "visitor_id": "v-1"}
    records = running.gateway.ledger.pacing
    put_price = records.put_price

    reserved: list[int] = []

    async def slowly(*price: Any) -> Any:
        held = await running.post("/v1/offers/ten/reservations", said)
        reserved.append(held.status_code)
        return await put_price(*price)

    monkeypatch.setattr(records, "put_price", slowly)
    running.clock.at += timedelta(minutes=2)
    await running.gateway.pace_offers()
    assert reserved == [200]
    after = (await running.decide(visitor_id="v-2", cart=CART, consent=ALL)).json()
    assert after["offers"] == []


async def _token(running: Running, visitor_id: str) -> str:
    decision = (await running.decide(visitor_id=visitor_id, cart=CART, consent=ALL)).json()
    token: str = decision["offers"][0]["offer_token"]
    return token


async def test_a_shopper_is_shown_offers_so_often_only(start: Start, factory: Factory) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=10))
    await put(running, PICKED, margin_rate=0.4, frequency_cap={"times": 2, "days": 7})

    async def shown(session_id: str, **changed: Any) -> bool:
        asked = {"cart": CART, "consent": ALL, "session_id": session_id} | changed
        return bool((await running.decide(**asked)).json()["offers"])

    assert await shown("one")
    assert await shown("one")  # the same session, which counts once
    assert await shown("two")
    assert not await shown("three")
    assert await shown("two")  # what was shown there stays
    held = await running.client.get(
        f"/v1/subjects/{_subject(running)}", headers=running.bearer("admin")
    )
    assert held.json()["offers_shown"] == [running.clock.now().isoformat()] * 2
    assert await shown("one", visitor_id="somebody-else")
    running.clock.at += timedelta(days=6)
    assert not await shown("four")
    running.clock.at += timedelta(days=1, hours=1)
    assert await shown("five")
    await running.quiet()
    said = [one.decision["offers"] for one in running.logged() if one.event_name == "decision"]
    capped = [one for one in said if one["pacing"]["capped"]]
    assert len(capped) == 2
    for one in capped:
        assert one["no_offer_propensity"] == 1.0
        assert [arm["propensity"] for arm in one["arms"]] == [0.0]
    # Not without the word about what is remembered of a person: nothing counts, nothing is picked.
    assert not await shown("six", consent=ALL | {"personalization": False}, visitor_id="other")
    await running.gateway.shelf.keep_pace(running.clock.now())
    kept = await running.gateway.ledger.pacing.shown(
        running.gateway.holders.of(_subject(running)).names_as_viewer
    )
    assert len(kept) == 1  # what counts no more is gone


async def test_what_a_rule_gives_counts_and_is_shown_however_often(
    start: Start, factory: Factory
) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=10))
    await put(running, PICKED, margin_rate=0.4, frequency_cap={"times": 1, "days": 7})
    rule = {"id": "always", "actions": [{"kind": "force_offer", "offer_id": "ten"}]}
    headers = {"content-type": "application/json"} | running.bearer("admin")
    await running.client.put("/v1/rules", json={"rules": [rule]}, headers=headers)
    for session_id in ("one", "two", "three"):
        asked = {"cart": CART, "consent": ALL, "session_id": session_id}
        told = (await running.decide(**asked)).json()
        assert [one["offer_id"] for one in told["offers"]] == ["ten"]
        assert (told["applied_rules"], told["degraded"]) == (["always"], [])
    held = await running.client.get(
        f"/v1/subjects/{_subject(running)}", headers=running.bearer("admin")
    )
    assert len(held.json()["offers_shown"]) == 1
    await running.client.put("/v1/rules", json={"rules": []}, headers=headers)
    assert not (await running.decide(cart=CART, consent=ALL, session_id="four")).json()["offers"]


async def test_uses_and_showings_of_a_shopper_are_looked_up_at_once(
    start: Start, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=10))
    once = PICKED | {"limits": {"per_subject": 1}}
    other = PICKED | {"offer_id": "other", "discount": {"kind": "percent", "percent": 11}}
    await put(running, once, other, margin_rate=0.4, frequency_cap={"times": 2, "days": 7})
    ledger, looks = running.gateway.ledger, list[int]()
    look = ledger.seen

    async def seen(holders: Any, viewer: Any, now: Any) -> Seen:
        looks.append(len(holders))
        return await look(holders, viewer, now)

    monkeypatch.setattr(ledger, "seen", seen)
    asked = {"cart": CART, "consent": ALL}
    first = (await running.decide(session_id="one", **asked)).json()
    assert looks == []  # nobody knew them
    held = await reserve(running, first)
    assert held.status_code == 200, held.text
    again = (await running.decide(session_id="two", **asked)).json()
    assert looks == [1]
    assert again["rejected_offers"] == [
        {"offer_id": "ten", "rejection_reason": "ProfileLimitReached"}
    ]
    assert [one["offer_id"] for one in again["offers"]] == ["other"]
    assert (await running.decide(session_id="three", **asked)).json()["offers"] == []


def _subject(running: Running) -> str:
    visitor, user = running.gateway.subjects.pseudonyms("visitor-raw-1", None)
    found = running.gateway.control.look_up(visitor, user).subject_id
    assert found is not None
    return found


async def test_a_shop_without_a_budget_pays_nothing_for_it(
    start: Start, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=10))
    await put(running, PICKED, margin_rate=0.4)

    async def asked(*_: object) -> None:
        raise AssertionError("the ledger was asked about a budget")

    for name in ("standing", "slots", "shown", "show", "add_slots", "put_price"):
        monkeypatch.setattr(running.gateway.ledger.pacing, name, asked)
    await moved(running, running.clock.at)
    decision = (await running.decide(cart=CART, consent=ALL)).json()
    assert decision["offers"]
    assert decision["degraded"] == []
    await running.quiet()
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    assert "pacing" not in event.decision["offers"]


async def test_chance_alone_chooses_before_there_is_a_network(running: Running) -> None:
    await put(running, PICKED, margin_rate=0.4, holdout_share=0.0, explore_share=1.0)
    shown = 0
    for number in range(40):
        decision = await running.decide(visitor_id=f"v-{number}", cart=CART, consent=ALL)
        shown += bool(decision.json()["offers"])
    assert 8 <= shown <= 32
    await running.quiet()
    for event in running.logged():
        if event.event_name == "decision":
            said = event.decision["offers"]
            assert said["policy"] == "chance"
            assert said["no_offer_propensity"] == 0.5
            assert said["arms"][0]["propensity"] == 0.5
            assert said["arms"][0]["expected_gain"] is None


async def test_a_blocked_offer_leaves_exact_chances(start: Start, factory: Factory) -> None:
    running = await opened(start, factory, MIDNIGHT + timedelta(hours=10))
    more = PICKED | {"offer_id": "twelve", "discount": {"kind": "percent", "percent": 12}}
    await put(running, PICKED, more, margin_rate=0.4, explore_share=0.3)
    block = {
        "id": "no-ten",
        "actions": [{"kind": "block_offer", "offer_ids": ["ten"]}],
    }
    headers = {"content-type": "application/json"} | running.bearer("admin")
    put_rules = await running.client.put("/v1/rules", json={"rules": [block]}, headers=headers)
    assert put_rules.status_code == 200, put_rules.text
    await running.decide(cart=CART, consent=ALL)
    await running.quiet()
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    said = event.decision["offers"]
    assert {arm["offer_id"]: arm["propensity"] for arm in said["arms"]} == pytest.approx(
        {"ten": 0.0, "twelve": 0.1}
    )
    # Where the blocked one would have been shown, nothing is.
    assert said["no_offer_propensity"] == pytest.approx(0.9)
