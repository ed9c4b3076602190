"""Payments and deliveries in a decision: ordered by the release's choices, moved by one's own, with
consent, and always those that were sent."""

import math
from pathlib import Path
from typing import Any

import pytest

from contract.choices import Choices, ChoiceWeights
from tests.serving.conftest import ALL, Running, Start, checkout, event
from tests.serving.release_factory import Factory

PAYMENTS = ["card", "invoice", "wallet"]
DELIVERIES = [
    {"id": "post", "price": 300, "days": 4},
    {"id": "express", "price": 900, "days": 1},
]


def _weights(names: tuple[str, ...], base: tuple[float, ...]) -> ChoiceWeights:
    nothing = (0.0,) * len(names)
    north = (math.log(20), *nothing[1:])
    return ChoiceWeights(
        names=names,
        regions=("north",),
        base=base,
        by_region=(north,),
        by_device=(nothing,) * 4,
        knots=(0.0,),
        by_value=(nothing,),
        pseudo_counts=1.0,
    )


@pytest.fixture
async def running(start: Start, tmp_path: Path) -> Running:
    choices = Choices(
        payment=_weights(("card", "invoice", "wallet"), (0.0, 1.0, 2.0)),
        shipping=_weights(("post", "express"), (0.0, 1.0)),
    )
    factory = Factory(tmp_path / "with-choices", choices=choices)
    factory.write()
    return await start(releases=factory.releases_dir, models=factory.models_dir)


async def decided(running: Running, **changed: Any) -> dict[str, Any]:
    body = checkout(payment_methods=PAYMENTS, shipping_options=DELIVERIES) | changed
    answer = await running.post("/v1/checkout/decide", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_likeliest_comes_first_and_the_region_counts(running: Running) -> None:
    told = await decided(running)
    assert told["payment_method_order"] == ["wallet", "invoice", "card"]
    assert told["shipping_option_order"] == ["express", "post"]
    north = await decided(running, context={"region": "north"})
    assert north["payment_method_order"] == ["card", "wallet", "invoice"]
    assert north["shipping_option_order"] == ["post", "express"]


async def test_what_one_chose_before_moves_it_with_consent_only(running: Running) -> None:
    chosen = [
        event(
            event_name="add_payment_info",
            payment_type="card",
            shipping_tier="post",
            session_id=f"session-{n}",
            items=[],
        )
        for n in range(3)
    ]
    assert (await running.post("/v1/events", {"events": chosen})).status_code == 202
    told = await decided(running, consent=ALL)
    assert told["payment_method_order"][0] == "card"
    assert told["shipping_option_order"][0] == "post"
    unasked = await decided(running, gpc=True)
    assert unasked["payment_method_order"] == ["wallet", "invoice", "card"]
    await running.quiet()
    (logged,) = [one for one in running.logged() if one.event_name == "decision"]
    assert logged.decision["payment_methods"]["order"] == told["payment_method_order"]
    assert logged.decision["payment_methods"]["reason"] == "chosen_before"
    assert sum(logged.decision["shipping_options"]["shares"]) == pytest.approx(1.0)


async def test_why_they_stand_in_this_order_is_told(running: Running) -> None:
    chosen = event(event_name="add_payment_info", payment_type="card", items=[])
    assert (await running.post("/v1/events", {"events": [chosen]})).status_code == 202
    told = await decided(running, consent=ALL)
    await running.quiet()
    path = f"/v1/decisions/{told['decision_id']}/explanation"
    said = (await running.client.get(path, headers=running.bearer())).json()
    assert said["payment"]["order"] == told["payment_method_order"]
    assert said["payment"]["reason"]["code"] == "chosen_before"
    assert said["shipping"]["reason"]["code"] == "usual_here"
    signal = running.bearer() | {"Sec-GPC": "1"}
    said = (await running.client.get(path, headers=signal)).json()
    assert said["payment"] is None  # it follows from the history
    assert said["shipping"]["order"] == told["shipping_option_order"]


async def test_a_session_s_choice_counts_once(running: Running) -> None:
    twice = [
        event(
            event_name="add_payment_info",
            payment_type=name,
            session_id="one",
            items=[],
            occurred_at=f"2017-11-20T11:0{minute}:00Z",
        )
        for minute, name in enumerate(("card", "wallet"))
    ]
    assert (await running.post("/v1/events", {"events": twice})).status_code == 202
    subject = await running.post("/v1/subjects/resolve", {"visitor_id": "visitor-raw-1"})
    state = await running.gateway.features.read(subject.json()["subject_id"])
    assert len(state["choices"]) == 2
    told = await decided(running, consent=ALL)
    assert told["payment_method_order"][0] == "wallet"


async def test_only_what_was_asked_for_is_ordered(running: Running) -> None:
    told = await decided(running, placements=["shipping"])
    assert told["payment_method_order"] == []
    assert told["shipping_option_order"] == ["express", "post"]


async def test_a_release_without_choices_leaves_the_caller_s_order(start: Start) -> None:
    told = await decided(await start())
    assert told["payment_method_order"] == PAYMENTS
    assert told["shipping_option_order"] == ["post", "express"]
    assert told["degraded"] == []


async def test_an_option_that_nobody_knows_comes_last_and_stays(running: Running) -> None:
    told = await decided(running, payment_methods=["barter", *PAYMENTS])
    assert told["payment_method_order"] == ["wallet", "invoice", "card", "barter"]
