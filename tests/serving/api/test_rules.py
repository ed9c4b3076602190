"""Rules over HTTP: written as a whole, in force for the next decision, as the dry run predicted."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.state.audit import COMMAND_LINE
from tests.serving.conftest import ALL, Running, Start, checkout

EXAMPLE = Path(__file__).parents[3] / "docs" / "rules.yaml"


def rule(rule_id: str, *actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": rule_id, "actions": list(actions)} | more


async def put(running: Running, *rules: dict[str, Any], **more: Any) -> httpx.Response:
    headers = running.bearer("admin") | more.pop("headers", {})
    return await running.client.put("/v1/rules", json={"rules": rules} | more, headers=headers)


async def get(running: Running, path: str = "", **headers: str) -> httpx.Response:
    return await running.client.get(f"/v1/rules{path}", headers=running.bearer("admin") | headers)


async def check(running: Running, **body: Any) -> httpx.Response:
    return await running.client.post("/v1/rules/check", json=body, headers=running.bearer("admin"))


async def decided(running: Running, **changed: Any) -> dict[str, Any]:
    answer = await running.decide(**changed)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def items(said: dict[str, Any]) -> list[str]:
    return [one["item_id"] for one in said["recommendations"]]


async def test_a_new_rule_counts_for_the_next_decision_as_its_dry_run_predicted(
    running: Running,
) -> None:
    before = await decided(running, payment_methods=["card", "invoice"])
    last = next(one for one in (f"item-{n}" for n in range(40, 0, -1)) if one not in items(before))
    draft = [
        rule("out", {"kind": "exclude", "items": items(before)[:1]}),
        rule("first", {"kind": "pin", "items": [last]}, condition="cart.currency == 'USD'"),
        rule("pay", {"kind": "order_payments", "first": ["invoice", "gold"]}),
        rule("not-here", {"kind": "pin", "items": ["item-1"]}, condition="cart.total > 10000000"),
    ]
    sample = {"cart": checkout()["cart"], "payment_methods": ["card", "invoice"]}
    predicted = await check(running, rules=draft, samples=[sample])
    assert predicted.status_code == 200, predicted.text
    told = predicted.json()["samples"][0]
    assert told["before"]["items"] == items(before)
    assert told["changed"]
    assert items(await decided(running, payment_methods=["card", "invoice"])) == items(before)
    written = await put(running, *draft, note="for the sale")
    assert written.status_code == 200, written.text
    after = await decided(running, payment_methods=["card", "invoice"])
    assert told["after"]["items"] == items(after)
    assert items(after)[0] == last
    assert items(before)[0] not in items(after)
    assert after["applied_rules"] == told["after"]["applied_rules"] == ["first", "out", "pay"]
    assert after["payment_method_order"] == ["invoice", "card"]
    assert after["recommendations"][0]["reasons"][0] == {
        "code": "shop_choice",
        "text": "Chosen by the shop.",
    }
    scores = [one["score"] for one in after["recommendations"]]
    assert scores == sorted(scores, reverse=True)
    assert len(items(after)) == len(items(before))


async def test_what_cannot_be_sold_is_not_shown_whatever_a_rule_says(running: Running) -> None:
    first = items(await decided(running))[0]
    await put(running, rule("r", {"kind": "pin", "items": [first]}, priority=9))
    assert items(await decided(running))[0] == first
    await running.client.patch(
        "/v1/catalogue/items",
        json={"items": [{"item_id": first, "available": False}]},
        headers=running.bearer("admin"),
    )
    said = await decided(running)
    assert first not in items(said)
    assert said["applied_rules"] == []
    told = (await check(running, rules=(await get(running)).json()["rules"])).json()
    assert f"{first}: can not be sold in this checkout, so left out" in {
        note["text"] for one in told["samples"] for note in one["notes"]
    }
    other = items(await decided(running))[0]
    await put(running, rule("r", {"kind": "pin", "items": [other]}))
    assert other not in items(await decided(running, filter={"exclude_items": [other]}))


async def test_every_version_is_kept_with_its_author_and_difference(running: Running) -> None:
    empty = (await get(running)).json()
    assert (empty["version"], empty["rules"]) == (0, [])
    pin = {"kind": "pin", "items": ["item-1"]}
    await put(running, rule("a", pin), rule("b", pin), version=0, note="first")
    second = await put(running, rule("a", pin, priority=3), version=1)
    assert (second.json()["version"], second.json()["rules"][0]["priority"]) == (2, 3)
    late = await put(running, rule("c", pin), version=1)
    assert (late.status_code, late.json()["detail"][:18]) == (409, "version: 2 is the ")
    history = (await get(running, "/history")).json()["versions"]
    assert [(one["version"], one["note"]) for one in history] == [(2, ""), (1, "first")]
    assert all(one["written_by"] for one in history)
    found = (await get(running, "/diff?before=1")).json()
    assert found["after"] == 2
    assert [one["path"] for one in found["changes"]] == ["rules[a].priority", "rules[b]"]
    assert (await get(running, "?version=1")).json()["note"] == "first"
    for path in ("?version=9", "/diff?before=9", "/diff?before=1&after=9"):
        assert (await get(running, path)).status_code == 404


async def test_yaml_goes_out_and_comes_back_the_same(running: Running) -> None:
    text = EXAMPLE.read_text()
    headers = running.bearer("admin") | {"content-type": "application/yaml"}
    written = await running.client.put("/v1/rules", content=text, headers=headers)
    assert written.status_code == 200, written.text
    out = await get(running, accept="application/yaml")
    assert out.headers["content-type"].startswith("application/yaml")
    again = await running.client.put("/v1/rules", content=out.text, headers=headers)
    assert again.json()["rules"] == written.json()["rules"]
    assert (await get(running, "/diff?before=1")).json()["changes"] == []


async def test_what_the_shop_does_not_have_is_saved_with_a_warning(running: Running) -> None:
    catalogue = running.gateway.live.current.catalogue
    aisle = next(path[0] for path in catalogue.category_path if path)
    wrong = rule(
        "wrong",
        {"kind": "force_offer", "offer_id": "nowhere"},
        {"kind": "replace_offer", "offer_id": "gone", "by": "elsewhere"},
        {"kind": "block_offer", "offer_ids": ["off"]},
        {"kind": "pin", "items": ["item-1", "item-none"]},
        {"kind": "exclude", "categories": [aisle, "Liquer"], "items": ["item-no"]},
        {"kind": "boost", "categories": ["Bakrey"]},
        condition=f"('vips' in segments || 'repeat_buyers' in segments) && {aisle!r} in "
        "cart.categories && !('Beef' in decision.categories) && 'x' in cart.quantities",
    )
    saved = await put(running, wrong)
    assert saved.status_code == 200
    assert saved.json()["warnings"] == [
        f"wrong: {said}"
        for said in (
            "there is no offer nowhere",
            "there is no offer gone",
            "there is no offer elsewhere",
            "there is no offer off",
            "the catalogue has no item item-none",
            "the catalogue has no item item-no",
            "the catalogue has no category Liquer",
            "the catalogue has no category Bakrey",
            "there is no segment vips",
            "the catalogue has no category Beef",
            "the catalogue has no item x",
        )
    ]
    assert (await check(running, rules=[wrong])).json()["warnings"] == saved.json()["warnings"]
    assert (await check(running, rules=[])).json()["warnings"] == []
    assert "warnings" not in (await get(running)).json()
    right = await put(running, rule("right", {"kind": "pin", "items": ["item-1"]}))
    assert "warnings" not in right.json()


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ("rules: [", 400, "The body is not plain YAML: line 1, column 9"),
        ("a: &x [1]\nb: *x", 400, "anchors"),
        ("!!python/object/apply:os.system ['true']", 400, "could not determine a constructor"),
        ("rules:\n- id: a", 422, "rules[0].actions: Field required"),
        (
            "rules: [{id: a, actions: [{kind: pinn, items: [a]}]}]",
            422,
            "rules[0].actions[0]: its kind is not one of 'pin', 'exclude', 'boost', 'force_offer'",
        ),
        ("rules: [{id: a, actions: [{items: [a]}]}]", 422, "[0]: its kind is not said"),
        (
            "rules: [{id: a, schedule: {countries: [DE, NO]}, actions: [{kind: block_offer}]}]",
            422,
            "rules[0].schedule.countries[1]: must be a text, in quotes if need be",
        ),
        ("[1]", 422, "body"),
        ("rules: []\nnote: a\nrules: []", 400, "line 3, column 1: rules stands twice"),
    ],
)
async def test_bad_yaml_is_one_clear_problem(
    running: Running, body: str, status: int, detail: str
) -> None:
    headers = running.bearer("admin") | {"content-type": "application/yaml"}
    answer = await running.client.put("/v1/rules", content=body, headers=headers)
    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True), answer.text
    assert "pinn" not in answer.text  # no value of the body is repeated


async def test_hostile_and_misspelt_conditions_are_refused_with_their_place(
    running: Running,
) -> None:
    pin = {"kind": "pin", "items": ["item-1"]}
    refused = await put(running, rule("a", pin), rule("b", pin, condition="cart.totl > 1"))
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "field": "rules[1].condition",
            "message": "character 5: undeclared reference to 'cart.totl'",
        }
    ]
    slow = "cart.items.map(i, i + i + i + i).exists(j, j == 'a')"
    assert "too long" in (await put(running, rule("b", pin, condition=slow))).json()["detail"]
    assert (await check(running, rules=[rule("b", pin, condition=slow)])).status_code == 422
    assert (await get(running)).json()["version"] == 0


async def test_who_may_and_what_repeats(running: Running) -> None:
    for role in ("checkout", "collect"):
        for method, path in (("GET", ""), ("PUT", ""), ("POST", "/check"), ("GET", "/history")):
            answer = await running.client.request(
                method, f"/v1/rules{path}", json={"rules": []}, headers=running.bearer(role)
            )
            assert answer.status_code == 403
    key = {"Idempotency-Key": "once"}
    pin = rule("a", {"kind": "pin", "items": ["item-1"]})
    first = await put(running, pin, headers=key)
    assert (await put(running, pin, headers=key)).json() == first.json()
    assert (await get(running)).json()["version"] == 1
    assert (await put(running, headers=key)).status_code == 409


async def test_a_sample_may_say_who_the_shopper_is(running: Running) -> None:
    vip = rule(
        "vip",
        {"kind": "pin", "items": ["item-7"]},
        condition="'vips' in segments || shopper.orders > 3",
    )
    samples = [{}, {"assume": {"segments": ["vips"]}}, {"name": "old", "assume": {"orders": 4}}]
    told = (await check(running, rules=[vip], samples=samples)).json()
    assert [one["after"]["applied_rules"] for one in told["samples"]] == [[], ["vip"], ["vip"]]
    assert [one["name"] for one in told["samples"]] == ["sample 1", "sample 2", "old"]
    assert told["changed"] == 2


@pytest.mark.parametrize("kind", ["rules", "offers"])
@pytest.mark.parametrize("name", ["visitor_id", "session_id"])
async def test_a_sample_of_nobody_is_refused(running: Running, kind: str, name: str) -> None:
    answer = await running.client.post(
        f"/v1/{kind}/check", json={"samples": [{name: ""}]}, headers=running.bearer("admin")
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"samples[0].{name}"


async def test_what_is_wrong_within_a_list_is_told_once(running: Running) -> None:
    wrong = rule("r", {"kind": "pin", "items": ["item-1"], "position": 6})
    told = (await put(running, wrong)).json()["errors"]
    assert [one["field"] for one in told] == ["rules[0].actions[0].position"]
    told = (await put(running, rule("r"))).json()["errors"]
    assert told == [{"field": "rules[0].actions", "message": "at least 1 item"}]


async def test_a_title_is_one_line(running: Running) -> None:
    pin = {"kind": "pin", "items": ["item-1"]}
    told = await put(running, rule("a", pin), rule("b", pin, title="first\nsecond"))
    message = "must be one line, without control characters"
    assert told.json()["errors"] == [{"field": "rules[1].title", "message": message}]
    assert told.json()["detail"] == f"rules[1].title (of b): {message}"


async def test_a_failing_condition_is_told_and_harms_nothing(running: Running) -> None:
    bad = rule(
        "bad", {"kind": "exclude", "items": ["item-1"]}, condition="cart.quantities['q'] > 1"
    )
    told = (await check(running, rules=[bad])).json()
    assert all(one["failed"] == ["bad"] for one in told["samples"])
    await put(running, bad)
    said = await decided(running)
    assert (said["applied_rules"], said["rung"]) == ([], "full")
    metrics = (await running.client.get("/metrics", headers=running.bearer("admin"))).text
    assert "tillwise_rules_failed_total 1.0" in metrics


async def test_rules_outlive_a_restart_and_reach_other_gateways(start: Start) -> None:
    running = await start()
    await put(running, rule("a", {"kind": "pin", "items": ["item-3"]}))
    assert items(await decided(running))[0] == "item-3"
    # As another gateway would write it: this one is told within a second.
    await running.gateway.control.put_document(
        "rules",
        '{"rules": [{"id": "b", "actions": [{"kind": "pin", "items": ["item-5"]}]}]}',
        1,
        COMMAND_LINE,
    )
    for _ in range(40):
        if items(await decided(running))[0] == "item-5":
            break
        await asyncio.sleep(0.05)
    assert items(await decided(running))[0] == "item-5"
    await running.stop()
    again = await start()
    assert items(await decided(again))[0] == "item-5"


async def test_the_decisions_event_says_which_rules_were_followed(running: Running) -> None:
    await put(running, rule("a", {"kind": "pin", "items": ["item-3", "none"]}))
    said = await decided(running, consent={"analytics": True})
    await running.quiet()
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    assert event.decision is not None
    assert event.decision["rules"] == {
        "version": 1,
        "applied": ["a"],
        "failed": [],
        "notes": [["a", "none: can not be sold in this checkout, so left out"]],
    }
    shown = event.decision["shown"]
    assert [one["item_id"] for one in shown] == items(said)
    assert [one.get("rule") for one in shown] == ["a", *[None] * (len(shown) - 1)]


CART = {
    "cart_id": "cart-1",
    "currency": "USD",
    "items": [{"item_id": "item-1", "quantity": 2, "price": 1_500}],
}
TEN = {
    "offer_id": "ten",
    "title": "10 % off",
    "discount": {"kind": "percent", "percent": 10},
    "currency": "USD",
    "unconditional": True,
}
LOYAL = TEN | {"offer_id": "loyal-customers", "unconditional": False}


async def offers(running: Running, *book: dict[str, Any], holdout: float = 0.0) -> None:
    body = {"offers": list(book), "holdout_share": holdout}
    answer = await running.client.put("/v1/offers", json=body, headers=running.bearer("admin"))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("holdout", [0.0, 1.0])
async def test_a_rule_forces_what_no_model_would_give_also_on_who_is_held_out(
    running: Running, holdout: float
) -> None:
    await offers(running, TEN, LOYAL, holdout=holdout)
    force = {"kind": "force_offer", "offer_id": "loyal-customers"}
    vip = rule("vip", force, condition="cart.total >= 3000")
    before = await decided(running, cart=CART, consent=ALL)
    assert [one["offer_id"] for one in before["offers"]] == ["ten"] * (holdout == 0)
    sample = {"cart": CART, "consent": ALL, "visitor_id": "visitor-raw-1"}
    predicted = (await check(running, rules=[vip], samples=[sample])).json()["samples"][0]
    assert predicted["before"]["offers"] == [one["offer_id"] for one in before["offers"]]
    await put(running, vip)
    said = await decided(running, cart=CART, consent=ALL)
    assert [one["offer_id"] for one in said["offers"]] == ["loyal-customers"]
    assert predicted["after"]["offers"] == ["loyal-customers"]
    assert said["offers"][0]["reasons"][0]["code"] == "shop_choice"
    assert said["applied_rules"] == ["vip"]
    await running.quiet()
    (event,) = [one for one in running.logged() if str(one.event_id) == said["decision_id"]]
    assert event.decision is not None
    arms = {arm["offer_id"]: arm for arm in event.decision["offers"]["arms"]}
    assert arms["loyal-customers"]["propensity"] == 1.0
    assert arms["ten"]["propensity"] == 0.0
    assert event.decision["offers"]["no_offer_propensity"] == 0.0
    assert event.decision["offers"]["rules"] == {"loyal-customers": "vip"}
    # The token is as good as any other.
    held = await running.post(
        "/v1/offers/loyal-customers/reservations",
        {"offer_token": said["offers"][0]["offer_token"], "visitor_id": "visitor-raw-1"},
    )
    assert held.status_code in (200, 201), held.text
    assert not (await decided(running, cart=CART | {"items": []}, consent=ALL))["offers"]


async def test_a_rule_blocks_and_replaces_offers(running: Running) -> None:
    await offers(running, TEN, LOYAL)
    swap = {"kind": "replace_offer", "offer_id": "ten", "by": "loyal-customers"}
    await put(running, rule("swap", swap))
    said = await decided(running, cart=CART, consent=ALL)
    assert [one["offer_id"] for one in said["offers"]] == ["loyal-customers"]
    await put(running, rule("swap", swap), rule("none", {"kind": "block_offer"}, priority=1))
    said = await decided(running, cart=CART, consent=ALL)
    assert (said["offers"], said["applied_rules"]) == ([], ["none"])


async def test_the_example_gives_high_value_customers_their_discount(running: Running) -> None:
    await offers(running, LOYAL | {"offer_id": "regulars"})
    headers = running.bearer("admin") | {"content-type": "application/yaml"}
    path = "/v1/rules/check"
    text = EXAMPLE.read_text() + (
        "\nsamples:\n- {cart: {cart_id: c, currency: USD, items: [{item_id: item-1, price: 900}]},"
        " consent: {offers: true}, assume: {segments: [high_value_repeat_buyers]}}\n"
        "- {cart: {cart_id: c, currency: USD, items: [{item_id: item-1, price: 900}]},"
        " consent: {offers: true}}\n"
    )
    told = (await running.client.post(path, content=text, headers=headers)).json()
    assert [one["after"]["offers"] for one in told["samples"]] == [["regulars"], []]


@pytest.mark.parametrize(
    "path", ["/v1/rules?version=x", "/v1/rules/history?limit=x", "/v1/rules/diff?before=x"]
)
async def test_a_stranger_is_told_nothing_of_what_a_query_should_be(
    running: Running, path: str
) -> None:
    assert (await running.client.get(path)).status_code == 401
    assert (await running.client.get(path, headers=running.bearer("collect"))).status_code == 403
    assert (await running.client.get(path, headers=running.bearer("admin"))).status_code == 422
