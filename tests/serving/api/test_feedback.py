"""From a shopper's word to the next decision, its explanation, and what is told and erased."""

from typing import Any

from tests.serving.conftest import ALL, Running, Start, checkout, event


async def said(running: Running, kind: str, *items: str, **changed: Any) -> None:
    body = event(
        event_name="feedback",
        schema_version=3,
        feedback=kind,
        items=[{"item_id": one} for one in items],
        **changed,
    )
    answer = await running.post("/v1/events", {"events": [body]}, role="collect")
    assert answer.json()["results"][0]["status"] == "accepted"


async def suggested(running: Running, **changed: Any) -> tuple[dict[str, Any], list[str]]:
    answer = await running.post("/v1/checkout/decide", checkout(**({"consent": ALL} | changed)))
    assert answer.status_code == 200
    await running.quiet()
    return answer.json(), [one["item_id"] for one in answer.json()["recommendations"]]


async def test_what_is_not_for_them_is_gone_from_the_next_decision_and_it_is_told_why(
    running: Running,
) -> None:
    _, before = await suggested(running)
    await said(running, "not_for_me", before[0])
    decision, after = await suggested(running)
    assert before[0] not in after
    path = f"/v1/decisions/{decision['decision_id']}/explanation"
    told = (await running.client.get(path, headers=running.bearer("checkout"))).json()
    (left_out,) = told["refused"]
    assert (left_out["item_id"], left_out["feedback"]) == (before[0], "not_for_me")
    assert left_out["title"].startswith("Item number")
    quiet = running.bearer("checkout") | {"Sec-GPC": "1"}
    assert (await running.client.get(path, headers=quiet)).json()["refused"] == []
    metrics = await running.client.get("/metrics")
    assert 'tillwise_items_refused_total{feedback="not_for_me"} 1.0' in metrics.text


async def test_without_personalization_it_is_stored_for_counting_alone(running: Running) -> None:
    counted = {"personalization": False, "analytics": True, "offers": False}
    _, before = await suggested(running, consent=counted)
    await said(running, "hidden", before[0], consent=counted)
    assert running.logged()[-1].feedback == "hidden"
    _, after = await suggested(running, consent=counted)
    assert after == before


async def test_it_can_be_switched_off(start: Start) -> None:
    running = await start(feedback_days=0)
    _, before = await suggested(running)
    await said(running, "not_for_me", before[0])
    assert (await suggested(running))[1] == before


async def test_it_is_told_to_whom_it_is_of_and_erased_with_them(running: Running) -> None:
    _, before = await suggested(running)
    await said(running, "not_for_me", before[0])
    known = await running.post("/v1/subjects/resolve", {"visitor_id": "visitor-raw-1"})
    subject = known.json()["subject_id"]
    path = f"/v1/subjects/{subject}"
    held = (await running.client.get(path, headers=running.bearer("admin"))).json()
    assert [one["feedback"] for one in held["events"] if "feedback" in one] == ["not_for_me"]
    (row,) = held["features"][subject]["feedback"]
    assert (row["item_id"], row["quantity"]) == (before[0], 1)
    erased = await running.client.delete(path, headers=running.bearer("admin"))
    assert erased.status_code == 200
    assert (await suggested(running))[1] == before
