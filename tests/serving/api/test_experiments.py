"""Experiments over HTTP: in effect for the next decision, logged with it, and only with consent."""

import asyncio
from typing import Any

import httpx
import pytest

from contract.experiments import personalised_against_generic
from tests.serving.conftest import ALL, Running, Start, purchase

FIRST = "personalised-against-generic"


def first(**changed: Any) -> dict[str, Any]:
    """The built-in first test, started."""
    said = personalised_against_generic().model_dump(mode="json", exclude_none=True)
    return said | {"status": "running"} | changed


def without_offers(key: str = "no-offers", **changed: Any) -> dict[str, Any]:
    variants = [{"key": "control"}, {"key": "bare", "changes": {"offers": False}}]
    return {"key": key, "title": key, "status": "running", "variants": variants} | changed


async def put(running: Running, experiment: dict[str, Any], **more: Any) -> httpx.Response:
    return await running.client.put(
        f"/v1/experiments/{experiment['key']}",
        json={"experiment": experiment} | more,
        headers=running.bearer("admin"),
    )


async def get(running: Running, key: str = FIRST) -> httpx.Response:
    return await running.client.get(f"/v1/experiments/{key}", headers=running.bearer("admin"))


async def decided(running: Running, visitor: str, **changed: Any) -> dict[str, Any]:
    answer = await running.decide(visitor_id=visitor, consent=ALL, **changed)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def variant(said: dict[str, Any]) -> str:
    (arm,) = said["experiments"]
    assert arm["key"] == FIRST
    return str(arm["variant"])


async def test_personalised_against_generic_is_there_to_be_started(running: Running) -> None:
    held = (await get(running)).json()
    assert held["version"] == 0
    assert held["running"] is False
    assert (await decided(running, "visitor-1"))["experiments"] == []
    written = await put(running, held["experiment"] | {"status": "running"}, note="go")
    assert written.status_code == 200, written.text
    assert written.json()["running"] is True
    assert written.json()["note"] == "go"
    seen = {f"visitor-{n}": variant(await decided(running, f"visitor-{n}")) for n in range(12)}
    assert set(seen.values()) == {"generic", "personalised"}
    again = {name: variant(await decided(running, name)) for name in seen}
    assert again == seen
    listed = await running.client.get("/v1/experiments", headers=running.bearer("admin"))
    assert [one["key"] for one in listed.json()["experiments"]] == [FIRST]


async def test_the_generic_checkout_looks_at_no_history_and_is_logged_with_its_variant(
    running: Running,
) -> None:
    await put(running, first())
    sides: dict[str, str] = {}
    for n in range(12):
        name = f"visitor-{n}"
        await running.post(
            "/v1/events", {"events": [purchase("item-7", "item-9", visitor_id=name)]}, "checkout"
        )
        sides.setdefault(variant(await decided(running, name)), name)
    generic = await decided(running, sides["generic"])
    personal = await decided(running, sides["personalised"])
    codes = {
        side: {why["code"] for one in said["recommendations"] for why in one["reasons"]}
        for side, said in (("generic", generic), ("personal", personal))
    }
    assert "bought_before" in codes["personal"]
    assert codes["generic"].isdisjoint({"bought_before", "your_taste"})
    await running.quiet()
    logged = {str(one.event_id): one for one in running.logged()}
    record = logged[generic["decision_id"]]
    assert record.decision["experiments"] == [{"key": FIRST, "variant": "generic"}]
    assert "personalization" not in record.purposes  # models learn nothing of it
    assert "personalization" in logged[personal["decision_id"]].purposes


async def test_without_consent_nothing_is_kept_and_who_can_not_notice_is_not_in_it(
    running: Running,
) -> None:
    await put(running, first())
    await put(running, without_offers())
    before = len(running.logged())
    answer = (await running.decide(visitor_id="visitor-1")).json()
    assert [one["key"] for one in answer["experiments"]] == ["no-offers"]
    gpc = (await running.decide(visitor_id="visitor-1", consent=ALL, gpc=True)).json()
    assert gpc["experiments"] == answer["experiments"]
    await running.quiet()
    assert len(running.logged()) == before


async def test_everybody_held_out_is_in_nothing_else(running: Running) -> None:
    variants = [{"key": "held_out", "weight": 1}, {"key": "open", "weight": 1}]
    held_out = {"key": "holdout", "title": "Held out", "variants": variants, "status": "running"}
    assert (await put(running, held_out)).status_code == 200
    await put(running, first())
    told = [(await decided(running, f"visitor-{n}"))["experiments"] for n in range(12)]
    for arms in told:
        side = next(one["variant"] for one in arms if one["key"] == "holdout")
        assert len(arms) == (1 if side == "held_out" else 2)
    assert {len(arms) for arms in told} == {1, 2}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"variants": [{"key": "generic", "weight": 9}, {"key": "personalised"}]}, "variants"),
        ({"salt": "anew"}, "salt"),
        ({"share": 0.1}, "share"),
        ({"status": "draft"}, "status"),
    ],
)
async def test_what_runs_is_not_moved(
    running: Running, changed: dict[str, Any], field: str
) -> None:
    await put(running, first(share=0.5))
    refused = await put(running, first(share=0.5) | changed)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == f"experiment.{field}"
    assert (await put(running, first(share=0.8))).status_code == 200
    assert (await put(running, first(share=0.8, status="stopped"))).status_code == 200
    assert (await decided(running, "visitor-1"))["experiments"] == []
    assert (await put(running, first(share=0.8))).status_code == 422


async def test_a_write_from_an_old_reading_is_refused(running: Running) -> None:
    assert (await put(running, first(), version=0)).status_code == 200
    conflict = await put(running, without_offers(), version=0)
    assert conflict.status_code == 409
    assert "1 is the current one" in conflict.json()["detail"]
    both = await asyncio.gather(*(put(running, without_offers(f"one-{n}")) for n in range(3)))
    assert [one.status_code for one in both] == [200, 200, 200]
    for n in range(3):
        assert (await get(running, f"one-{n}")).status_code == 200


async def test_what_is_no_experiment(running: Running) -> None:
    refused = await put(running, first(variants=[{"key": "only"}]))
    assert refused.status_code == 422
    assert "experiment.variants" in refused.json()["detail"]
    elsewhere = await running.client.put(
        "/v1/experiments/other", json={"experiment": first()}, headers=running.bearer("admin")
    )
    assert elsewhere.status_code == 422
    assert (await get(running, "nobody")).status_code == 404
    for role in ("checkout", "collect"):
        asked = await running.client.get(f"/v1/experiments/{FIRST}", headers=running.bearer(role))
        assert asked.status_code == 403


async def test_another_gateway_on_the_state_goes_on_with_it(start: Start) -> None:
    one = await start()
    await put(one, first())
    said = variant(await decided(one, "visitor-1"))
    await one.stop()
    other = await start()
    assert variant(await decided(other, "visitor-1")) == said
