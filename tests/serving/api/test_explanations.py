"""`GET /v1/decisions/{id}/explanation`, from the record that the decision left."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contract.attribution import GROUPS
from serving.decision.reason_texts import read_texts
from tests.serving.conftest import ALL, Running, Start, checkout, purchase

GERMAN = Path(__file__).parents[3] / "docs" / "texts.de.yaml"


async def explained(
    running: Running, decision_id: str, role: Any = "checkout", **query: str
) -> httpx.Response:
    return await running.client.get(
        f"/v1/decisions/{decision_id}/explanation", params=query, headers=running.bearer(role)
    )


async def decided(running: Running, **changed: Any) -> dict[str, Any]:
    answer = await running.post("/v1/checkout/decide", checkout(consent=ALL, **changed))
    assert answer.status_code == 200
    await running.quiet()
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
async def running(start: Start) -> Running:
    running = await start()
    bought = purchase("item-5", "item-8", "item-21")
    assert (await running.post("/v1/events", {"events": [bought]})).status_code == 202
    return running


async def test_it_says_what_was_answered_and_to_admins_what_each_score_owes(
    running: Running,
) -> None:
    decision = await decided(running)
    assert decision["rung"] == "full"
    told = (await explained(running, decision["decision_id"], "admin")).json()
    assert [one["item_id"] for one in told["recommendations"]] == [
        one["item_id"] for one in decision["recommendations"]
    ]
    for one, shown in zip(told["recommendations"], decision["recommendations"], strict=True):
        assert [why["code"] for why in one["reasons"]] == [w["code"] for w in shown["reasons"]]
        assert set(one["attributions"]) == set(GROUPS)
        assert one["title"] == f"Item number {one['item_id'].removeprefix('item-')}"
    assert any(any(one["attributions"].values()) for one in told["recommendations"])
    assert told["release_id"] == decision["release_id"]


async def test_the_first_reason_is_what_moved_the_score_most(running: Running) -> None:
    decision = await decided(running)
    told = (await explained(running, decision["decision_id"], "admin")).json()
    for one in told["recommendations"]:
        codes = [why["code"] for why in one["reasons"]]
        worth = [one["attributions"][code] for code in codes]
        assert worth == sorted(worth, reverse=True)


async def test_sentences_are_in_the_shops_language(start: Start) -> None:
    running, texts = await start(texts=GERMAN), read_texts(GERMAN)
    goes_with = texts.goes_with("Item number 1", False).text
    decision = await decided(running, payment_methods=["card", "invoice"])
    plain = {one.text for one in (*texts.by_code.values(), texts.of_cart)}
    said = {why["text"] for one in decision["recommendations"] for why in one["reasons"]}
    assert said
    assert said <= plain | {goes_with}
    told = (await explained(running, decision["decision_id"])).json()
    assert told["payment"]["reason"]["text"] == texts.as_sent
    assert {why["text"] for one in told["recommendations"] for why in one["reasons"]} <= plain


async def test_others_than_admins_see_sentences_and_no_figures(running: Running) -> None:
    decision = await decided(running)
    told = (await explained(running, decision["decision_id"])).json()
    assert all(one["attributions"] is None for one in told["recommendations"])
    assert all(why["text"] for one in told["recommendations"] for why in one["reasons"])
    assert (await explained(running, decision["decision_id"], "collect")).status_code == 403
    assert (await explained(running, decision["decision_id"], None)).status_code == 401


async def test_without_consent_today_nothing_personal_is_said(running: Running) -> None:
    decision = await decided(running)
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    subject_id = str(event.subject_id)
    told = (await explained(running, decision["decision_id"])).json()
    said = {why["code"] for one in told["recommendations"] for why in one["reasons"]}
    assert said & {"bought_before", "your_taste"}
    nothing = {"personalization": False, "analytics": True, "offers": False}
    answer = await running.client.put(
        f"/v1/consent/{subject_id}",
        json={"purposes": nothing, "source": "test", "wording_version": "1"},
        headers=running.bearer() | {"Idempotency-Key": str(uuid4())},
    )
    assert answer.status_code == 200, answer.text
    told = (await explained(running, decision["decision_id"])).json()
    said = {why["code"] for one in told["recommendations"] for why in one["reasons"]}
    assert not said & {"bought_before", "your_taste"}
    assert told["segments"] == []


async def agree(running: Running, *purposes: str) -> None:
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    word = {name: name in purposes for name in ALL}
    answer = await running.client.put(
        f"/v1/consent/{event.subject_id}",
        json={"purposes": word, "source": "test", "wording_version": "1"},
        headers=running.bearer(),
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("how", ["withdrawn", "gpc"])
async def test_no_figure_comes_of_a_history_that_may_not_be_used(
    running: Running, how: str
) -> None:
    decision = await decided(running)
    if how == "withdrawn":
        await agree(running, "analytics", "offers")
    headers = running.bearer("admin") | ({"Sec-GPC": "1"} if how == "gpc" else {})
    path = f"/v1/decisions/{decision['decision_id']}/explanation"
    answer = await running.client.get(path, headers=headers)
    assert answer.status_code == 200
    told = answer.json()
    assert told["segments"] == []
    assert all(one["attributions"] is None for one in told["recommendations"])
    said = {why["code"] for one in told["recommendations"] for why in one["reasons"]}
    assert not said & {"bought_before", "your_taste"}


async def test_what_came_of_no_history_is_told_without_personalization(start: Start) -> None:
    running = await start()
    answer = await running.post("/v1/checkout/decide", checkout(consent={"analytics": True}))
    await running.quiet()
    told = (await explained(running, answer.json()["decision_id"], "admin")).json()
    assert all(set(one["attributions"]) == set(GROUPS) for one in told["recommendations"])


async def test_a_decision_is_explained_to_nobody_once_analytics_is_withdrawn(
    running: Running,
) -> None:
    decision = await decided(running)
    await agree(running, "personalization", "offers")
    assert (await explained(running, decision["decision_id"], "admin")).status_code == 404


async def test_there_is_nothing_to_explain(running: Running) -> None:
    unlinked = await running.post(
        "/v1/checkout/decide", checkout(consent={"personalization": True})
    )
    await running.quiet()
    decision = await decided(running)
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    for decision_id, query, status in (
        (unlinked.json()["decision_id"], {}, 404),  # no record without analytics
        (str(uuid4()), {}, 404),
        ("no-uuid", {}, 422),
        (decision["decision_id"], {"subject_id": str(event.subject_id)}, 200),
        (decision["decision_id"], {"subject_id": str(uuid4())}, 404),
        (str(running.logged()[0].event_id), {}, 404),  # a purchase
    ):
        answer = await explained(running, decision_id, **query)
        assert answer.status_code == status, answer.text


async def test_an_erased_shopper_s_decisions_are_explained_to_nobody(running: Running) -> None:
    decision = await decided(running)
    (event,) = [one for one in running.logged() if one.event_name == "decision"]
    erased = await running.client.delete(
        f"/v1/subjects/{event.subject_id}",
        headers=running.bearer("admin") | {"Idempotency-Key": str(uuid4())},
    )
    assert erased.status_code == 200
    assert (await explained(running, decision["decision_id"], "admin")).status_code == 404
