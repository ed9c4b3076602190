"""The demo's own endpoints: they exist in the demo only, and play the shop's server honestly."""

from pathlib import Path

import pytest

from serving.api.demo_page import DemoShopper, Shelf, mount
from tests.serving.conftest import ALL, Running, checkout


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
    mount(running.app, running.gateway, [shopper], running.keys["checkout"], page)
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
