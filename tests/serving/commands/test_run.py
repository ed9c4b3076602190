"""The gateway as a process: its start, its refusals, its end."""

import json
import shutil
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from contract.manifest import RELEASE_FILES
from serving.state.secrets import load_secrets
from serving.state.snapshot import read_snapshot
from tests.serving.commands.processes import Place, free_port
from tests.serving.conftest import ALL, checkout, event
from tests.serving.release_factory import Factory
from tests.serving.state.stores import Stores


@pytest.fixture
def place(release_root: Factory, tmp_path: Path) -> Place:
    """The shared release and a state folder of this test."""
    return Place(release_root, tmp_path / "state")


@pytest.fixture
def own(tmp_path: Path) -> Place:
    """A release that this test may change."""
    factory = Factory(tmp_path / "own")
    factory.write("one")
    return Place(factory, tmp_path / "state")


def test_a_gateway_serves_ends_on_sigterm_and_remembers(place: Place, tmp_path: Path) -> None:
    key = place.call("keys", "create", "--role", "checkout").stdout.strip()
    with place.gateway("--as-of", "2017-11-20") as served:
        sent = {"events": [event(occurred_at="2017-11-19T00:00:00Z") for _ in range(5)]}
        answer = served.post("/v1/events", sent, key)
        assert answer.status_code == 202, answer.text
        decided = served.post("/v1/checkout/decide", checkout(consent=ALL), key)
        assert decided.json()["rung"] == "full"
        log = served.end()
    assert served.process.returncode == 0
    assert all(json.loads(line)["level"] for line in log.splitlines()), log
    assert "visitor-raw-1" not in log
    stores = Stores(place.state, load_secrets(place.state, None))
    snapshot = read_snapshot(place.state / "features.npz", stores.keys)
    assert snapshot.position == 5
    assert len(snapshot.states) == 1
    stored = [found for _, found in stores.log.read_from(0)]
    stores.close()
    assert [found.event_name for found in stored] == ["view_item"] * 5 + ["decision"]
    assert stored[-1].occurred_at.year == 2017


def test_a_gateway_killed_comes_back_with_everything_it_answered(place: Place) -> None:
    key = place.call("keys", "create", "--role", "admin").stdout.strip()
    with place.gateway() as served:
        sent = {"events": [event() for _ in range(20)]}
        assert served.post("/v1/events", sent, key).status_code == 202
        served.end(signal.SIGKILL)
    with place.gateway() as served:
        again = served.post("/v1/events", sent, key).json()["results"]
        assert {one["status"] for one in again} == {"duplicate"}
        assert "20 events replayed" in served.end()


def test_a_request_under_way_is_finished_after_ctrl_c(place: Place) -> None:
    key = place.call("keys", "create", "--role", "checkout").stdout.strip()
    with place.gateway() as served:
        port = int(served.url.rpartition(":")[2])
        body = json.dumps(checkout()).encode()
        head = (
            f"POST /v1/checkout/decide HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + body[:50])
            httpx.get(f"{served.url}/healthz")  # by now the half request has arrived
            served.process.send_signal(signal.SIGINT)
            connection.sendall(body[50:])
            answer = connection.makefile("rb").readline()
        assert answer.startswith(b"HTTP/1.1 200")
        served.end()
    assert served.process.returncode == 0


def test_a_store_that_breaks_does_not_cut_the_end_short(place: Place) -> None:
    key = place.call("keys", "create", "--role", "checkout").stdout.strip()
    with place.gateway() as served:
        sent = {"events": [event() for _ in range(5)]}
        assert served.post("/v1/events", sent, key).status_code == 202
        for path in place.state.glob("control.sqlite*"):
            with path.open("r+b") as file:  # in place, under the open connections
                file.write(b"this is no database" * 10_000)
        log = served.end()
    assert served.process.returncode == 2
    assert "Traceback" not in log
    *lines, told = log.splitlines()
    said = [json.loads(line)["message"] for line in lines]
    assert any(one.startswith("shutting down, writing a snapshot: StoreError") for one in said)
    assert "not everything could be finished: writing a snapshot" in told


def test_a_port_in_use_is_one_line(own: Place) -> None:
    shutil.rmtree(own.factory.releases_dir)  # the port is looked at before anything is loaded
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = own.run("run", "--port", port, TILLWISE_LOG_LEVEL="error")
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        f"tillwise-serve: port {port} on 127.0.0.1 is in use; "
        "stop what uses it or choose another --port"
    ]


def test_no_release_says_how_to_make_one(own: Place) -> None:
    shutil.rmtree(own.factory.releases_dir)
    found = own.run("run", "--port", str(free_port()), TILLWISE_LOG_LEVEL="error")
    assert found.returncode == 2
    assert "tillwise-train export" in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [RELEASE_FILES[0], "manifest.json"])
def test_a_release_that_does_not_verify_is_refused_by_name(own: Place, name: str) -> None:
    path = own.factory.releases_dir / "one" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = own.run("run", "--port", str(free_port()), TILLWISE_LOG_LEVEL="error")
    assert found.returncode == 2
    assert name in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_damaged_store_is_one_line(place: Place) -> None:
    assert place.run("keys", "create", "--role", "checkout").returncode == 0
    (place.state / "events.sqlite").write_bytes(b"this is no database" * 100)
    found = place.run("run", "--port", str(free_port()), TILLWISE_LOG_LEVEL="error")
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1, found.stderr
    assert "database" in found.stderr


def test_wrong_settings_are_named(place: Place) -> None:
    for name, value in [("TILLWISE_PORT", "99999"), ("TILLWISE_CORS_ORIGINS", "nonsense")]:
        found = place.call("check", **{name: value})
        assert found.returncode == 2
        assert name.removeprefix("TILLWISE_").lower() in found.stderr.lower()
    found = place.run("run", "--as-of", "yesterday")
    assert found.returncode == 2
    assert "2017-11-20" in found.stderr


def test_promoting_is_noticed_by_a_running_gateway(own: Place) -> None:
    own.factory.write("two", version=2, current=False)
    with own.gateway() as served:
        assert httpx.get(f"{served.url}/readyz").json()["release_id"] == "one"
        assert own.call("release", "promote", "two").returncode == 0
        promoted = time.monotonic()
        while httpx.get(f"{served.url}/readyz").json().get("release_id") != "two":
            assert time.monotonic() - promoted < 20  # it looks once a second
            time.sleep(0.05)


def test_status_tells_what_a_gateway_sees(own: Place, tmp_path: Path) -> None:
    own.factory.write("two", version=2, current=False)
    key = own.call("keys", "create", "--role", "checkout").stdout.strip()
    report = tmp_path / "status.json"
    with own.gateway(TILLWISE_RELEASE_POLL_SECONDS="0.05") as served:
        assert own.call("release", "canary", "two", "--shadow").returncode == 0
        began = time.monotonic()
        while "trial_release_id" not in httpx.get(f"{served.url}/readyz").json():
            assert time.monotonic() - began < 20
            time.sleep(0.05)
        for _ in range(3):
            assert served.post("/v1/checkout/decide", checkout(), key).status_code == 200
        rows: dict[str, dict[str, dict[str, float]]] = {}
        while rows.get("shadow two", {}).get("decisions", {}).get("mean") != 3:
            assert time.monotonic() - began < 20
            ended = own.call("release", "status", "--url", served.url, "--json", str(report))
            assert ended.returncode == 0, ended.stderr
            rows = {row["name"]: row["metrics"] for row in json.loads(report.read_text())["rows"]}
    assert rows["live one"]["decisions"]["mean"] == 3
    assert rows["shadow two"]["overlap@5"]["mean"] == 1.0  # the same models under another id
    assert rows["shadow two"]["rung_same"]["mean"] == 3
    assert "on trial: 100 % of the shoppers" in ended.stdout


def test_a_start_falls_back_and_says_so(own: Place) -> None:
    key = own.call("keys", "create", "--role", "checkout").stdout.strip()
    quick = {"TILLWISE_RELEASE_POLL_SECONDS": "0.05", "TILLWISE_RELEASE_HEALTHY_SECONDS": "0"}
    notes = own.factory.releases_dir / "rollout.json"
    with own.gateway(**quick):
        began = time.monotonic()
        while not (notes.exists() and json.loads(notes.read_text())["healthy"] == ["one"]):
            assert time.monotonic() - began < 20
            time.sleep(0.05)
    own.factory.write("two", version=2)
    (own.factory.releases_dir / "two" / RELEASE_FILES[0]).write_bytes(b"half a file")
    with own.gateway(**quick) as served:
        answer = served.post("/v1/checkout/decide", checkout(), key).json()
        assert (answer["release_id"], answer["rung"]) == ("one", "full")
        (problem,) = httpx.get(f"{served.url}/readyz").json()["problems"]
        assert RELEASE_FILES[0] in problem
        assert "tillwise_release_as_wanted 0.0" in httpx.get(f"{served.url}/metrics").text
        log = served.end()
    assert "serving the last good release, one" in log


def test_a_pinned_release_stays(own: Place) -> None:
    own.factory.write("two", version=2)
    with own.gateway("--release", "one", TILLWISE_RELEASE_POLL_SECONDS="0.05") as served:
        assert httpx.get(f"{served.url}/readyz").json()["release_id"] == "one"
