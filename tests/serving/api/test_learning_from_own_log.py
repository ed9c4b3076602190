"""The loop closed: a real gateway shows offers by chance and orders options, shoppers answer, its
log is exported, and the uplift network and the choices are learned from it."""

from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from contract.choices import Choices, Option
from contract.events import EventContext
from contract.manifest import CHOICES
from contract.offers import AmountOff, PercentOff
from tests.serving.api.test_offers import CART, TEN, put
from tests.serving.api.test_rights import exported
from tests.serving.conftest import ALL, Running
from training.__main__ import main
from training.data.checkouts import read_offer_log
from training.uplift.fit import predicted
from training.uplift.run_folder import read_uplift

SHOPPERS = 240
PICKED = TEN | {"unconditional": False}
FIVE = PICKED | {"offer_id": "five", "discount": {"kind": "amount", "amount": 500}}
# Ten per cent makes most of them buy, five off hardly anybody more.
BUYS = {"ten": 0.9, "five": 0.3, "none": 0.25}
OFFERED = {
    "payment_methods": ["card", "wallet"],
    "shipping_options": [
        {"id": "standard", "price": 0, "days": 5},
        {"id": "express", "price": 500, "days": 1},
    ],
}


async def checked_out(running: Running, number: int, chance: Random) -> list[dict[str, Any]]:
    """One shopper's decision; the events of what they did then."""
    device = chance.choice(["desktop", "mobile"])
    who = {"visitor_id": f"v-{number}", "session_id": f"s-{number}"}
    context = {"device": device, "region": "north"}
    asked = who | OFFERED | {"cart": CART, "consent": ALL, "context": context}
    decision = (await running.decide(**asked)).json()
    shown = decision["offers"][0]["offer_id"] if decision["offers"] else "none"
    if chance.random() >= BUYS[shown]:
        return []
    usual = "card" if device == "desktop" else "wallet"
    paid = {
        "payment_type": usual if chance.random() < 0.9 else "card",
        "shipping_tier": "standard" if chance.random() < 0.8 else "express",
    }
    at = running.clock.now() + timedelta(minutes=1)
    return [
        _event(who, at, "add_payment_info", items=[], payment_type=paid["payment_type"]),
        _event(who, at, "purchase", transaction_id=f"t-{number}", items=CART["items"], **paid),
    ]


def _event(who: dict[str, str], at: datetime, name: str, **told: Any) -> dict[str, Any]:
    body = {
        "event_id": str(uuid4()),
        "event_name": name,
        "occurred_at": at.isoformat(),
        "consent": ALL,
        "currency": "USD",
    }
    return body | who | told


async def test_uplift_and_choices_are_learned_from_the_gateways_own_log(
    running: Running, tmp_path: Path
) -> None:
    await put(running, PICKED, FIVE, margin_rate=0.4, holdout_share=0.1, explore_share=0.9)
    chance, events = Random(5), []
    for number in range(SHOPPERS):
        running.clock.at += timedelta(minutes=2)
        events += await checked_out(running, number, chance)
    running.clock.at += timedelta(days=2)  # all that can still come has come
    events.append(
        _event({"visitor_id": "v-0", "session_id": "later"}, running.clock.at, "page_view")
    )
    await running.quiet()
    for start in range(0, len(events), 200):
        answer = await running.post("/v1/events", {"events": events[start : start + 200]})
        assert {one["status"] for one in answer.json()["results"]} == {"accepted"}
    data = tmp_path / "data"
    await exported(running, data)

    log = read_offer_log(data)
    assert len(log) == SHOPPERS
    assert set(log.arms) == {"none", "ten", "five"}
    chances = dict(zip(log.arms, log.propensity[0].tolist(), strict=True))
    assert chances == pytest.approx({"none": 0.4, "ten": 0.3, "five": 0.3})
    assert log.outcome.sum() == sum(one["event_name"] == "purchase" for one in events)

    offers, choices = tmp_path / "offers", tmp_path / "choices"
    assert main(["uplift", "--data", str(data), "--output", str(offers)]) == 0
    network, arms = read_uplift(offers)
    assert {one.discount for one in arms.arms} == {PercentOff(percent=10), AmountOff(amount=500)}
    told = predicted(network, log)[0].mean(0)
    by_arm = dict(zip(log.arms, told.tolist(), strict=True))
    assert by_arm["ten"] - by_arm["none"] > 0.35
    assert by_arm["five"] - by_arm["none"] < 0.3

    assert main(["choices", "--data", str(data), "--output", str(choices)]) == 0
    learned = Choices.parse((choices / CHOICES).read_bytes(), CHOICES)
    assert learned.payment is not None
    assert learned.shipping is not None
    options = [Option("card"), Option("wallet")]
    likely = {
        device: learned.payment.likely(options, EventContext(device=device), 4_999, {})
        for device in ("desktop", "mobile")
    }
    assert likely["desktop"][0] > 0.6
    assert likely["mobile"][1] > 0.6
    sent = [Option("standard", 0, 5), Option("express", 500, 1)]
    assert learned.shipping.likely(sent, EventContext(), 4_999, {})[0] > 0.6
