"""A release switches across pods: no gateway names a version that a Triton server does not hold."""

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.clock import SystemClock
from contract.manifest import MODELS
from contract.rollout_file import named
from serving.inference.release_follow import NotInStep, Puller
from serving.inference.release_place import Folders
from serving.inference.release_store import ReleaseStore
from serving.inference.release_transfer import pull, push
from serving.inference.triton_repository import LoadRefused, TritonAway, servers
from tests.serving.commands.processes import free_port
from tests.serving.inference.triton_server import (
    BROKEN_MODEL,
    MODEL,
    ROOT,
    Server,
    config,
    ready_versions,
    server_environment,
    server_folder,
    triton_server,
)
from tests.serving.release_factory import Factory

AT = datetime(2017, 11, 20, tzinfo=UTC)
RELEASES = ("one", "two", "three", "four")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pods")


@pytest.fixture(scope="module")
def store(home: Path) -> ReleaseStore:
    """Four releases; Triton can not run the models of the last."""
    store = ReleaseStore(f"file://{home / 'store'}")
    factory = Factory(home / "trainer")
    trainer = Folders(factory.releases_dir, factory.models_dir)
    for version, release_id in enumerate(RELEASES, start=1):
        code = BROKEN_MODEL if release_id == "four" else MODEL
        beside = {f"{name}/{version}/model.py": code for name in MODELS}
        beside |= {f"{name}/config.pbtxt": config(name) for name in MODELS}
        replace(factory, beside=beside, seed=version).write(release_id, version=version)
        push(store, trainer, release_id)
    return store


@pytest.fixture(scope="module")
def triton_pod(home: Path, store: ReleaseStore) -> Folders:
    """What the init container of a Triton pod leaves."""
    pod = Folders(home / "triton" / "releases", home / "triton" / "models")
    store.promote("one")
    assert Puller(store, pod, SystemClock(), prune=True).once() == "one"
    return pod


@pytest.fixture(scope="module")
def server(home: Path, triton_pod: Folders) -> Iterator[Server]:
    with triton_server(triton_pod.models, home / "triton.log") as running:
        yield running


def test_gateways_follow_when_every_server_has_loaded_and_never_before(
    home: Path, store: ReleaseStore, triton_pod: Folders, server: Server
) -> None:
    triton = server.url
    gateway = Folders(home / "gateway" / "releases", home / "gateway" / "models")
    beside = Puller(store, triton_pod, SystemClock(), prune=True, load_triton=triton)
    waiting = Puller(store, gateway, SystemClock(), prune=True, await_triton=triton)
    assert waiting.once() == "one"

    store.promote("two")
    with pytest.raises(NotInStep, match=r"release two waits: .* has no query_tower, "):
        waiting.once()
    assert named(gateway.releases) == "one"
    assert waiting.once(or_keep=True) == "one"
    assert beside.once() == "two"
    assert ready_versions(triton, "ranker") == {1, 2}  # those who have not switched are answered
    assert waiting.once() == "two"

    store.promote("three")
    assert beside.once() == "three"
    assert ready_versions(triton, "ranker") == {2, 3}
    assert waiting.once() == "three"

    store.roll_back("wrong prices", AT)  # to two; three may still be served somewhere
    assert beside.once() == "two"
    assert {2, 3} <= ready_versions(triton, "ranker")
    assert waiting.once() == "two"

    store.promote("one")  # older than all that the server's version policy would take
    assert beside.once() == "one"
    assert {1, 2} <= ready_versions(triton, "ranker")
    assert waiting.once() == "one"

    store.promote("four")
    with pytest.raises(LoadRefused, match="made for another server"):
        beside.once()
    assert 1 in ready_versions(triton, "ranker")
    with pytest.raises(NotInStep):
        waiting.once()
    assert named(gateway.releases) == "one"
    store.roll_back("Triton refuses it", AT)
    assert beside.once() == "one"
    assert waiting.once() == "one"


def test_a_server_that_is_away_is_waited_for(
    home: Path, store: ReleaseStore, tmp_path: Path
) -> None:
    pod = Folders(tmp_path / "releases", tmp_path / "models")
    away = f"http://127.0.0.1:{free_port()}"
    live = store.live()
    assert live is not None
    with pytest.raises(NotInStep, match="waits"):
        Puller(store, pod, SystemClock(), await_triton=away).once()
    with pytest.raises(TritonAway):
        Puller(store, pod, SystemClock(), load_triton=away).once()
    assert named(pod.releases) is None
    pull(store, pod, live.current)


def test_every_server_of_a_name_is_asked() -> None:
    assert servers("http://127.0.0.1:8000") == ["http://127.0.0.1:8000"]
    assert set(servers("http://localhost:9")) <= {"http://127.0.0.1:9", "http://[::1]:9"}
    with pytest.raises(TritonAway):
        servers("http://no-such-name.invalid:8000")


def test_the_metrics_that_the_manifests_rely_on_are_those_of_a_server(server: Server) -> None:
    with urllib.request.urlopen(server.metrics) as answer:
        lines = answer.read().decode().splitlines()
    found = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    golden = (ROOT / "tests" / "golden" / "triton_metrics.txt").read_text().split()
    assert set(golden) == found


def test_the_flags_that_the_manifests_may_use_are_those_of_a_server() -> None:
    said = subprocess.run(
        [server_folder() / "bin" / "tritonserver", "--help"],
        env=server_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = set(re.findall(r"^  (--[a-z0-9-]+)", said.stdout + said.stderr, re.MULTILINE))
    golden = (ROOT / "tests" / "golden" / "triton_flags.txt").read_text().split()
    assert set(golden) == found
