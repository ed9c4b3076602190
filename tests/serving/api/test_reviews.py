"""Review items over HTTP: listed for the admin alone, acknowledged and closed once, on record."""

from typing import Any

import pytest

from contract.reviews import Finding
from tests.serving.conftest import NOON, Running


def finding(key: str = "conversion") -> Finding:
    return Finding(
        key=key,
        source="kpi",
        metric="conversion",
        title="Conversion is 18 % lower than expected",
        since=NOON,
        seen_at=NOON,
    )


async def listed(running: Running, **query: Any) -> Any:
    answer = await running.client.get("/v1/reviews", params=query, headers=running.bearer("admin"))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_item_is_acknowledged_and_closed(running: Running) -> None:
    assert await listed(running) == {"reviews": [], "open": 0}
    opened = await running.gateway.control.note_findings("kpi", [finding("a"), finding("b")])
    path = f"/v1/reviews/{opened[0].review_id}"
    assert {one["finding"]["key"] for one in (await listed(running))["reviews"]} == {"a", "b"}
    said = {"note": "looking", "who": "Anna"}
    first, again = [
        await running.post(f"{path}/acknowledge", said, "admin", {"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert first.status_code == 200, first.text
    assert first.json() == again.json()
    assert (first.json()["state"], first.json()["steps"][-1]["who"]) == ("acknowledged", "Anna")
    assert [one["review_id"] for one in (await listed(running, state="acknowledged"))["reviews"]]
    closed = await running.post(f"{path}/close", {}, "admin")
    assert closed.json()["state"] == "closed"
    held = await running.client.get(path, headers=running.bearer("admin"))
    assert held.json() == closed.json()
    late = await running.post(f"{path}/acknowledge", {}, "admin")
    assert late.status_code == 409
    assert late.json()["detail"] == "The review item can not be acknowledged: it is closed already."
    assert (await listed(running, state="open"))["open"] == 1
    assert len((await listed(running, limit=1))["reviews"]) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [({"note": "x" * 501}, 422), ({"note": "\0"}, 422), ({"by": "x"}, 422), (b"{", 400)],
)
async def test_what_is_wrong_is_said(running: Running, body: Any, status: int) -> None:
    (opened,) = await running.gateway.control.note_findings("kpi", [finding()])
    answer = await running.post(f"/v1/reviews/{opened.review_id}/close", body, "admin")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_only_the_admin_and_only_what_is_there(running: Running) -> None:
    for role in ("checkout", "collect"):
        headers = running.bearer(role)
        assert (await running.client.get("/v1/reviews?limit=0", headers=headers)).status_code == 403
        answer = await running.client.post("/v1/reviews/x/close", json={}, headers=headers)
        assert answer.status_code == 403
    assert (await running.post("/v1/reviews/x/close", {}, "admin")).status_code == 404
    admin = running.bearer("admin")
    assert (await running.client.get("/v1/reviews/x", headers=admin)).status_code == 404
    assert (await running.client.get("/v1/reviews?state=new", headers=admin)).status_code == 422
