"""Offers over HTTP, from the shop's book to the coupon that is rolled back."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from contract.clock import FixedClock
from contract.offer_checks import Used
from serving.state.sqlite_writer import StoreError
from tests.serving.api.test_auth import page_token
from tests.serving.conftest import ALL, NOON, Running, Start, checkout, purchase

CART: dict[str, Any] = {
    "cart_id": "cart-1",
    "currency": "USD",
    "items": [
        {"item_id": "item-1", "quantity": 2, "price": 1_500},
        {"item_id": "item-2", "quantity": 1, "price": 1_999},
    ],
}
VALUE = 4_999
TEN = {
    "offer_id": "ten",
    "title": "10 % off",
    "discount": {"kind": "percent", "percent": 10},
    "currency": "USD",
    "unconditional": True,
}
FIRST = TEN | {"offer_id": "first", "first_order": True, "limits": {"per_subject": 1}}


async def put(running: Running, *offers: Any, role: Any = "admin", **more: Any) -> httpx.Response:
    body = {"offers": list(offers), "holdout_share": 0.0} | more
    headers = {"content-type": "application/json"} | running.bearer(role)
    return await running.client.put("/v1/offers", json=body, headers=headers)


async def test_a_book_may_be_written_as_yaml(running: Running) -> None:
    text = """
offers:
- offer_id: ten
  title: 10 % off
  discount: {kind: percent, percent: 10}
  currency: USD
  schedule: {valid_from: 2017-01-01T00:00:00Z}
holdout_share: 0.0
"""
    headers = running.bearer("admin") | {"content-type": "application/yaml"}
    written = await running.client.put("/v1/offers", content=text, headers=headers)
    assert written.status_code == 200, written.text
    assert written.json()["offers"][0]["schedule"]["valid_from"] == "2017-01-01T00:00:00Z"
    wrong = await running.client.put("/v1/offers", content="offers: [", headers=headers)
    assert wrong.status_code == 400


async def test_versions_are_read_back_compared_and_taken_up_again(running: Running) -> None:
    async def get(path: str = "", **headers: str) -> httpx.Response:
        return await running.client.get(f"/v1/offers{path}", headers=admin | headers)

    admin = running.bearer("admin")
    await put(running, TEN, note="first")
    first = (await get()).json()
    await put(running, TEN | {"title": "Ten"}, FIRST)
    versions = (await get("/history")).json()["versions"]
    assert [(one["version"], one["note"]) for one in versions] == [(2, ""), (1, "first")]
    changes = (await get("/diff?before=1")).json()["changes"]
    assert [one["path"] for one in changes] == ["offers[ten].title", "offers[first]"]
    assert (await get("?version=1")).json() == first
    old = await get("?version=1", accept="application/yaml")
    assert old.headers["content-type"].startswith("application/yaml")
    headers = admin | {"content-type": "application/yaml"}
    again = await running.client.put("/v1/offers", content=old.text, headers=headers)
    assert again.json()["offers"] == first["offers"]
    assert (await get("/diff?before=1")).json()["changes"] == []
    for path in ("?version=9", "/diff?before=9", "/diff?before=1&after=9"):
        assert (await get(path)).status_code == 404


async def offered(running: Running, **changed: Any) -> dict[str, Any]:
    answer = await running.decide(**({"cart": CART, "consent": ALL} | changed))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def reservation(decision: dict[str, Any], **changed: Any) -> dict[str, Any]:
    token = decision["offers"][0]["offer_token"]
    return {"offer_token": token, "visitor_id": "visitor-raw-1"} | changed


async def reserve(running: Running, decision: dict[str, Any], **changed: Any) -> httpx.Response:
    offer_id = decision["offers"][0]["offer_id"]
    path = f"/v1/offers/{offer_id}/reservations"
    return await running.post(path, reservation(decision, **changed))


def payment(transaction_id: str = "order-1", **changed: Any) -> dict[str, Any]:
    return {"transaction_id": transaction_id, "cart": CART, "total": VALUE - 499} | changed


async def redeem(running: Running, held: Any, **changed: Any) -> httpx.Response:
    path = f"/v1/reservations/{held['reservation_id']}/redeem"
    return await running.post(path, payment(**changed))


def refused(answer: httpx.Response, reason: str, status: int = 409) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["rejection_reason"] == reason


async def test_the_whole_life_of_a_coupon(running: Running) -> None:
    assert (await put(running, TEN)).status_code == 200
    decision = await offered(running)
    (offer,) = decision["offers"]
    assert (offer["offer_id"], offer["title"]) == ("ten", "10 % off")
    # A tenth of 4,999, rounded down.
    assert offer["discount"] == {
        "kind": "percent",
        "amount": 499,
        "currency": "USD",
        "percent": 10.0,
        "shipping_ids": [],
    }
    assert offer["expires_at"] == "2017-11-20T12:30:00Z"
    assert "offers" in decision["timings_ms"]
    held = await reserve(running, decision)
    assert held.status_code == 200
    assert held.json() | {"reservation_id": ""} == {
        "reservation_id": "",
        "offer_id": "ten",
        "state": "reserved",
        "amount": 499,
        "currency": "USD",
        "expires_at": "2017-11-20T12:15:00Z",
    }
    assert (await reserve(running, decision)).json() == held.json()
    paid = await redeem(running, held.json())
    assert paid.status_code == 200
    assert paid.json()["discounts"] == [
        {"reservation_id": held.json()["reservation_id"], "amount": 499}
    ]
    assert paid.json()["total"] == 4_500
    assert (await redeem(running, held.json())).json() == paid.json()
    path = f"/v1/redemptions/{paid.json()['redemption_id']}/rollback"
    undone = await running.post(path, b"")
    assert undone.json()["rolled_back_at"] == "2017-11-20T12:00:00Z"
    assert (await running.post(path, b"")).json() == undone.json()


async def test_a_shop_without_offers_is_not_asked_for_any(running: Running) -> None:
    decision = (await running.decide(cart=CART, consent=ALL)).json()
    assert decision["offers"] == []
    assert "offers" not in decision["timings_ms"]


async def test_deciding_reserves_nothing(running: Running) -> None:
    await put(running, TEN | {"limits": {"total": 1}})
    for _ in range(3):
        decision = await offered(running)
        assert len(decision["offers"]) == 1
    assert await running.gateway.ledger.used(NOON) == {}
    await reserve(running, decision)
    again = await offered(running)
    assert again["offers"] == []
    assert again["rejected_offers"] == [
        {"offer_id": "ten", "rejection_reason": "CouponLimitReached"}
    ]


async def test_steps_that_are_taken_at_once_are_learned_together(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(running, TEN | {"limits": {"total": 9}})
    shelf, ledger, looks = running.gateway.shelf, running.gateway.ledger, list[int]()
    used = ledger.used

    async def counted(now: Any) -> Any:
        looks.append(1)
        return await used(now)

    monkeypatch.setattr(ledger, "used", counted)
    await asyncio.gather(*(shelf.hear_of_use(NOON) for _ in range(20)))
    assert len(looks) == 2  # for the first, and for all that came while it was looked for


async def test_a_step_that_was_taken_is_answered_though_uses_can_not_be_read(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(running, TEN | {"limits": {"total": 1}})

    async def away(*_: object) -> None:
        raise StoreError("the coupon ledger: away")

    with monkeypatch.context() as patched:
        patched.setattr(running.gateway.ledger, "used", away)
        assert (await reserve(running, await offered(running))).status_code == 200
        other = await offered(running)
    refused(await reserve(running, other), "CouponLimitReached")


async def test_release_frees_and_only_once(running: Running) -> None:
    await put(running, TEN | {"limits": {"total": 1}})
    first, second = await offered(running), await offered(running)
    held = (await reserve(running, first)).json()
    refused(await reserve(running, second), "CouponLimitReached")
    path = f"/v1/reservations/{held['reservation_id']}/release"
    freed = await running.post(path, b"")
    assert freed.json()["state"] == "released"
    assert (await running.post(path, b"")).json() == freed.json()
    assert (await reserve(running, second)).status_code == 200
    refused(await redeem(running, held), "ReservationReleased")
    refused(await reserve(running, first), "CouponLimitReached")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"total": VALUE}, "TotalMismatch"),
        ({"cart": CART | {"items": CART["items"][:1]}, "total": 2_700}, "CartMismatch"),
        ({"cart": CART | {"currency": "EUR"}}, "CartMismatch"),
        ({"shipping": {"id": "standard", "price": 500}}, "TotalMismatch"),
    ],
)
async def test_what_is_paid_is_recomputed(
    running: Running, changed: dict[str, Any], reason: str
) -> None:
    await put(running, TEN)
    held = (await reserve(running, await offered(running))).json()
    answer = await redeem(running, held, **changed)
    refused(answer, reason)
    if changed == {"total": VALUE}:
        assert answer.json()["due"] == 4_500
    # The same goods on other lines are the same cart.
    lines = [CART["items"][1], *[CART["items"][0] | {"quantity": 1}] * 2]
    other = CART | {"cart_id": "renamed", "items": lines}
    assert (await redeem(running, held, cart=other)).status_code == 200


async def test_tokens_are_for_one_offer_one_shop_and_a_time(running: Running) -> None:
    await put(running, TEN)
    decision = await offered(running)
    forged = decision["offers"][0]["offer_token"][:-4] + "AAAA"
    assert (await reserve(running, decision, offer_token=forged)).status_code == 422
    other_kind = decision["attribution_token"]
    assert (await reserve(running, decision, offer_token=other_kind)).status_code == 422
    elsewhere = await running.post("/v1/offers/eleven/reservations", reservation(decision))
    assert elsewhere.status_code == 422
    running.clock.at = NOON + timedelta(minutes=30)
    refused(await reserve(running, decision), "CouponExpired")


async def test_a_reservation_ends_with_its_time_and_with_the_offer(running: Running) -> None:
    until = NOON + timedelta(minutes=5)
    await put(running, TEN | {"schedule": {"valid_until": until.isoformat()}})
    decision = await offered(running)
    assert decision["offers"][0]["expires_at"] == "2017-11-20T12:05:00Z"
    held = (await reserve(running, decision)).json()
    assert held["expires_at"] == "2017-11-20T12:05:00Z"
    running.clock.at = until
    refused(await redeem(running, held), "ReservationExpired")
    refused(await reserve(running, decision), "CouponExpired")
    late = await offered(running)
    assert late["rejected_offers"] == [{"offer_id": "ten", "rejection_reason": "CouponExpired"}]


async def test_withdrawing_stops_everything_but_what_is_paid(running: Running) -> None:
    await put(running, TEN)
    first, second = await offered(running), await offered(running)
    held = (await reserve(running, first)).json()
    paid = (await reserve(running, second)).json()
    done = await redeem(running, paid, transaction_id="order-2")
    await put(running)
    refused(await redeem(running, held), "CouponNotFound", 404)
    refused(await reserve(running, first), "CouponNotFound", 404)
    assert (await redeem(running, paid, transaction_id="order-2")).json() == done.json()


async def test_moving_its_end_stops_an_offer_whatever_is_reserved(running: Running) -> None:
    await put(running, TEN)
    held = (await reserve(running, await offered(running))).json()
    await put(running, TEN | {"schedule": {"valid_until": (NOON - timedelta(days=1)).isoformat()}})
    refused(await redeem(running, held), "CouponExpired")


async def test_a_reservation_holds_the_hour_for_its_minutes(running: Running) -> None:
    noon = {"hours": {"from_hour": 12, "until_hour": 13}, "timezone": "UTC"}
    running.clock.at = NOON + timedelta(minutes=55)
    await put(running, TEN | {"schedule": noon})
    held = (await reserve(running, await offered(running))).json()
    running.clock.at = NOON + timedelta(minutes=65)
    assert (await offered(running))["offers"] == []
    assert (await redeem(running, held)).status_code == 200


async def test_a_cart_is_worth_what_the_ledger_can_count(running: Running) -> None:
    await put(running, TEN)
    most = {"item_id": "item-1", "quantity": 1_000_000, "price": 1_000_000}
    held = (await reserve(running, await offered(running, cart=CART | {"items": [most]}))).json()
    assert held["amount"] == 10**11
    more = CART | {"items": [most, {"item_id": "item-2", "price": 1}]}
    answer = await running.decide(cart=more, consent=ALL)
    assert answer.status_code == 422
    assert "1000000000000 minor units in all" in answer.json()["detail"]
    over = await redeem(running, held, cart=more)
    assert over.status_code == 422


async def test_a_way_of_delivery_is_named_once(running: Running) -> None:
    twice = [{"id": "standard", "price": 499}, {"id": "standard", "price": 0}]
    answer = await running.decide(shipping_options=twice)
    assert answer.status_code == 422
    assert "same thing twice" in answer.json()["detail"]


async def test_a_first_order_needs_a_user_and_the_callers_word(running: Running) -> None:
    await put(running, FIRST)
    said = {"first_order": True}
    for changed in (
        {"user_id": "user-1"},
        {"context": said},
        {"user_id": "user-1", "context": {"first_order": False}},
        {"user_id": "user-1", "context": said, "consent": ALL | {"offers": False}},
    ):
        answer = await offered(running, **changed)
        assert answer["offers"] == []
        assert answer["rejected_offers"][0]["rejection_reason"] == "CouponRecipientDoesNotMatch"
    # With another visitor: consent is stored by now.
    shopper = {"visitor_id": "visitor-2", "user_id": "user-2"}
    decision = await offered(running, **shopper, context=said)
    assert [one["offer_id"] for one in decision["offers"]] == ["first"]


async def test_a_first_order_is_not_for_a_page_to_say_nor_against_what_is_known(
    running: Running,
) -> None:
    await put(running, FIRST)
    asked = {"user_id": "user-1", "consent": ALL, "context": {"first_order": True}, "cart": CART}
    token = page_token(running, sub="user-1")
    answer = await running.client.post(
        "/v1/checkout/decide",
        json=checkout(**asked, deadline_ms=1000),
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200
    assert answer.json()["offers"] == []
    assert [one["offer_id"] for one in (await offered(running, **asked))["offers"]] == ["first"]
    bought = purchase("item-3", visitor_id="visitor-1", user_id="user-1")
    assert (await running.post("/v1/events", {"events": [bought]})).status_code == 202
    assert (await offered(running, **asked))["offers"] == []


@pytest.mark.parametrize("user_id", [None, "user-7"])
async def test_a_limited_offer_makes_nobody_known(running: Running, user_id: str | None) -> None:
    """Without consent and under Global Privacy Control a reservation is a contract, no more."""
    await put(running, TEN | {"limits": {"per_subject": 1}})
    nothing = dict.fromkeys(ALL, False)
    shopper = {"user_id": user_id} if user_id else {}
    first, second = [await offered(running, **shopper, consent=nothing, gpc=True) for _ in "12"]
    assert (await reserve(running, first, **shopper)).status_code == 200
    assert running.gateway.control.subject_ids() == []
    refused(await reserve(running, second, **shopper), "ProfileLimitReached")
    # Nor does agreeing afterwards give it once more.
    agreed = await offered(running, **shopper)
    assert len(running.gateway.control.subject_ids()) == 1 + len(shopper)
    refused(await reserve(running, agreed, **shopper), "ProfileLimitReached")
    other = await offered(running, visitor_id="visitor-8", consent=nothing)
    assert (await reserve(running, other, visitor_id="visitor-8")).status_code == 200


async def test_once_for_each_shopper_on_whatever_device(running: Running) -> None:
    await put(running, FIRST)
    shopper = {"user_id": "user-1", "context": {"first_order": True}}
    phone, desk = await offered(running, **shopper), await offered(running, **shopper)
    other = await offered(running, **(shopper | {"visitor_id": "visitor-9"}))
    refused(await reserve(running, phone), "CouponRecipientDoesNotMatch")
    refused(
        await reserve(running, phone, visitor_id="visitor-9", user_id="user-2"),
        "CouponRecipientDoesNotMatch",
    )
    held = await reserve(running, phone, user_id="user-1")
    assert held.status_code == 200
    refused(await reserve(running, desk, user_id="user-1"), "ProfileLimitReached")
    third = await reserve(running, other, visitor_id="visitor-9", user_id="user-1")
    refused(third, "ProfileLimitReached")
    shown = await offered(running, **shopper)
    assert shown["rejected_offers"] == [
        {"offer_id": "first", "rejection_reason": "ProfileLimitReached"}
    ]


async def test_conditions_read_cart_place_and_with_consent_the_shopper(running: Running) -> None:
    big = TEN | {"offer_id": "big", "condition": "cart.total >= 4000 && cart.currency == 'USD'"}
    here = TEN | {"offer_id": "here", "condition": "context.country == 'DE'"}
    loyal = TEN | {"offer_id": "loyal", "condition": "'repeat_buyers' in segments"}
    assert (await put(running, big, here, loyal)).status_code == 200
    sent = {"events": [purchase("item-3", transaction_id=f"t-{n}") for n in range(3)]}
    await running.post("/v1/events", sent)

    async def which(**changed: Any) -> list[str]:
        away = {one["offer_id"] for one in (await offered(running, **changed))["rejected_offers"]}
        return sorted({"big", "here", "loyal"} - away)

    assert await which(context={"country": "DE"}) == ["big", "here", "loyal"]
    assert await which() == ["big", "loyal"]
    no_offers = ALL | {"offers": False}
    assert await which(consent=no_offers, context={"country": "DE"}) == ["big", "here"]
    assert await which(gpc=True) == ["big"]
    small = CART | {"items": CART["items"][:1]}
    assert await which(cart=small, gpc=True) == []


async def test_a_loyal_shopper_gets_what_their_tier_says(running: Running) -> None:
    tiers = [
        {"name": "silver", "min_orders": 2, "percent": 5},
        {"name": "gold", "min_orders": 3, "percent": 8},
    ]
    await put(running, TEN | {"discount": {"kind": "loyalty_tier", "tiers": tiers}})
    for number, taken in ((1, None), (2, 249), (3, 399), (4, 399)):
        sent = {"events": [purchase("item-3", transaction_id=f"t-{number}")]}
        assert (await running.post("/v1/events", sent)).status_code == 202
        decision = await offered(running)
        found = [one["discount"]["amount"] for one in decision["offers"]]
        assert found == ([] if taken is None else [taken])
    held = (await reserve(running, decision)).json()
    assert (await redeem(running, held, total=VALUE - 399)).status_code == 200


async def test_free_delivery_and_what_goes_with_it(running: Running) -> None:
    free = TEN | {"offer_id": "free", "discount": {"kind": "free_shipping"}, "group": "summer"}
    await put(running, TEN | {"group": "summer"}, TEN | {"offer_id": "alone"}, free)
    options = [{"id": "standard", "price": 499}, {"id": "express", "price": 1_299}]
    decision = await offered(running, shipping_options=options)
    assert [(one["offer_id"], one["discount"]["amount"]) for one in decision["offers"]] == [
        ("ten", 499),
        ("free", 1_299),
    ]
    held = []
    for one in decision["offers"]:
        body = {"offer_token": one["offer_token"], "visitor_id": "visitor-raw-1"}
        answer = await running.post(f"/v1/offers/{one['offer_id']}/reservations", body)
        held.append(answer.json())
    both = {
        "shipping": {"id": "standard", "price": 499},
        "combined_with": [held[1]["reservation_id"]],
    }
    paid = await redeem(running, held[0], **both)
    assert paid.status_code == 200
    assert sorted(one["amount"] for one in paid.json()["discounts"]) == [499, 499]


async def test_the_holdout_is_a_share_by_chance_and_on_record(running: Running) -> None:
    await put(running, TEN, holdout_share=0.3)
    shown = 0
    for number in range(200):
        decision = await offered(running, visitor_id=f"visitor-{number}")
        shown += len(decision["offers"])
    assert 110 <= shown <= 170  # 140 expected, 6.5 standard deviation
    await running.quiet()
    records = [one.decision["offers"] for one in running.logged() if one.event_name == "decision"]
    assert len(records) == 200
    assert sum(one["arms"][0]["shown"] for one in records) == shown
    for one in records:
        assert one["no_offer_propensity"] == pytest.approx(0.3)
        assert one["arms"][0]["propensity"] == pytest.approx(0.7)
        assert one["holdout"] is not one["arms"][0]["shown"]
    # The same shopper is always on the same side.
    again = {bool((await offered(running, visitor_id="visitor-7"))["offers"]) for _ in range(5)}
    assert len(again) == 1


async def test_only_what_is_unconditional_is_shown_without_a_model(running: Running) -> None:
    await put(running, TEN | {"unconditional": False})
    decision = await offered(running)
    assert decision["offers"] == decision["rejected_offers"] == []
    await running.quiet()
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    assert event.decision["offers"]["arms"][0]["propensity"] == 0.0
    assert event.decision["offers"]["no_offer_propensity"] == 1.0


async def test_a_decision_with_an_offer_is_on_record_before_the_answer(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(running, TEN)
    decision = await offered(running)
    logged = [one.event_id for one in running.logged()]  # without waiting for anything
    assert UUID(decision["decision_id"]) in logged

    async def fails(_: Any) -> None:
        raise StoreError("full")

    over = asyncio.Event()

    async def hangs(_: Any) -> None:
        await over.wait()

    for broken, wait in ((fails, 1_000), (hangs, 100)):
        monkeypatch.setattr(running.gateway.event_log, "append", broken)
        answer = await offered(running, deadline_ms=wait)
        assert answer["offers"] == []
        assert "offers" in answer["degraded"]
    over.set()


async def test_without_analytics_an_offer_leaves_no_trace(running: Running) -> None:
    await put(running, TEN)
    decision = await offered(running, consent=ALL | {"analytics": False, "personalization": False})
    assert len(decision["offers"]) == 1
    await running.quiet()
    assert running.logged() == []


async def test_another_currency_withholds_amounts(running: Running) -> None:
    amount = TEN | {"offer_id": "off", "discount": {"kind": "amount", "amount": 500}}
    await put(running, amount, TEN)
    decision = await offered(running, cart=CART | {"currency": "EUR"})
    assert [one["offer_id"] for one in decision["offers"]] == ["ten"]
    assert decision["offers"][0]["discount"]["currency"] == "EUR"
    assert decision["rejected_offers"] == [
        {"offer_id": "off", "rejection_reason": "CouponRejectedByCondition"}
    ]


async def test_the_margin_floor_holds_by_the_costs_that_were_said(running: Running) -> None:
    await put(running, TEN, margin_floor=0.2)
    assert (await offered(running))["offers"] == []  # nobody said a cost
    costs = [{"item_id": "item-1", "cost": 1_000}, {"item_id": "item-2", "cost": 1_499}]
    headers = running.bearer("admin")
    patch = {"items": costs}
    await running.client.patch("/v1/catalogue/items", json=patch, headers=headers)
    # 1,500 are left of 4,999, of which 499 go: 1,001 against a floor of 999.8.
    assert len((await offered(running))["offers"]) == 1
    patch = {"items": [{"item_id": "item-2", "cost": 1_501}]}
    await running.client.patch("/v1/catalogue/items", json=patch, headers=headers)
    assert (await offered(running))["offers"] == []


async def test_the_book_is_checked_versioned_and_the_admins(running: Running) -> None:
    headers = running.bearer("admin")
    empty = (await running.client.get("/v1/offers", headers=headers)).json()
    assert (empty["version"], empty["offers"], empty["holdout_share"]) == (0, [], 0.05)
    for role in ("checkout", "collect"):
        assert (await put(running, TEN, role=role)).status_code == 403
        listed = await running.client.get("/v1/offers", headers=running.bearer(role))
        assert listed.status_code == 403
    written = await put(running, TEN, version=0, note="summer")
    assert (written.json()["version"], written.json()["note"]) == (1, "summer")
    assert (await put(running, version=0)).status_code == 409
    read = await running.client.get("/v1/offers", headers=headers)
    assert read.json() == written.json()
    for wrong, field in (
        (TEN | {"currency": "EUR"}, "offers[0].currency"),
        (TEN | {"condition": "cart.total >"}, "offers[0].condition"),
        (TEN | {"condition": "decision.rung == 'full'"}, "offers[0].condition"),
        (TEN | {"surprise": 1}, "offers[0].surprise"),
        (TEN | {"discount": {"kind": "percent", "percent": 0}}, "offers[0].discount.percent"),
        (TEN | {"discount": {"kind": "amount"}}, "offers[0].discount.amount"),
        (TEN | {"discount": {"kind": "gift"}}, "offers[0].discount"),
        (TEN | {"title": "10 %\noff"}, "offers[0].title"),
    ):
        answer = await put(running, wrong)
        assert answer.status_code == 422
        assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert (await running.client.get("/v1/offers", headers=headers)).json() == written.json()


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"offers": [TEN | {"discount": {"kind": "percent", "percent": True}}]}, "valid number"),
        ({"holdout_share": "0.1"}, "valid number"),
        ({"offers": [TEN | {"title": "ten\0"}]}, "'title': must not hold control characters"),
        ({"note": "a\x1b[2Jb"}, "'note': must not hold control characters"),
    ],
)
async def test_what_a_book_says_is_taken_at_its_word(
    running: Running, body: dict[str, Any], detail: str
) -> None:
    answer = await running.client.put("/v1/offers", json=body, headers=running.bearer("admin"))
    assert (answer.status_code, detail in answer.json()["detail"]) == (422, True), answer.text


@pytest.mark.parametrize("path", ["offers", "offers/check", "rules", "rules/check"])
async def test_no_name_stands_twice_in_a_document(running: Running, path: str) -> None:
    headers = running.bearer("admin") | {"content-type": "application/json"}
    kind = path.partition("/")[0]
    body = f'{{"{kind}": [], "{kind}": []}}'
    call = running.client.post if "check" in path else running.client.put
    answer = await call(f"/v1/{path}", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"] == f"{kind}: stands twice in one object."
    for wrong in ("{", "[" * 10_000):
        assert (await call(f"/v1/{path}", content=wrong, headers=headers)).status_code == 400


async def test_an_order_number_is_one_line(running: Running) -> None:
    await put(running, TEN)
    held = (await reserve(running, await offered(running))).json()
    for wrong in ("order\0", "order\n1", "\x7f"):
        answer = await redeem(running, held, transaction_id=wrong)
        assert answer.status_code == 422
        assert "control characters" in answer.json()["detail"]


async def test_another_gateway_with_the_same_key_keeps_the_promise(
    start: Start, tmp_path: Any
) -> None:
    key = "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U="
    one = await start(master_key=key)
    other = await start(master_key=key, state=tmp_path / "other")
    for running in (one, other):
        await put(running, TEN)
    decision = await offered(one)
    held = (await reserve(other, decision)).json()
    assert (await redeem(other, held)).status_code == 200


async def test_a_reservation_outlives_the_gateway(start: Start) -> None:
    first = await start()
    await put(first, TEN | {"limits": {"total": 1}})
    decision = await offered(first)
    held = (await reserve(first, decision)).json()
    await first.stop()
    second = await start()
    assert (await reserve(second, decision)).json() == held
    assert (await redeem(second, held)).status_code == 200


async def test_after_an_erasure_the_use_stays_and_leads_to_nobody(
    running: Running, tmp_path: Any
) -> None:
    await put(running, FIRST)
    shopper = {"user_id": "user-raw-7", "context": {"first_order": True}}
    decision = await offered(running, **shopper)
    held = (await reserve(running, decision, user_id="user-raw-7")).json()
    paid = (await redeem(running, held)).json()
    found = await running.post(
        "/v1/subjects/resolve", {"visitor_id": "visitor-raw-1", "user_id": "user-raw-7"}
    )
    subject_id = found.json()["subject_id"]
    assert running.gateway.holders.of(subject_id).names(["first"])["first"]
    erased = await running.client.delete(
        f"/v1/subjects/{subject_id}", headers=running.bearer("admin")
    )
    assert erased.status_code == 200
    assert running.gateway.holders.of(subject_id).names(["first"]) == {"first": ()}
    # The contract stays, and can be rolled back.
    path = f"/v1/redemptions/{paid['redemption_id']}/rollback"
    assert (await running.post(path, b"")).json()["rolled_back_at"] is not None
    await running.stop()
    files = list((tmp_path / "state").glob("coupons.sqlite*"))
    assert files
    for one in files:
        content = one.read_bytes()
        for trace in (b"user-raw-7", b"visitor-raw-1", subject_id.encode()):
            assert trace not in content


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/reservations/{}/release", 404),
        ("/v1/reservations/nonsense/release", 404),
        ("/v1/redemptions/{}/rollback", 404),
        ("/v1/redemptions/nonsense/rollback", 404),
    ],
)
async def test_what_is_not_there(running: Running, path: str, status: int) -> None:
    answer = await running.post(path.format(uuid4()), b"")
    assert answer.status_code == status
    assert answer.json()["rejection_reason"].endswith("NotFound")
    unknown = await running.post(f"/v1/reservations/{uuid4()}/redeem", payment())
    refused(unknown, "ReservationNotFound", 404)


async def test_the_same_idempotency_key_is_the_same_answer(running: Running) -> None:
    await put(running, TEN)
    decision = await offered(running)
    path, key = "/v1/offers/ten/reservations", {"Idempotency-Key": "k-1"}
    first = await running.post(path, reservation(decision), headers=key)
    again = await running.post(path, reservation(decision), headers=key)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replay"] == "true"
    other = await running.post(path, reservation(decision, user_id="u"), headers=key)
    assert other.status_code == 409


async def test_a_shopper_cannot_choose_the_time(running: Running, start: Start) -> None:
    starts = NOON + timedelta(hours=1)
    await put(running, TEN | {"schedule": {"valid_from": starts.isoformat()}})
    early = await offered(running, context={"occurred_at": (NOON + timedelta(hours=2)).isoformat()})
    assert early["rejected_offers"][0]["rejection_reason"] == "CouponStartDateInFuture"
    assert isinstance(running.clock, FixedClock)
    running.clock.at = starts
    assert len((await offered(running))["offers"]) == 1


async def test_unpriced_lines_get_no_offer(running: Running) -> None:
    await put(running, TEN)
    decision = await offered(running, cart=checkout()["cart"] | {"items": [{"item_id": "item-1"}]})
    assert decision["offers"] == []


async def test_a_lost_answer_is_given_again_after_the_tokens_time(running: Running) -> None:
    await put(running, TEN)
    late, never = await offered(running), await offered(running)
    running.clock.at += timedelta(minutes=29)
    held = await reserve(running, late)
    assert held.status_code == 200
    running.clock.at += timedelta(minutes=2)  # the token is over, the reservation is not
    assert (await reserve(running, late)).json() == held.json()
    refused(await reserve(running, never), "CouponExpired")
    paid = await redeem(running, held.json())
    assert paid.status_code == 200
    assert (await reserve(running, late)).json()["state"] == "redeemed"
    running.clock.at += timedelta(days=1)
    assert await running.gateway.ledger.used(running.clock.now()) == {"ten": Used(1, 0, 499)}


async def test_a_clock_that_goes_back_gives_nothing_twice(running: Running) -> None:
    await put(running, TEN | {"limits": {"total": 1}})
    first, second = await offered(running), await offered(running)
    held = (await reserve(running, first)).json()
    running.clock.at += timedelta(minutes=20)
    taken = (await reserve(running, second)).json()  # the first is over, and its use is free
    running.clock.at -= timedelta(minutes=19)
    refused(await redeem(running, held), "ReservationExpired")
    refused(await reserve(running, first), "CouponLimitReached")
    assert (await redeem(running, taken)).status_code == 200
    assert (await running.gateway.ledger.used(running.clock.now()))["ten"].total == 1


async def reserve_all(running: Running, *decisions: dict[str, Any]) -> list[dict[str, Any]]:
    held = []
    for decision in decisions:
        for one in decision["offers"]:
            body = {"offer_token": one["offer_token"], "visitor_id": "visitor-raw-1"}
            answer = await running.post(f"/v1/offers/{one['offer_id']}/reservations", body)
            assert answer.status_code == 200, answer.text
            held.append(answer.json())
    return held


async def test_offers_that_go_together_keep_the_floor_at_the_decision_and_at_the_till(
    running: Running,
) -> None:
    fifth = TEN | {"discount": {"kind": "percent", "percent": 20}, "group": "g"}
    both = fifth, fifth | {"offer_id": "more"}
    half = {"margin_rate": 0.5, "margin_floor": 0.25}
    await put(running, *both, **half)
    first = await offered(running)
    # 2,499 are left of 4,999, of which 999 go: with 999 more it would be a tenth.
    assert [one["offer_id"] for one in first["offers"]] == ["ten"]
    await put(running, both[1], **half)
    second = await offered(running)
    await put(running, *both, **half)
    held = await reserve_all(running, first, second)
    together = {"combined_with": [held[1]["reservation_id"]], "total": VALUE - 2 * 999}
    refused(await redeem(running, held[0], **together), "ExclusivityViolation")
    assert (await redeem(running, held[0], total=VALUE - 999)).status_code == 200
    await put(running, *both, margin_rate=0.7, margin_floor=0.25)
    assert len((await offered(running))["offers"]) == 2


async def test_a_rule_forces_nothing_that_breaks_the_floor_with_what_is_given(
    running: Running,
) -> None:
    fifth = TEN | {"discount": {"kind": "percent", "percent": 20}, "group": "g"}
    more = fifth | {"offer_id": "more", "unconditional": False}
    await put(running, fifth, more, margin_rate=0.5, margin_floor=0.25)
    rule = {"id": "force", "actions": [{"kind": "force_offer", "offer_id": "more"}]}
    headers = running.bearer("admin")
    await running.client.put("/v1/rules", json={"rules": [rule]}, headers=headers)
    assert [one["offer_id"] for one in (await offered(running))["offers"]] == ["more"]


async def test_no_floor_and_no_budget_is_reckoned_in_another_currency(running: Running) -> None:
    costs = [{"item_id": "item-1", "cost": 1_000}, {"item_id": "item-2", "cost": 1_000}]
    headers = running.bearer("admin")
    await running.client.patch("/v1/catalogue/items", json={"items": costs}, headers=headers)
    half = TEN | {"discount": {"kind": "percent", "percent": 50}}
    yen = CART | {"currency": "JPY", "items": [{"item_id": "item-1", "price": 187_500}]}
    why = [{"offer_id": "ten", "rejection_reason": "CouponRejectedByCondition"}]
    await put(running, half, margin_floor=0.2)
    assert (await offered(running, cart=yen))["rejected_offers"] == why
    chosen = half | {"unconditional": False}
    await put(running, chosen, daily_budget={"amount": 10**9})
    assert (await offered(running, cart=yen))["rejected_offers"] == why
    # Neither may a token be reserved that was given before there was a budget.
    await put(running, half)
    before = await offered(running, cart=yen)
    await put(running, chosen, daily_budget={"amount": 10**9})
    refused(await reserve(running, before), "CouponRejectedByCondition")


async def test_a_token_of_the_version_before_is_still_redeemed(running: Running) -> None:
    half = {"margin_rate": 0.5, "margin_floor": 0.25}
    signer = running.gateway.shelf.signer
    await put(running, TEN, **half)
    alone = await offered(running)
    assert signer.read(alone["offers"][0]["offer_token"]).most_in_all is None
    await put(running, TEN | {"group": "g"}, **half)
    decision = await offered(running)
    grant = signer.read(decision["offers"][0]["offer_token"])
    assert grant.most_in_all == 2_499 - 1_250
    token = signer.sign(replace(grant, most_in_all=None))
    held = (await reserve(running, decision, offer_token=token)).json()
    assert (await redeem(running, held)).status_code == 200


NEWCOMER = "shopper.orders == 0"
ELSEWHERE = "!('high_value_repeat_buyers' in segments)"


@pytest.mark.parametrize("condition", [NEWCOMER, ELSEWHERE])
async def test_a_history_that_is_not_known_is_not_one_of_no_orders(
    running: Running, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    await put(running, TEN | {"condition": condition})
    rule = {
        "id": "new",
        "condition": condition,
        "actions": [{"kind": "boost", "items": ["item-7"]}],
    }
    headers = running.bearer("admin")
    wrote = await running.client.put("/v1/rules", json={"rules": [rule]}, headers=headers)
    assert wrote.status_code == 200, wrote.text

    async def got(**changed: Any) -> tuple[int, list[str]]:
        decision = await offered(running, **changed)
        return len(decision["offers"]), decision["applied_rules"]

    assert await got() == (1, ["new"])  # known, and has bought nothing
    assert await got(visitor_id="other", consent=ALL | {"personalization": False}) == (0, [])
    assert await got(visitor_id="another", consent=None) == (0, [])

    def broken(names: Any) -> Any:
        raise OSError

    monkeypatch.setattr(running.gateway.decider, "_read_now", broken)
    decision = await offered(running)
    assert (decision["offers"], decision["applied_rules"]) == ([], [])
    assert "features" in decision["degraded"]
    metrics = (await running.client.get("/metrics", headers=headers)).text
    assert "tillwise_rules_failed_total 0.0" in metrics  # the rule itself is right


async def test_the_servers_word_of_a_first_order_counts_without_a_history(
    running: Running,
) -> None:
    await put(running, TEN | {"condition": "shopper.first_order"})
    without = ALL | {"personalization": False}
    told = await offered(running, consent=without, context={"first_order": True}, user_id="u-1")
    assert len(told["offers"]) == 1
