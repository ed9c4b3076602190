"""The demo's own endpoints: they exist in the demo only, and play the shop's server honestly."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from serving.api.demo_page import STRANGER, DemoShopper, Shelf, mount
from serving.api.demo_shop import SOURCE, WORDING_VERSION, ShopKeys
from serving.state.receipts import ReceiptSigner, verify
from tests.serving.api.test_subjects_and_consent import resolve
from tests.serving.conftest import ALL, Running, checkout, event


@pytest.fixture
async def demo(running: Running, tmp_path: Path) -> Running:
    """A gateway with the page mounted."""
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>Checkout</title>")
    (page / "page.js").write_text("export {};")
    (tmp_path / "secret.txt").write_text("not for visitors")
    shelf = Shelf(running.gateway.live.current)
    items = tuple(item for n in range(4) if (item := shelf.item(f"item-{n}")) is not None)
    shopper = DemoShopper(
        visitor_id="household-1",
        label="Household 1",
        session_id="s",
        consent=ALL,
        cart=items[:2],
        bought_too=items[2:],
    )
    keys = ShopKeys(running.keys["checkout"], running.keys["admin"])
    mount(running.app, running.gateway, [shopper], keys, page)
    return running


async def test_there_is_no_demo_in_a_plain_gateway(running: Running) -> None:
    for path in ("/demo", "/demo/", "/demo/api/shoppers"):
        assert (await running.client.get(path)).status_code == 404


async def test_the_page_and_its_files(demo: Running) -> None:
    moved = await demo.client.get("/demo")
    assert moved.headers["location"] == "/demo/"
    page = await demo.client.get("/demo/")
    assert "Checkout" in page.text
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    script = await demo.client.get("/demo/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    for path in ("/demo/none.js", "/demo/../secret.txt", "/demo/%2e%2e/secret.txt", "/demo//etc"):
        answer = await demo.client.get(path)
        assert answer.status_code == 404, path
        assert "not for visitors" not in answer.text


async def test_shoppers_come_with_their_carts(demo: Running) -> None:
    (shopper,) = (await demo.client.get("/demo/api/shoppers")).json()["shoppers"]
    assert [item["item_id"] for item in shopper["cart"]] == ["item-0", "item-1"]
    assert shopper["cart"][0]["title"] == "Item number 0"
    assert shopper["cart"][0]["price"] == 100


async def test_items_are_found_by_words(demo: Running) -> None:
    found = (await demo.client.get("/demo/api/items", params={"q": "ITEM num"})).json()["items"]
    assert len(found) == 20
    exact = (await demo.client.get("/demo/api/items", params={"q": "number 42"})).json()["items"]
    assert [item["item_id"] for item in exact] == ["item-42"]
    none = (await demo.client.get("/demo/api/items", params={"q": "caviar"})).json()["items"]
    assert none == []
    named = await demo.client.get("/demo/api/items", params={"ids": "item-7,nothing,item-12"})
    assert [(item["item_id"], item["price"]) for item in named.json()["items"]] == [
        ("item-7", 107),
        ("item-12", None),
    ]


async def test_a_decision_goes_over_the_real_route(demo: Running) -> None:
    answer = await demo.post("/demo/api/decide", checkout(consent=ALL), None)
    assert answer.status_code == 200
    assert answer.json()["rung"] == "full"
    await demo.quiet()
    assert [str(event.event_id) for event in demo.logged()] == [answer.json()["decision_id"]]
    metrics = (await demo.client.get("/metrics")).text
    assert 'route="/v1/checkout/decide",status="200"' in metrics
    private = {"Sec-GPC": "1"}
    await demo.post("/demo/api/decide", checkout(consent=ALL), None, headers=private)
    await demo.quiet()
    assert len(demo.logged()) == 1


async def test_what_the_real_route_refuses_is_refused(demo: Running) -> None:
    answer = await demo.post("/demo/api/decide", checkout(nonsense=1), None)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "nonsense" in answer.json()["detail"]


async def test_the_demo_is_not_part_of_the_documented_api(demo: Running) -> None:
    described = (await demo.client.get("/openapi.json")).json()
    assert not any(path.startswith("/demo") for path in described["paths"])


VISITOR = "household-1"


async def ask(demo: Running, path: str, status: int = 200, **body: Any) -> Any:
    answer = await demo.post(f"/demo/api/{path}", {"visitor_id": VISITOR} | body, None)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_the_shelves_hold_the_catalogue_by_aisle(demo: Running) -> None:
    aisles = (await demo.client.get("/demo/api/aisles")).json()["aisles"]
    assert len(aisles) == 12
    assert sum(one["num_items"] for one in aisles) == 60
    first = aisles[0]  # that of the most popular item
    assert (first["department"], first["aisle"]) == ("GROCERY", "GROCERY AISLE 0")
    asked = {"department": "GROCERY", "aisle": "GROCERY AISLE 0"}
    shelf = (await demo.client.get("/demo/api/items", params=asked)).json()
    assert [item["item_id"] for item in shelf["items"]] == [
        *("item-0", "item-12", "item-24", "item-36", "item-48")
    ]
    assert shelf["more"] == 0
    rest = (await demo.client.get("/demo/api/items", params=asked | {"from": "3"})).json()
    assert [item["item_id"] for item in rest["items"]] == ["item-36", "item-48"]
    for wrong in ({"aisle": "NO SUCH"}, asked | {"from": "99"}):
        nothing = await demo.client.get("/demo/api/items", params=wrong)
        assert nothing.json() == {"items": [], "more": 0}
    odd = await demo.client.get("/demo/api/items", params=asked | {"from": "-1"})
    assert len(odd.json()["items"]) == 5


async def test_what_was_said_and_done_is_told_until_it_is_erased(demo: Running) -> None:
    assert await ask(demo, "standing") == {"consent": None, "segments": None}
    assert await ask(demo, "consent", agreed=False) is None  # of a no alone nothing is kept
    assert await ask(demo, "standing") == {"consent": None, "segments": None}
    said = await ask(demo, "consent", agreed=True)
    assert said["purposes"] == {"personalization": True, "analytics": True, "offers": False}
    assert (said["source"], said["wording_version"]) == (SOURCE, WORDING_VERSION)
    for item in ("item-0", "item-12", "item-24"):
        seen = event(visitor_id=VISITOR, items=[{"item_id": item, "quantity": 1}])
        assert (await demo.post("/v1/events", {"events": [seen]})).status_code == 202
    told = (await ask(demo, "standing"))["segments"]
    assert "browsing_explorers" in {one["name"] for one in told["segments"]}
    assert (await ask(demo, "standing", gpc=True))["segments"]["segments"] == []
    await ask(demo, "consent", agreed=False)
    assert (await ask(demo, "standing"))["segments"]["segments"] == []
    (shopper,) = (await demo.client.get("/demo/api/shoppers")).json()["shoppers"]
    assert shopper["consent"] == dict.fromkeys(("personalization", "analytics", "offers"), False)
    signed = (await ask(demo, "erase"))["signed"]
    signer = ReceiptSigner(demo.gateway.control.service_key("receipt"))
    assert verify(signed, signer.public_key)["events_removed"] == 3
    # Who was erased is nobody that this page could speak for.
    await ask(demo, "standing", 403)
    assert (await demo.client.get("/demo/api/shoppers")).json()["shoppers"] == []


async def test_a_page_speaks_for_its_own_shoppers_only(demo: Running) -> None:
    other = await resolve(demo, "household-2")
    for path, more in (("standing", {}), ("consent", {"agreed": True}), ("erase", {})):
        told = await ask(demo, path, 403, visitor_id="household-2", **more)
        assert "household-2" not in str(told)
        await ask(demo, path, 422, nonsense=1, **more)
    assert await resolve(demo, "household-2", create=False) == other
    await ask(demo, "erase", 404, visitor_id=str(uuid4()))


async def test_whoever_is_new_is_so_every_time(running: Running) -> None:
    new = DemoShopper(
        visitor_id=STRANGER, label="New", session_id="s", consent={}, cart=(), bought_too=()
    )
    keys = ShopKeys(running.keys["checkout"], running.keys["admin"])
    mount(running.app, running.gateway, [new], keys, None)
    met = [(await running.client.get("/demo/api/shoppers")).json()["shoppers"][0] for _ in "12"]
    assert len({one["visitor_id"] for one in met}) == 2
    assert len({one["session_id"] for one in met}) == 2
    said = await ask(running, "consent", visitor_id=met[0]["visitor_id"], agreed=True)
    assert said["purposes"]["personalization"] is True


async def test_rules_are_read_tried_and_saved_with_a_key_that_stays_here(demo: Running) -> None:
    written, rule = (
        "/demo/api/written/rules",
        "- {id: r, actions: [{kind: order_payments, first: [invoice]}]}",
    )
    assert (await demo.client.get(written)).json()["text"] == ""
    tried = (
        await demo.client.post("/demo/api/dry-run/rules", json={"text": f"rules:\n{rule}"})
    ).json()
    (sample,) = tried["samples"]
    assert sample["name"] == "Household 1"
    assert sample["before"]["payment_method_order"][0] != "invoice"
    assert sample["after"]["payment_method_order"][0] == "invoice"
    draft = {"text": f"rules:\n{rule}", "version": 0, "note": "why"}
    saved = await demo.client.put(written, json=draft)
    assert saved.json()["version"] == 1
    held = (await demo.client.get(written)).json()
    assert "first:" in held["text"]
    assert held["note"] == "why"
    assert (await demo.client.put(written, json=draft)).status_code == 409
    again = await demo.client.put(written, json={"text": held["text"], "version": 1})
    assert again.json()["rules"] == held["rules"]


@pytest.mark.parametrize(
    ("text", "status"),
    [("rules: [", 400), ("- 1", 400), ("rules: .nan", 400), ("rules: 7", 422), ("offers: []", 422)],
)
async def test_text_that_is_no_rules_is_told_and_writes_nothing(
    text: str, status: int, demo: Running
) -> None:
    written = "/demo/api/written/rules"
    told = await demo.client.put(written, json={"text": text, "version": 0})
    assert told.status_code == status, told.text
    assert told.json()["detail"]
    assert (await demo.client.get(written)).json()["version"] == 0
    assert (await demo.client.get("/demo/api/written/keys")).status_code in {404, 422}


async def test_offers_are_tried_before_they_are_saved(demo: Running) -> None:
    text = (
        "offers:\n- {offer_id: ten, title: Ten, currency: USD, unconditional: true,"
        " discount: {kind: percent, percent: 10}}\nholdout_share: 0\n"
    )
    tried = (await demo.client.post("/demo/api/dry-run/offers", json={"text": text})).json()
    (sample,) = tried["samples"]
    assert sample["before"]["offers"] == []
    assert [one["offer_id"] for one in sample["after"]["offers"]] == ["ten"]
    assert (await demo.client.get("/demo/api/written/offers")).json()["version"] == 0


CART = {
    "cart_id": "c",
    "currency": "USD",
    "items": [{"item_id": "item-1", "quantity": 2, "price": 1_000}],
}


async def _offered(demo: Running, *offers: dict[str, Any]) -> list[dict[str, Any]]:
    usual = {"title": "T", "currency": "USD", "unconditional": True, "group": "g"}
    book = {"offers": [usual | one for one in offers], "holdout_share": 0.0}
    headers = demo.bearer("admin")
    assert (await demo.client.put("/v1/offers", json=book, headers=headers)).status_code == 200
    asked = checkout(
        visitor_id=VISITOR, cart=CART, consent=ALL, shipping_options=[{"id": "slow", "price": 500}]
    )
    decision = (await demo.post("/demo/api/decide", asked, None)).json()
    assert len(decision["offers"]) == len(offers)
    return [{name: one[name] for name in ("offer_id", "offer_token")} for one in decision["offers"]]


TEN = {"offer_id": "ten", "discount": {"kind": "percent", "percent": 10}, "limits": {"total": 1}}
FREE = {"offer_id": "free", "discount": {"kind": "free_shipping"}}


async def test_paying_redeems_what_was_offered_once(demo: Running) -> None:
    offers = await _offered(demo, TEN, FREE)
    order: dict[str, Any] = {"order_id": "order-0001", "cart": CART, "total": 1_800}
    order |= {"shipping": {"id": "slow", "price": 500}, "offers": offers}
    paid = await ask(demo, "pay", **order)
    assert (paid["total"], paid["transaction_id"]) == (1_800, "demo-order-0001")
    assert sorted(one["amount"] for one in paid["discounts"]) == [200, 500]
    assert await ask(demo, "pay", **order) == paid  # the answer was lost
    used = await demo.gateway.ledger.used(demo.clock.now())
    assert {name: one.total for name, one in used.items()} == {"ten": 1, "free": 1}
    again = await demo.post("/demo/api/pay", {"visitor_id": VISITOR} | order | {"total": 1}, None)
    assert again.status_code == 409
    assert (await demo.gateway.ledger.used(demo.clock.now()))["ten"].total == 1


async def test_what_can_not_be_redeemed_holds_nothing(demo: Running) -> None:
    offers = await _offered(demo, TEN, FREE)
    order = {"visitor_id": VISITOR, "order_id": "order-0001", "cart": CART, "offers": offers}
    for wrong in (
        {"total": 1_700},
        {"total": 1_800, "cart": CART | {"items": [{"item_id": "item-2", "price": 2_000}]}},
        {"total": 1_800, "offers": [offers[0], offers[1] | {"offer_token": "made-up"}]},
    ):
        said = order | {"shipping": {"id": "slow", "price": 500}} | wrong
        answer = await demo.post("/demo/api/pay", said, None)
        assert answer.status_code in (409, 422), answer.text
        used = await demo.gateway.ledger.used(demo.clock.now())
        assert all(one.total == 0 for one in used.values()), wrong
    stranger = order | {"visitor_id": "somebody", "total": 1_800}
    assert (await demo.post("/demo/api/pay", stranger, None)).status_code == 403
