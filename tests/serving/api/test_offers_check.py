"""A dry run of offers: what a draft would come to, by the code that decides, leaving nothing."""

from typing import Any

from tests.serving.api.test_offers import CART, TEN, offered, put
from tests.serving.conftest import ALL, Running

FIVE = TEN | {"offer_id": "five", "discount": {"kind": "amount", "amount": 500}}
SAMPLE = {"name": "usual", "cart": CART, "consent": ALL}


async def tried(running: Running, *offers: Any, **more: Any) -> Any:
    body = {"offers": list(offers), "holdout_share": 0.0, "samples": [SAMPLE]} | more
    answer = await running.post("/v1/offers/check", body, role="admin")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_it_says_what_the_next_decision_does(running: Running) -> None:
    await put(running, TEN)
    draft = FIVE | {"condition": "cart.total >= 4000"}
    told = await tried(running, draft, TEN | {"min_value": 90_000})
    assert (told["version"], told["changed"]) == (1, 1)
    (sample,) = told["samples"]
    assert sample["name"] == "usual"
    assert sample["before"]["offers"] == [{"offer_id": "ten", "amount": 499}]
    assert sample["before"]["chances"] == {"ten": 1.0}
    assert sample["after"]["offers"] == [{"offer_id": "five", "amount": 500}]
    assert sample["after"]["rejected_offers"] == [
        {"offer_id": "ten", "rejection_reason": "CouponRejectedByCondition"}
    ]
    assert [one["offer_id"] for one in (await offered(running))["offers"]] == ["ten"]
    await put(running, draft, TEN | {"min_value": 90_000})
    decision = await offered(running)
    assert [one["offer_id"] for one in decision["offers"]] == ["five"]
    assert decision["rejected_offers"] == sample["after"]["rejected_offers"]


async def test_a_condition_that_names_what_is_not_there_is_told(running: Running) -> None:
    draft = TEN | {"condition": "'vips' in segments || 'repeat_buyers' in segments"}
    warning = "ten: there is no segment vips"
    assert (await tried(running, draft))["warnings"] == [warning]
    assert (await put(running, draft)).json()["warnings"] == [warning]
    assert (await tried(running, TEN))["warnings"] == []
    assert "warnings" not in (await put(running, TEN)).json()


async def test_it_leaves_nothing_behind(running: Running) -> None:
    await put(running, TEN)
    await tried(
        running,
        TEN | {"unconditional": False},
        daily_budget={"amount": 1_000},
        frequency_cap={"times": 1, "days": 1},
        explore_share=1.0,
        margin_rate=0.5,
    )
    await running.quiet()
    assert running.logged() == []
    assert await running.gateway.ledger.used(running.clock.now()) == {}
    assert running.gateway.shelf.version == 1
    await running.gateway.shelf.pacing.flush(running.clock.now())
    assert await running.gateway.ledger.pacing.slots(0) == []
    metrics = (await running.client.get("/metrics", headers=running.bearer("admin"))).text
    assert 'tillwise_offers_withheld_total{why="unknown"} 0.0' in metrics


async def test_a_budget_in_a_draft_is_thought_to_be_whole(running: Running) -> None:
    picked = TEN | {"unconditional": False}
    await offered(running)  # somebody who is known and agreed
    for amount, chance in ((10_000, 0.5), (400, None)):
        told = await tried(
            running,
            picked,
            daily_budget={"amount": amount},
            explore_share=1.0,
            margin_rate=0.5,
            samples=[SAMPLE | {"visitor_id": "visitor-raw-1"}],
        )
        after = told["samples"][0]["after"]
        assert after["chances"].get("ten") == chance
        assert (after["rejected_offers"] != []) == (chance is None)
        assert told["samples"][0]["degraded"] == []


async def test_conditions_take_for_so_what_is_assumed(running: Running) -> None:
    draft = TEN | {"condition": "'vip' in segments"}
    asked = [SAMPLE | {"assume": {"segments": names}} for names in (["vip"], [])]
    told = await tried(running, draft, samples=asked)
    assert [len(one["after"]["offers"]) for one in told["samples"]] == [1, 0]


async def test_who_is_held_out_is_told_so(running: Running) -> None:
    told = await tried(running, TEN, holdout_share=1.0)
    after = told["samples"][0]["after"]
    assert (after["offers"], after["held_out"], after["chances"]) == ([], True, {"ten": 0.0})


async def test_bad_drafts_are_refused_as_when_they_are_written(running: Running) -> None:
    for draft, wrong in (
        (TEN | {"currency": "EUR"}, "offers[0].currency"),
        (TEN | {"condition": "nobody.knows > 1"}, "offers[0].condition"),
    ):
        answer = await running.post("/v1/offers/check", {"offers": [draft]}, role="admin")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == wrong
    assert (await running.post("/v1/offers/check", {"offers": []})).status_code == 403


async def test_without_samples_carts_are_made_up_and_yaml_will_do(running: Running) -> None:
    text = b"offers:\n- {offer_id: ten, title: Ten, currency: USD, unconditional: true,\n"
    text += b"   discount: {kind: percent, percent: 10}}\n"
    headers = {"content-type": "application/yaml"}
    answer = await running.post("/v1/offers/check", text, role="admin", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["samples"][0]["name"] == "empty cart"
    assert len(answer.json()["samples"]) == 5
