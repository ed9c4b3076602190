"""Health, metrics, the documentation, the release pointer."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from contract.manifest import QUERY_TOWER
from serving.__main__ import main
from serving.commands import release_status
from serving.inference.backend import InferenceFailed
from serving.state.control_records import Consent
from serving.state.event_log import SqliteEventLog
from serving.state.sqlite_writer import StoreError
from tests.serving.conftest import ALL, NOON, Running, Start
from tests.serving.release_factory import Factory, usual_model
from tests.serving.state.events import stored_event
from training.export import int8


async def test_ready_names_its_release(running: Running) -> None:
    answer = await running.client.get("/readyz")
    assert answer.json() == {"status": "ready", "release_id": "tiny-1"}


async def test_models_in_int8_are_served_like_any_and_named(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = Factory(tmp_path)
    tower = usual_model(QUERY_TOWER, usual.item_vectors(), usual.seed)
    smaller = int8.quantised(tower, "tables", {})
    assert smaller is not None
    assert smaller != tower
    factory = Factory(tmp_path, models={QUERY_TOWER: smaller}, int8=(QUERY_TOWER,))
    factory.write("small")
    running = await start(releases=factory.releases_dir, models=factory.models_dir)
    decided = (await running.decide()).json()
    assert (decided["rung"], decided["release_id"]) == ("full", "small")
    ready = (await running.client.get("/readyz")).json()
    assert ready == {"status": "ready", "release_id": "small", "int8": [QUERY_TOWER]}
    seen = release_status._Metrics((await running.client.get("/metrics")).text)
    assert f"live in int8: {QUERY_TOWER}" in release_status._notes(ready, seen)
    capsys.readouterr()
    assert main(["release", "list", "--releases", str(factory.releases_dir)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("* small ")
    assert f"  int8: {QUERY_TOWER}  " in f"{line}  "


async def test_a_model_server_that_is_away_is_named_and_the_gateway_stays_ready(
    start: Start,
) -> None:
    running = await start(triton_url="grpc://127.0.0.1:9")  # nobody listens there
    answer = await running.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["degraded"][0].startswith("models: ")
    decided = (await running.decide()).json()
    assert decided["rung"] == "session_knn"
    assert {"query_tower", "sequence_encoder"} <= set(decided["degraded"])
    metrics = (await running.client.get("/metrics")).text
    assert 'tillwise_model_server_up{model="ranker"} 0.0' in metrics


@pytest.mark.parametrize("part", ["models", "event_log", "control_store"])
async def test_not_ready_names_what_failed(
    running: Running, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async def no_model(*_: Any) -> None:
        raise InferenceFailed("the model is gone")

    async def no_log() -> None:
        raise StoreError("disk full")

    def no_store() -> None:
        raise StoreError("no file")

    gateway = running.gateway
    target, name, broken = {
        "models": (gateway.live.current.models, "run", no_model),
        "event_log": (gateway.event_log, "check", no_log),
        "control_store": (gateway.control, "version", no_store),
    }[part]
    monkeypatch.setattr(target, name, broken)
    answer = await running.client.get("/readyz")
    assert answer.status_code == 503
    assert [one["field"] for one in answer.json()["errors"]] == [part]
    assert (await running.client.get("/healthz")).status_code == 200


async def test_metrics_count_by_route_and_name_nobody(running: Running) -> None:
    await running.decide(consent=ALL)
    await running.client.get("/v1/consent/visitor-raw-1", headers=running.bearer())
    await running.client.get("/some/visitor-raw-1")
    text = (await running.client.get("/metrics")).text
    assert (
        'tillwise_http_requests_total{method="POST",route="/v1/checkout/decide",status="200"} 1.0'
        in text
    )
    assert 'route="/v1/consent/{subject_id}",status="404"' in text
    assert 'route="unmatched",status="404"' in text
    assert "visitor-raw-1" not in text


async def test_the_documentation_is_true(running: Running) -> None:
    described = (await running.client.get("/openapi.json")).json()
    assert set(described["paths"]) == {
        "/v1/checkout/decide",
        "/v1/events",
        "/v1/catalogue/items",
        "/v1/subjects/resolve",
        "/v1/subjects/{subject_id}",
        "/v1/subjects/{subject_id}/segments",
        "/v1/consent/{subject_id}",
        "/v1/decisions/{decision_id}/explanation",
        "/v1/rules",
        "/v1/rules/history",
        "/v1/rules/diff",
        "/v1/rules/check",
        "/v1/experiments",
        "/v1/experiments/{key}",
        "/v1/experiments/{key}/report",
        "/v1/reviews",
        "/v1/reviews/{review_id}",
        "/v1/reviews/{review_id}/acknowledge",
        "/v1/reviews/{review_id}/close",
        "/v1/kpis",
        "/v1/offers",
        "/v1/offers/check",
        "/v1/offers/diff",
        "/v1/offers/history",
        "/v1/offers/{offer_id}/reservations",
        "/v1/reservations/{reservation_id}/redeem",
        "/v1/reservations/{reservation_id}/release",
        "/v1/redemptions/{redemption_id}/rollback",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    schemas = described["components"]["schemas"]
    decide = described["paths"]["/v1/checkout/decide"]["post"]
    reference = decide["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    asked = schemas[reference.rpartition("/")[2]]
    assert asked["additionalProperties"] is False
    assert {"visitor_id", "session_id", "cart"} <= set(asked["required"])
    assert decide["security"] == [{"api_key": []}, {"page_token": []}]
    assert {"200", "400", "401", "403", "413", "415", "422", "429"} <= set(decide["responses"])
    for one in decide["responses"].values():
        assert one["content"].keys() <= {"application/json", "application/problem+json"}
    assert _dangling(described, schemas) == []


def _dangling(part: Any, schemas: dict[str, Any]) -> list[str]:
    """References to schemas that do not exist."""
    if isinstance(part, dict):
        own = part.get("$ref")
        here = [own] if isinstance(own, str) and own.rpartition("/")[2] not in schemas else []
        return here + [one for value in part.values() for one in _dangling(value, schemas)]
    if isinstance(part, list):
        return [one for value in part for one in _dangling(value, schemas)]
    return []


async def test_the_docs_page_needs_no_other_host(running: Running) -> None:
    answer = await running.client.get("/docs")
    assert answer.status_code == 200
    assert "/v1/checkout/decide" in answer.text
    assert "https://" not in answer.text


async def test_shutting_down_writes_what_waits(running: Running, tmp_path: Any) -> None:
    known = await running.post("/v1/subjects/resolve", {"visitor_id": "a"})
    subject_id = UUID(known.json()["subject_id"])
    agreed = Consent(frozenset({"analytics"}), NOON, "banner")
    await running.gateway.control.record_consent(str(subject_id), agreed)
    for number in range(1, 301):
        shown = partial(stored_event, number, subject_id=subject_id)
        running.gateway.impressions.offer(shown, frozenset({"analytics"}))
    await running.stop()
    log = SqliteEventLog(tmp_path / "state" / "events.sqlite")
    assert log.last_position == 300
    log.close()


async def test_a_moved_pointer_is_followed_within_a_second(start: Start, tmp_path: Any) -> None:
    factory = Factory(tmp_path / "moving")
    factory.write("first")
    running = await start(
        releases=factory.releases_dir, models=factory.models_dir, release_poll_seconds=0.05
    )
    assert (await running.decide()).json()["release_id"] == "first"
    factory.write("second", version=2)
    moved = time.monotonic()
    while (await running.decide()).json()["release_id"] != "second":
        assert time.monotonic() - moved < 5
        await asyncio.sleep(0.02)


async def test_a_refused_release_leaves_the_old_one_serving(
    start: Start, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    factory = Factory(tmp_path / "moving")
    factory.write("first")
    running = await start(
        releases=factory.releases_dir, models=factory.models_dir, release_poll_seconds=1_000
    )
    follower = running.gateway.follower
    factory.write("broken", version=2)
    with (factory.releases_dir / "broken" / "items.faiss").open("ab") as file:
        file.write(b"x")
    await follower.look()
    await follower.look()
    assert (await running.decide()).json()["release_id"] == "first"
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "items.faiss" in told[0]
    assert "keeping release first" in told[0]
