"""The worker as a process: it counts once, however often it is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from serving.commands.child_worker import ChildWorker
from serving.monitoring.kpis import FILE, KpiReader
from tests.serving.commands.processes import ROOT, Place, answers, free_port
from tests.serving.conftest import Running, Start, event, purchase
from tests.serving.release_factory import Factory

AS_OF = "2017-11-20"
VISITS, ROUNDS = 40, 2


@contextmanager
def working(place: Place, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A worker, killed at the end if it still works."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "worker", "--port", "0", "--every", "0.1", *arguments],
        cwd=ROOT,
        env=place.environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def counted(place: Place, name: str) -> float:
    try:
        reader = KpiReader.open(place.state / FILE)
    except FileNotFoundError:
        return 0.0
    with reader as kpis:
        as_of = kpis.as_of()
        if as_of is None:
            return 0.0
        start = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
        return float(kpis.totals(start, start + timedelta(days=1)).of(name)[0])


def awaited(place: Place, name: str, least: float) -> float:
    until = time.monotonic() + 60
    while (found := counted(place, name)) < least and time.monotonic() < until:
        time.sleep(0.02)
    return found


async def test_killed_and_started_again_it_counts_everything_once(
    running: Running, release_root: Factory
) -> None:
    place = Place(release_root, running.gateway.settings.state)
    for number in range(ROUNDS):
        events = [
            made
            for visit in range(VISITS)
            for made in _visit(f"v{visit % 7}", f"s{number}-{visit}", f"t{number}-{visit}")
        ]
        with working(place) as process:
            for start in range(0, len(events), 8):
                answer = await running.post("/v1/events", {"events": events[start : start + 8]})
                assert answer.status_code == 202, answer.text
            # Killed while it reads what was just sent, or soon after.
            awaited(place, "visits", number * VISITS + 1)
            process.send_signal(signal.SIGKILL)
    with working(place, "--with-parent") as process:
        url = _address(process)
        assert awaited(place, "orders", ROUNDS * VISITS) == ROUNDS * VISITS
        assert counted(place, "visits") == ROUNDS * VISITS
        assert counted(place, "revenue") == ROUNDS * VISITS * 100
        # One at a time, and reports can be asked for beside it.
        assert "another worker" in place.call("worker", "--port", "0").stderr
        beside = place.call("experiment", "report")
        assert beside.returncode == 0, beside.stderr
        assert "a worker reads the event log" in beside.stdout
        _tells_prometheus(url)
        assert process.stdin is not None
        process.stdin.close()  # as when whoever started it is killed
        process.stdin = None
        assert process.wait(timeout=30) == 0


async def test_a_child_that_is_killed_is_started_anew_and_ends_with_its_parent(
    running: Running, release_root: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(release_root, running.gateway.settings.state)
    for name, text in place.environment.items():
        monkeypatch.setenv(name, text)
    child = ChildWorker(running.gateway.settings, "--every", "0.1", pause_s=0.05)
    try:
        sent = {"events": _visit("v", "s", "t")}
        assert (await running.post("/v1/events", sent)).status_code == 202
        assert awaited(place, "orders", 1) == 1
        first = child.pid
        os.kill(first, signal.SIGKILL)
        sent = {"events": _visit("w", "r", "u")}
        assert (await running.post("/v1/events", sent)).status_code == 202
        assert awaited(place, "orders", 2) == 2
        assert child.pid != first
    finally:
        child.close()
    assert not Path(f"/proc/{child.pid}").exists()


async def test_one_that_is_kept_waits_for_its_stores_and_ends_when_told(
    start: Start, release_root: Factory, tmp_path: Path
) -> None:
    """As a container of a pod, which would be out of service each time that it ends."""
    place = Place(release_root, tmp_path / "state")
    with working(place, "--keep") as process:
        assert process.stderr is not None
        while "the worker ended with 2" not in process.stderr.readline():
            assert process.poll() is None
        running = await start(state=place.state)
        sent = {"events": _visit("v", "s", "t")}
        assert (await running.post("/v1/events", sent)).status_code == 202
        assert awaited(place, "orders", 1) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_one_machine_is_one_command(release_root: Factory, tmp_path: Path) -> None:
    place = Place(release_root, tmp_path / "state")
    key = place.call("keys", "create", "--role", "checkout").stdout.strip()
    port = free_port()
    with place.gateway("--worker", TILLWISE_WORKER_PORT=str(port)) as served:
        sent = {"events": [purchase("item-1", occurred_at=datetime.now(UTC).isoformat())]}
        answer = served.post("/v1/events", sent, key)
        assert answer.status_code == 202, answer.text
        assert awaited(place, "orders", 1) == 1
        assert answers(f"http://127.0.0.1:{port}/healthz", lambda: True)
        served.end()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def _address(process: "subprocess.Popen[str]") -> str:
    """Where it answers, once it works."""
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"metrics on 127\.0\.0\.1:(\d+)", line)
    assert found is not None, line
    return f"http://127.0.0.1:{found[1]}"


def _tells_prometheus(url: str) -> None:
    assert httpx.get(f"{url}/healthz").text == "ok\n"
    metrics = httpx.get(f"{url}/metrics").text
    assert 'tillwise_kpi{metric="order_value",window="1h"} 100.0' in metrics
    assert 'tillwise_kpi{metric="conversion",window="24h"} 1.0' in metrics
    assert 'tillwise_worker_failures_total{duty="rollup"} 0.0' in metrics
    assert httpx.get(f"{url}/else").status_code == 404


def _visit(visitor: str, session: str, transaction: str) -> list[dict[str, object]]:
    who = {"visitor_id": visitor, "session_id": session}
    at = {"occurred_at": f"{AS_OF}T00:00:00Z"}
    return [
        event(event_name="page_view", items=[]) | who | at,
        purchase("item-1", transaction_id=transaction) | who | at,
        # Told twice.
        purchase("item-1", transaction_id=transaction) | who | at | {"event_id": str(uuid4())},
    ]


def test_without_a_state_folder_it_says_so(release_root: Factory, tmp_path: Path) -> None:
    ended = Place(release_root, tmp_path / "none").call("worker")
    assert ended.returncode == 2
    assert "holds no control store" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--every", "0"), ("--every", "inf"), ("--reports-every", "-1"), ("--reports-every", "nan")],
)
def test_bad_periods_are_refused(
    tmp_path: Path, release_root: Factory, arguments: tuple[str, str]
) -> None:
    ended = Place(release_root, tmp_path / "state").call("worker", *arguments)
    assert ended.returncode == 2
    assert f"{arguments[0]}: must be more than 0 seconds, at most a day" in ended.stderr
