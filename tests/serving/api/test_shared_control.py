"""Gateways that share a control store in PostgreSQL: what one is told the other knows within a
second, and while the database is away checkouts are answered without anybody's history."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.postgres_process import PostgresServer, postgres
from serving.api.auth import digest_of_key
from serving.experiments.rollup import FILE, Rollup
from serving.state.audit import COMMAND_LINE
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.api.test_rights import erase
from tests.serving.api.test_rights_facts import does, log_key, tables_with
from tests.serving.conftest import ALL, NOON, Running, Start, event, purchase
from tests.serving.state.control_places import seen
from tests.serving.traces import found_in

MASTER = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5LiE="


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may kill."""
    with postgres(fsync="off") as running:
        yield running


def shared(server: PostgresServer, state: Path, url: str) -> dict[str, Any]:
    """Settings of one of several gateways."""
    return {
        "state": state,
        "control_store": url,
        "postgres_user": server.user,
        "master_key": MASTER,
    }


async def two_gateways(
    start: Start, server: PostgresServer, folder: Path
) -> tuple[Running, Running]:
    """Two that share a database."""
    url = server.url_of_own()
    one = await start(**shared(server, folder / "one", url))
    return one, await start(**shared(server, folder / "other", url))


async def resolved(running: Running, visitor_id: str) -> str:
    answer = await running.post("/v1/subjects/resolve", {"visitor_id": visitor_id})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["subject_id"])


async def test_checkouts_go_on_while_the_database_is_away(
    start: Start, server: PostgresServer, tmp_path: Path
) -> None:
    running = await start(**shared(server, tmp_path / "one", server.url))
    first = await running.decide(consent=ALL)
    assert first.json()["degraded"] == []
    await running.post("/v1/events", {"events": [event()]})
    server.kill()
    await asyncio.sleep(1.2)
    for _ in range(3):
        began = time.monotonic()
        answer = await running.decide(consent=ALL, deadline_ms=200)
        assert answer.status_code == 200  # the key was seen before, and counts
        assert "identity" in answer.json()["degraded"]
        assert answer.json()["recommendations"]
        assert time.monotonic() - began < 1
    refused = await running.post("/v1/events", {"events": [event()]})
    assert refused.status_code == 503  # it can not be known what was agreed to
    ready = await running.client.get("/readyz")
    assert ready.status_code == 200  # all gateways would be out of service for it
    assert ready.json()["degraded"][0].startswith("control_store: ")
    server.start()

    async def back() -> bool:
        answer = await running.decide(consent=ALL)
        return bool(answer.json()["degraded"] == [])

    until = time.monotonic() + 5
    while not await back():
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
    sent = await running.post("/v1/events", {"events": [event()]})
    assert sent.status_code == 202
    assert (await running.decide(visitor_id="somebody-new", consent=ALL)).status_code == 200
    await resolved(running, "another")


async def test_two_gateways_share_consent_and_erasure(
    start: Start, database: PostgresServer, tmp_path: Path
) -> None:
    one, other = await two_gateways(start, database, tmp_path)
    subject = await resolved(one, "visitor-raw-1")
    said: dict[str, Any] = {"purposes": ALL, "source": "banner", "wording_version": "1"}
    headers = one.bearer("admin")
    answer = await one.client.put(f"/v1/consent/{subject}", json=said, headers=headers)
    assert answer.status_code == 200, answer.text

    def agreed(wanted: set[str]) -> bool:
        consent = other.gateway.control.consent_of(subject)
        return consent is not None and consent.purposes == wanted

    await seen(lambda: agreed(set(ALL)))
    said["purposes"] = dict.fromkeys(ALL, False)
    headers = other.bearer("admin")
    assert (
        await other.client.put(f"/v1/consent/{subject}", json=said, headers=headers)
    ).status_code == 200
    await seen(
        lambda: one.gateway.control.consent_of(subject) == other.gateway.control.consent_of(subject)
    )
    assert agreed(set())

    said["purposes"] = ALL
    headers = other.bearer("admin")
    await other.client.put(f"/v1/consent/{subject}", json=said, headers=headers)
    # Each gateway has heard of the shopper and remembers what they did there.
    for gateway in (one, other):
        sent = await gateway.post("/v1/events", {"events": [event()]})
        assert sent.json()["results"][0]["status"] == "accepted"
        assert await gateway.gateway.features.read(subject) != {}
    person = one.gateway.control.person_of(subject)
    files = found_in(tmp_path / "other", person)
    assert files  # it is one that could tell
    gone = await one.client.delete(f"/v1/subjects/{subject}", headers=one.bearer("admin"))
    assert gone.status_code == 200, gone.text
    # What the server keeps of dead rows, and in its log, nobody has looked at.
    assert gone.json()["receipt"]["control_store_clean"] is False
    await seen(lambda: not other.gateway.control.exists(subject))
    await seen(lambda: found_in(tmp_path, person) == [], 3)
    remembered = other.gateway.features
    assert isinstance(remembered, MemoryFeatureStore)
    await seen(lambda: remembered.read_now([subject]) == [{}], 3)
    again = await other.client.get(f"/v1/subjects/{subject}", headers=other.bearer("admin"))
    assert again.status_code == 404


async def test_a_key_that_is_revoked_at_one_is_refused_by_the_other(
    start: Start, database: PostgresServer, tmp_path: Path
) -> None:
    one, other = await two_gateways(start, database, tmp_path)
    held = one.bearer("checkout")

    async def status() -> int:
        answer = await other.post("/v1/checkout/decide", {}, None, held)
        return answer.status_code

    assert await status() == 422
    digest = digest_of_key(one.keys["checkout"])
    key = one.gateway.control.key_by_digest(digest)
    assert key is not None
    await one.gateway.control.revoke_key(key.key_id, NOON, COMMAND_LINE)
    until = time.monotonic() + 1
    while await status() != 401:
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


async def test_the_workers_beside_both_gateways_let_go_before_an_erasure_is_finished(
    start: Start, database: PostgresServer, tmp_path: Path
) -> None:
    one, other = await two_gateways(start, database, tmp_path)
    subject = await resolved(one, "visitor-raw-1")
    await seen(lambda: other.gateway.control.exists(subject))
    sent = await other.post("/v1/events", {"events": [purchase("item-1")]}, role="checkout")
    assert sent.json()["results"][0]["status"] == "accepted"
    await seen(lambda: one.gateway.control.consent_of(subject) is not None)
    key = log_key(other, subject)
    path = other.gateway.settings.state / FILE
    with closing(Rollup(path)) as rollup:
        await asyncio.to_thread(does, other, rollup, "rollup")
        assert tables_with(path, key)
        await seen(lambda: len(one.gateway.control.fact_keepers()) == 1)
        receipt = (await erase(one, subject))["receipt"]
        assert receipt["facts_removed"] is receipt["finished"] is False
        await seen(lambda: not other.gateway.control.exists(subject))
        await asyncio.to_thread(does, other, rollup, "rollup")
        assert tables_with(path, key) == set()
        await seen(lambda: all(k.erasures == 1 for k in one.gateway.control.fact_keepers()))
        receipt = (await erase(one, subject))["receipt"]
        assert receipt["facts_removed"] is receipt["finished"] is True
