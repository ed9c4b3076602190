"""A gateway that starts while everything that it shares with others is away: the last good release
on disk answers, as for somebody unknown, and what is back is used without a restart."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from benchmarks.kafka_brokers import brokers
from benchmarks.postgres_process import PostgresServer, postgres
from benchmarks.valkey_process import ValkeyServer
from tests.serving.commands.processes import Place, Served, free_port
from tests.serving.conftest import ALL, checkout, event
from tests.serving.release_factory import Factory

MASTER = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5LiE="


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may kill."""
    with postgres(fsync="off") as running:
        yield running


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as held:
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    factory = Factory(tmp_path / "own")
    factory.write("one")
    return Place(factory, tmp_path / "state")


def settings(database: PostgresServer, log: str, features: str, models: str) -> dict[str, str]:
    """Of a gateway of overlay `scale`."""
    return {
        "TILLWISE_MASTER_KEY": MASTER,
        "TILLWISE_CONTROL_STORE": database.url,
        "TILLWISE_POSTGRES_USER": database.user,
        "TILLWISE_EVENT_LOG": f"kafka://{log}/events-{uuid4()}",
        "TILLWISE_FEATURE_STORE": features,
        "TILLWISE_TRITON_URL": f"grpc://{models}",
        "TILLWISE_IDENTITY_WAIT_MS": "1000",
    }


def decided(served: Served, key: str, **changed: Any) -> dict[str, Any]:
    answer = served.post("/v1/checkout/decide", checkout(consent=ALL, **changed), key)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ready(served: Served) -> dict[str, Any]:
    answer = httpx.get(f"{served.url}/readyz", timeout=10)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def keys_of(place: Place, told: dict[str, str]) -> list[str]:
    made = [place.call("keys", "create", "--role", "checkout", **told) for _ in range(2)]
    assert [one.returncode for one in made] == [0, 0], made
    return [one.stdout.strip().splitlines()[-1] for one in made]


def lived(place: Place, told: dict[str, str], *keys: str) -> None:
    """A gateway with all that it needs, which these callers ask."""
    with place.gateway(**told) as served:
        for key in keys:
            assert "identity" not in decided(served, key)["degraded"]


@pytest.mark.parametrize("gone", ["killed", "silent"])
def test_a_gateway_starts_without_anything_that_it_shares(
    place: Place, database: PostgresServer, server: ValkeyServer, silent: str, gone: str
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with brokers() as addresses:
        told = settings(database, addresses, server.url, nowhere)
        key, stranger = keys_of(place, told)
        lived(place, told, key)
    if gone == "killed":
        database.kill()
        server.signal(signal.SIGKILL)
        away = settings(database, nowhere, server.url, nowhere)
    else:
        database.pause()
        server.signal(signal.SIGSTOP)
        away = settings(database, silent, server.url, silent)
    with place.gateway(**away) as served:
        answer = decided(served, key)
        assert answer["release_id"] == "one"
        assert answer["recommendations"]
        assert answer["rung"] in ("session_knn", "popular")
        assert "identity" in answer["degraded"]
        # Who never called here is not let in on trust, and nothing is promised that is not kept.
        refused = served.post("/v1/checkout/decide", checkout(), stranger)
        assert refused.status_code in (401, 503)
        assert served.post("/v1/events", {"events": [event()]}, key).status_code == 503
        said = ready(served)["degraded"]
        assert {one.partition(":")[0] for one in said} >= {"models", "event_log", "control_store"}
        if gone == "killed":
            database.start()
        else:
            database.go_on()
            server.signal(signal.SIGCONT)
        until = time.monotonic() + 20
        while "identity" in decided(served, key)["degraded"]:
            assert time.monotonic() < until, "the database is back and not used"
            time.sleep(0.1)
        assert decided(served, stranger)["recommendations"]
        offers = served.post("/v1/offers/none/reservations", {"offer_token": "x"}, key)
        assert offers.status_code == 422  # the ledger answers


def test_a_folder_that_never_saw_the_store_does_not_start_without_it(
    place: Place, database: PostgresServer, server: ValkeyServer
) -> None:
    """Nobody could be let in, and no key of the shop's own would be there."""
    nowhere = f"127.0.0.1:{free_port()}"
    database.kill()
    ended = place.run("run", **settings(database, nowhere, server.url, nowhere))
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines()[-1].startswith("tillwise-serve: control store ")


def test_a_key_that_was_revoked_does_not_outlive_it(
    place: Place, database: PostgresServer, server: ValkeyServer
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with brokers() as addresses:
        told = settings(database, addresses, server.url, nowhere)
        key, other = keys_of(place, told)
        with place.gateway(**told) as served:
            decided(served, key)
            decided(served, other)
            listed = place.call("keys", "list", **told).stdout
            first = listed.split()[0]
            assert place.call("keys", "revoke", first, **told).returncode == 0
            time.sleep(2)  # twice what it may take to be known, and not asked by anybody
    database.kill()
    with place.gateway(**settings(database, nowhere, server.url, nowhere)) as served:
        answers = [
            served.post("/v1/checkout/decide", checkout(), one).status_code for one in (key, other)
        ]
    assert sorted(answers) in ([200, 401], [200, 503])
