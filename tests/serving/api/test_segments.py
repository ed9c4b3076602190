"""Segments over HTTP: they move with the next event, say why and since when, under consent."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from contract.behaviour import BEHAVIOUR, LearnedSegments
from contract.clock import FixedClock
from contract.segment_config import SegmentConfig
from serving.api import documentation
from tests.serving.conftest import ALL, NOON, Running, Start, event, purchase
from tests.serving.release_factory import Factory


def view(item_id: str, at: str, **changed: Any) -> dict[str, Any]:
    return event(occurred_at=f"2017-11-20T{at}Z", items=[{"item_id": item_id}]) | changed


async def send(running: Running, *events: dict[str, Any]) -> None:
    answer = await running.post("/v1/events", {"events": list(events)})
    assert [one["status"] for one in answer.json()["results"]] == ["accepted"] * len(events)


async def subject(running: Running, visitor_id: str = "visitor-raw-1") -> str:
    answer = await running.post("/v1/subjects/resolve", {"visitor_id": visitor_id})
    found: str = answer.json()["subject_id"]
    return found


async def told(
    running: Running, query: str = "", headers: dict[str, str] | None = None
) -> dict[str, Any]:
    path = f"/v1/subjects/{await subject(running)}/segments{query}"
    answer = await running.client.get(path, headers=running.bearer() | (headers or {}))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def by_name(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in body["segments"]}


async def test_three_views_move_the_segment_and_a_purchase_moves_it_again(
    running: Running,
) -> None:
    await send(running, view("item-3", "11:00:00"), view("item-7", "11:01:00"))
    assert set(by_name(await told(running))) == {"prospects"}
    await send(running, view("item-11", "11:02:00"))
    body = await told(running)
    assert body["personalization"] is True
    assert body["release_id"] == "tiny-1"
    found = by_name(body)
    assert set(found) == {"prospects", "browsing_explorers"}
    assert found["prospects"]["since"] == "2017-11-20T11:00:00Z"
    explorer = found["browsing_explorers"]
    assert explorer["title"] == "Browsing Explorers"
    assert (explorer["kind"], explorer["since_exact"]) == ("rule", True)
    assert explorer["since"] == "2017-11-20T11:02:00Z"
    # Items 3, 7 and 11 are all of PRODUCE, from three aisles.
    items, categories = explorer["why"]
    assert (items["figure"], items["value"], items["threshold"]) == ("items", 3, 3)
    assert items["text"] == (
        "3 different products looked at in 30 days and since the last order (at least 3)"
    )
    assert (categories["value"], categories["threshold"]) == (3, 1)
    assert categories["text"] == "3 categories among them (at least 1)"
    await send(running, purchase("item-3", occurred_at="2017-11-20T11:03:00Z"))
    found = by_name(await told(running))
    assert set(found) == {"first_time_buyers"}
    assert found["first_time_buyers"]["since"] == "2017-11-20T11:03:00Z"


async def test_a_late_event_changes_what_was_true_before(running: Running) -> None:
    clock = running.clock
    views = [view(f"item-{n}", f"11:0{n}:00") for n in (1, 2, 3)]
    await send(running, views[0], views[2])
    assert set(by_name(await told(running))) == {"prospects"}
    clock.at = NOON.replace(day=21)
    await send(running, views[1])
    # It would have been the second of three: the third made the segment.
    assert by_name(await told(running))["browsing_explorers"]["since"] == "2017-11-20T11:03:00Z"
    await send(running, purchase("item-1", occurred_at="2017-11-20T11:02:30Z"))
    assert set(by_name(await told(running))) == {"first_time_buyers"}


async def test_a_restart_says_the_same(start: Start) -> None:
    first = await start()
    await send(first, *(view(f"item-{n}", f"11:0{n}:00") for n in (1, 2, 3)))
    before = await told(first)
    await first.stop()
    (Path(first.gateway.settings.state) / "features.npz").unlink()  # so that the log is replayed
    assert await told(await start()) == before


async def test_the_category_of_a_view_is_written_down_with_it(running: Running) -> None:
    named = [{"item_id": "item-3", "item_category": "OURS"}]
    own = view("item-3", "11:00:00", items=named, schema_version=2)
    await send(running, view("item-3", "10:00:00"), own, view("unheard-of", "11:30:00"))
    said = [one.items[0].item_category for one in running.logged()]
    assert said == ["PRODUCE/PRODUCE AISLE 3", "OURS", None]


async def test_without_consent_nothing_is_told(running: Running) -> None:
    await send(running, view("item-3", "11:00:00"))
    assert by_name(await told(running))
    silent = {"personalization": False, "segments": []}
    assert silent.items() <= (await told(running, headers={"Sec-GPC": "1"})).items()
    word = {"purposes": ALL | {"personalization": False}, "source": "page", "wording_version": "1"}
    path = f"/v1/consent/{await subject(running)}"
    headers = running.bearer() | {"content-type": "application/json"}
    assert (await running.client.put(path, json=word, headers=headers)).status_code == 200
    assert silent.items() <= (await told(running)).items()


async def test_a_subject_without_a_word_of_consent(running: Running) -> None:
    body = await told(running)
    assert (body["personalization"], body["segments"]) == (False, [])


async def test_a_login_joins_the_histories(running: Running) -> None:
    await send(running, *(view(f"item-{n}", f"11:0{n}:00") for n in (1, 2)))
    await send(running, view("item-3", "11:03:00", user_id="user-raw-1"))
    assert "browsing_explorers" in by_name(await told(running))


async def test_contextual_segments_where_the_query_says_the_context(running: Running) -> None:
    running.clock.at = NOON.replace(hour=17, minute=20)
    await send(running, view("item-3", "11:00:00"))
    query = "?device=mobile&country=DE&timezone=Europe/Berlin"
    found = by_name(await told(running, query))["mobile_shoppers_in_europe_during_peak_hours"]
    assert found["title"] == "Mobile Shoppers in Europe during Peak Hours"
    assert found["kind"] == "contextual"
    assert found["since"] == "2017-11-20T16:00:00Z"  # 17:00 in Berlin
    assert [one["text"] for one in found["why"]] == [
        "on mobile",
        "in DE (europe)",
        "18:20 local time (from 17:00 to 20:00)",
    ]
    assert set(by_name(await told(running, "?device=mobile&country=US"))) == {"prospects"}


async def test_who_may_ask(running: Running) -> None:
    path = f"/v1/subjects/{await subject(running)}/segments"
    wanted = {"checkout": 200, "admin": 200, "collect": 403, None: 401}
    for role, status in wanted.items():
        answer = await running.client.get(path, headers=running.bearer(role))  # type: ignore[arg-type]
        assert answer.status_code == status


async def test_refusals_are_those_that_are_documented(running: Running) -> None:
    described = documentation.document(running.app)["paths"]["/v1/subjects/{subject_id}/segments"]
    get = described["get"]
    assert {"200", "401", "403", "404", "422", "503"} <= set(get["responses"])
    named = [one["name"] for one in get["parameters"]]
    assert named == ["subject_id", "device", "country", "region", "timezone"]
    for path, status in (
        (f"/v1/subjects/{uuid4()}/segments", 404),
        ("/v1/subjects/me/segments", 404),
        (f"/v1/subjects/{await subject(running)}/segments?device=fridge", 422),
        (f"/v1/subjects/{await subject(running)}/segments?moon=full", 422),
        (f"/v1/subjects/{await subject(running)}/segments?region=4111111111111111", 422),
    ):
        answer = await running.client.get(path, headers=running.bearer())
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert "4111111111111111" not in answer.text


def learned() -> LearnedSegments:
    """Those who looked at much, and those who did not."""
    width, place = len(BEHAVIOUR), BEHAVIOUR.index("items_viewed")
    centroids = np.zeros((2, width))
    centroids[:, place] = -1.0, 1.0
    mean, scale = np.zeros(width), np.zeros(width)
    mean[place], scale[place] = np.log1p(2), np.log(2)
    return LearnedSegments(("looks at little", "looks at much"), mean, scale, centroids)


async def test_learned_segments_and_the_shop_s_own_rules(start: Start, tmp_path: Path) -> None:
    rules = SegmentConfig.parse(b'{"browsing_explorers": {"min_items": 5}}', "file")
    factory = Factory(tmp_path / "own", rules=rules, learned=learned())
    factory.write()
    running = await start(
        FixedClock(NOON), releases=factory.releases_dir, models=factory.models_dir
    )
    await send(running, view("item-1", "11:00:00"))
    assert "learned/looks_at_little" in by_name(await told(running))
    await send(running, *(view(f"item-{n}", f"11:0{n}:00") for n in (2, 3)))
    found = by_name(await told(running))
    assert set(found) == {"prospects", "learned/looks_at_much"}  # three are not five
    moved = found["learned/looks_at_much"]
    # The centroids lie around log1p(2): two views are as near to both, three nearer to the upper.
    assert moved["since"] == "2017-11-20T11:03:00Z"
    assert moved["title"] == "looks at much"
    assert moved["why"][0]["text"] == (
        "3 products looked at in 30 days (this segment 5, all shoppers 2)"
    )


async def test_a_decision_logs_the_segments_in_effect(start: Start, tmp_path: Path) -> None:
    factory = Factory(tmp_path / "own", learned=learned())
    factory.write()
    running = await start(
        FixedClock(NOON), releases=factory.releases_dir, models=factory.models_dir
    )
    await send(running, *(view(f"item-{n}", f"11:0{n}:00") for n in (1, 2, 3)))
    here = {"device": "mobile", "country": "DE", "timezone": "Asia/Tbilisi"}  # UTC + 4: 16:00
    assert (await running.decide(consent=ALL, context=here)).status_code == 200
    running.clock.at = NOON.replace(hour=13)
    assert (await running.decide(consent=ALL, context=here)).status_code == 200
    half = ALL | {"personalization": False}
    assert (await running.decide(consent=half, context=here)).status_code == 200
    await running.quiet()
    decisions = [one.decision for one in running.logged() if one.event_name == "decision"]
    behaviour = ["prospects", "browsing_explorers"]
    assert decisions[0]["segments"] == [*behaviour, "learned/looks_at_much"]
    peak = "mobile_shoppers_in_europe_during_peak_hours"
    assert decisions[1]["segments"] == [*behaviour, peak, "learned/looks_at_much"]
    assert "segments" not in decisions[2]
