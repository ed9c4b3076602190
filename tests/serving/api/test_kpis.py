"""What happened is in the key figures once the worker has read it."""

from datetime import timedelta
from typing import Any

import pytest

from serving.__main__ import main
from serving.control import open_control
from serving.experiments.rollup import Rollup
from serving.monitoring.anonymous import FILE as ANONYMOUS
from serving.monitoring.anonymous import counted_in
from serving.monitoring.kpis import FILE
from serving.state.control_records import Consent
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.stores import open_event_log
from tests.serving.conftest import ALL, NOON, Running, purchase
from tests.serving.experiments.test_report import FIRST, put

ANALYTICS = {"personalization": False, "analytics": True, "offers": False}


def work(running: Running) -> None:
    """One round of the worker, over the files as they are."""
    settings = running.gateway.settings
    control = open_control(settings, running.gateway.secrets, running.clock)
    event_log = open_event_log(settings, SealedCodec(SubjectKeys(control)))
    rollup = Rollup(settings.state / FILE)
    try:
        rollup.follow(event_log, control)
        rollup.add_anonymous(counted_in(settings.state / ANONYMOUS))
        rollup.forget(control)
    finally:
        rollup.close()
        event_log.close()
        control.close()


async def kpis(running: Running, **asked: str) -> dict[str, Any]:
    answer = await running.client.get("/v1/kpis", params=asked, headers=running.bearer("admin"))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def shop(running: Running) -> None:
    """Three checkouts, one of them bought what was suggested, one agrees to little."""
    await put(running, FIRST)
    for visitor, consent in (("v1", ALL), ("v2", ANALYTICS), ("v3", ALL)):
        answer = await running.decide(
            visitor_id=visitor,
            session_id=f"{visitor}-s",
            consent=consent,
            context={"device": "mobile"},
        )
        await running.quiet()
        if visitor == "v1":
            shown = answer.json()["recommendations"][0]["item_id"]
    running.clock.at += timedelta(minutes=5)
    bought = purchase(shown, "item-9", visitor_id="v1", session_id="v1-s", transaction_id="t1")
    bought["occurred_at"] = running.clock.at.isoformat()
    answer = await running.post("/v1/events", {"events": [bought]})
    assert answer.json()["results"][0]["status"] == "accepted", answer.text


async def test_the_figures_are_what_happened(running: Running) -> None:
    await shop(running)
    work(running)
    body = await kpis(running, bucket="5m")
    (whole,) = body["groups"]
    values = {name: one["value"] for name, one in whole["totals"].items()}
    assert values["conversion"] == pytest.approx(1 / 3)
    assert values["abandonment"] == pytest.approx(2 / 3)
    assert values["order_value"] == 200
    assert values["revenue_per_decision"] == pytest.approx(200 / 3)
    assert values["consent_rate"] == pytest.approx(2 / 3)
    assert values["analytics_rate"] == 1
    assert values["take_rate"] == pytest.approx(1 / 15)
    assert values["rung_full"] == 1
    assert 0 < values["latency_p50_ms"] < 1_000
    assert values["margin_share"] is None  # nobody said a cost
    assert body["currency"] == "USD"
    assert len(body["starts"]) == len(whole["series"]["visits"]["value"]) == 24 * 12
    assert sum(whole["series"]["visits"]["value"]) == 3
    assert [one["kind"] for one in body["marks"]] == ["release", "experiments"]
    arms = await kpis(running, group_by="experiment", metrics="conversion,visits", series="false")
    assert sum(one["visits"] for one in arms["groups"]) == 2  # nobody who could not notice
    assert {one["value"].partition(":")[0] for one in arms["groups"]} == {FIRST.key}
    assert arms["groups"][0]["series"] is None
    assert list(arms["groups"][0]["totals"]) == ["conversion", "visits"]
    mobile = await kpis(running, group_by="device", metrics="visits")
    assert [(one["value"], one["visits"]) for one in mobile["groups"]] == [("mobile", 3)]


@pytest.mark.parametrize(
    ("first", "last", "visits"),
    [
        ("0001-01-01T00:00:00Z", "0001-01-05T00:00:00Z", 0),
        ("0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00Z", 3),
        ("1900-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", 3),
    ],
)
async def test_the_ends_of_the_calendar_are_asked_for(
    running: Running, first: str, last: str, visits: int
) -> None:
    await shop(running)
    work(running)
    body = await kpis(running, start=first, end=last, bucket="day", series="false")
    (whole,) = body["groups"]
    assert whole["visits"] == visits
    assert whole["totals"]["visits"]["before"] is None


async def test_people_go_and_sums_stay(running: Running) -> None:
    await shop(running)
    work(running)
    before = await kpis(running)
    names = {
        name: running.gateway.subjects.recognise(name, None, None, gpc=False).subject_id
        for name in ("v1", "v3")
    }
    erased = await running.client.delete(
        f"/v1/subjects/{names['v1']}", headers=running.bearer("admin")
    )
    assert erased.status_code == 200, erased.text
    await running.gateway.control.record_consent(
        str(names["v3"]), Consent(frozenset({"personalization"}), NOON, "test")
    )
    work(running)
    assert await kpis(running) == before
    rollup = Rollup(running.gateway.settings.state / FILE)
    try:
        held = rollup.file.execute("SELECT count(*) FROM kpi_facts").fetchone()
        assert held == (1,)
        assert rollup.file.execute("SELECT count(*) FROM kpi_transactions").fetchone() == (0,)
    finally:
        rollup.close()


async def test_what_may_not_be_kept_is_counted_without_anybody(running: Running) -> None:
    await shop(running)
    nothing = dict.fromkeys(ALL, False)
    for number in range(3):
        said = {"visitor_id": f"x{number}", "session_id": "x", "consent": nothing}
        assert (await running.decide(**said)).status_code == 200
        running.gateway.anonymous.flush()
        work(running)
        work(running)  # taken over once
    body = await kpis(running)
    totals = body["groups"][0]["totals"]
    assert totals["decisions"]["value"] == 6
    assert totals["rung_full"]["numerator"] == 6
    assert totals["analytics_rate"]["value"] == pytest.approx(3 / 6)
    assert totals["consent_rate"]["value"] == pytest.approx(2 / 6)
    assert totals["visits"]["value"] == 3
    told = (running.gateway.settings.state / ANONYMOUS).read_bytes()
    assert b"x0" not in told


async def test_what_can_not_be_answered_says_why(running: Running) -> None:
    stranger = await running.client.get("/v1/kpis?bucket=x")
    assert stranger.status_code == 401
    shop = await running.client.get("/v1/kpis?bucket=x", headers=running.bearer("checkout"))
    assert shop.status_code == 403
    bearer = running.bearer("admin")
    answer = await running.client.get("/v1/kpis", headers=bearer)
    assert answer.status_code == 404
    assert "tillwise-serve worker" in answer.json()["detail"]
    for asked, field in (
        ({"bucket": "minute"}, "bucket"),
        ({"group_by": "shoe_size"}, "group_by"),
        ({"metrics": "conversion,luck"}, "metrics"),
        ({"start": "2017-11-20T00:00:00Z", "end": "2017-11-19T00:00:00Z"}, "start"),
        ({"start": "2016-11-20T00:00:00Z", "bucket": "5m"}, "bucket"),
        ({"start": "2017-11-20"}, "start"),
        ({"luck": "1"}, "luck"),
    ):
        answer = await running.client.get("/v1/kpis", params=asked, headers=bearer)
        assert answer.status_code == 422, (asked, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"][0]["field"] == field, answer.text


def test_the_worker_says_what_is_missing(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "--state", str(tmp_path / "none"), "--port", "0"]) == 2
    assert "holds no control store" in capsys.readouterr().err
    assert main(["worker", "--every", "0", "--state", str(tmp_path)]) == 2
    assert "--every: must be more than 0 seconds" in capsys.readouterr().err
