"""Releases travel through a folder and through a real S3 server, and arrive whole or not at all."""

import logging
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from contract.clock import SystemClock
from contract.errors import UserError
from contract.manifest import MANIFEST, Root
from contract.rollout import Canary
from contract.rollout_file import live_release_id, named, read_rollout, roll_back
from serving.inference import release_transfer
from serving.inference.release_follow import Puller
from serving.inference.release_place import Folders, digest_of_file
from serving.inference.release_roles import Pruned, follow, prune
from serving.inference.release_store import ReleaseStore, StoreUnreachable
from serving.inference.release_transfer import otherwise_run, pull, push, reconfigure
from serving.inference.releases import check_release
from tests.serving.commands.processes import Place, free_port
from tests.serving.inference.object_store import BUCKET, s3_server
from tests.serving.release_factory import Factory

AT = datetime(2017, 11, 20, tzinfo=UTC)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as environment:
        yield environment


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReleaseStore]:
    """An empty store of each kind."""
    if request.param == "folder":
        yield ReleaseStore(f"file://{tmp_path / 'store'}")
        return
    environment = request.getfixturevalue("s3")
    with mock.patch.dict(os.environ, environment):
        yield ReleaseStore(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture
def folder_store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(f"file://{tmp_path / 'store'}")


@pytest.fixture
def made(tmp_path: Path) -> Factory:
    """Two releases, as a trainer's disk holds them."""
    factory = Factory(tmp_path / "trainer")
    factory.write("one")
    replace(factory, seed=8).write("two", version=2, current=False)
    return factory


@pytest.fixture
def pod(tmp_path: Path) -> Folders:
    """The empty folders of a pod."""
    return folders(tmp_path / "pod")


def folders(root: Path) -> Folders:
    return Folders(root / "releases", root / "model_repository")


def trainer(made: Factory) -> Folders:
    return Folders(made.releases_dir, made.models_dir)


def problems(pod: Folders, release_id: str) -> list[str]:
    return check_release(pod.releases, pod.models, release_id)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def in_step(store: ReleaseStore, pod: Folders, **how: bool) -> str:
    return Puller(store, pod, SystemClock(), prune=True).once(**how)


def test_a_release_arrives_as_it_was_pushed(
    store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    own = made.models_dir / "ranker" / "configs" / "gpu.pbtxt"  # in no manifest
    own.parent.mkdir()
    own.write_text("instance_group [ { kind: KIND_GPU } ]")
    assert push(store, trainer(made), "one")
    assert not push(store, trainer(made), "one")
    assert store.live() is None
    assert store.promote("one").current == "one"
    assert in_step(store, pod) == "one"
    assert live_release_id(pod.releases) == "one"
    assert problems(pod, "one") == []
    assert files(pod.releases / "one") == files(made.releases_dir / "one")
    model = "query_tower/1/model.onnx"
    assert (pod.models / model).read_bytes() == (made.models_dir / model).read_bytes()
    assert (pod.models / "ranker" / "configs" / "gpu.pbtxt").read_bytes() == own.read_bytes()
    assert not (pod.models / "query_tower" / "2").exists()
    assert not pull(store, pod, "one")


def test_every_pod_follows_a_promotion_and_a_rollback(
    store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    push(store, trainer(made), "one")
    store.promote("one")
    in_step(store, pod)
    push(store, trainer(made), "two")
    assert in_step(store, pod) == "one"  # pushed is not promoted
    store.promote("two")
    assert in_step(store, pod) == "two"
    assert read_rollout(pod.releases).previous("two") == ("one",)
    live = store.roll_back("wrong prices", AT)
    assert live.current == "one"
    assert in_step(store, pod) == "one"
    told = read_rollout(pod.releases).rollback_of("two")
    assert told is not None
    assert told.reason == "wrong prices"
    assert problems(pod, "two") == []  # other pods may serve it still
    with pytest.raises(UserError, match="no release before the live one"):
        store.roll_back("again", AT)


def test_a_canary_is_pulled_and_ends_with_the_promotion(
    folder_store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    for release_id in ("one", "two"):
        push(folder_store, trainer(made), release_id)
    trial = Canary(release_id="two", percent=5, started_at=AT)
    with pytest.raises(UserError, match="no release is live"):
        folder_store.try_out(trial)
    folder_store.promote("one")
    folder_store.try_out(trial)
    assert in_step(folder_store, pod) == "one"
    assert read_rollout(pod.releases).canary == trial
    assert problems(pod, "two") == []
    folder_store.promote("two")
    assert in_step(folder_store, pod) == "two"
    assert read_rollout(pod.releases).canary is None
    with pytest.raises(UserError, match="live one already"):
        folder_store.try_out(trial)


def test_what_the_guard_took_back_here_stays_back_until_the_store_changes(
    folder_store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    for release_id in ("one", "two"):
        push(folder_store, trainer(made), release_id)
        folder_store.promote(release_id)
        in_step(folder_store, pod)
    roll_back(pod.releases, "two", "p99", AT)
    assert in_step(folder_store, pod) == "one"
    folder_store.promote("two")
    assert in_step(folder_store, pod) == "two"


def test_a_damaged_file_in_the_store_is_refused_and_nothing_of_it_is_seen(
    folder_store: ReleaseStore, made: Factory, pod: Folders, tmp_path: Path
) -> None:
    for release_id in ("one", "two"):
        push(folder_store, trainer(made), release_id)
    folder_store.promote("one")
    in_step(folder_store, pod)
    folder_store.promote("two")
    before = {**files(pod.releases), **files(pod.models)}
    whole = tmp_path / "store" / "releases" / "two"
    held = sorted(path for path in whole.rglob("*") if path.is_file())
    assert len(held) == 16
    for path in held:
        content = path.read_bytes()
        if path.name == "configurations.json":
            continue  # without it a model server uses the configurations that it has
        for spoilt in (content[: len(content) // 2], bytes([content[0] ^ 1]) + content[1:], None):
            path.unlink() if spoilt is None else path.write_bytes(spoilt)
            with pytest.raises(UserError):
                in_step(folder_store, pod)
            assert {**files(pod.releases), **files(pod.models)} == before, path
            assert in_step(folder_store, pod, or_keep=True) == "one"
            path.write_bytes(content)
    assert in_step(folder_store, pod) == "two"


class _Dead(BaseException):
    """The process was killed."""


def test_what_the_store_has_lost_is_written_again_by_the_next_push(
    store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    own = made.models_dir / "ranker" / "configs" / "gpu.pbtxt"
    own.parent.mkdir()
    own.write_text("instance_group [ { kind: KIND_GPU } ]")
    push(store, trainer(made), "one")
    store.promote("one")
    (made.root / "empty").touch()
    lost: tuple[tuple[Root, str], ...] = (
        ("release", "items.faiss"),
        ("models", "ranker/1/model.onnx"),
        ("models", "ranker/configs/gpu.pbtxt"),
    )
    for root, name in lost:
        store.put("one", root, name, made.root / "empty")
        with pytest.raises(UserError, match="damaged"):
            in_step(store, pod)
        assert push(store, trainer(made), "one")
        assert not push(store, trainer(made), "one")
    assert in_step(store, pod) == "one"
    assert problems(pod, "one") == []


def test_a_file_of_the_same_size_is_another_one_and_written_again(
    store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    push(store, trainer(made), "one")
    store.promote("one")
    source = made.releases_dir / "one" / "items.faiss"
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = made.root / "damaged"
    damaged.write_bytes(content)
    for marked in (True, False):
        store.put("one", "release", "items.faiss", damaged)
        if not marked:  # as a release that an earlier version pushed
            store.remember("one", {})
        with pytest.raises(UserError, match="damaged; `tillwise-serve release push` of it"):
            in_step(store, pod)
        assert push(store, trainer(made), "one")
        assert not push(store, trainer(made), "one")
    assert in_step(store, pod) == "one"
    assert problems(pod, "one") == []


def test_how_servers_run_the_models_of_a_release_may_be_changed(
    store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    tuned = made.models_dir / "ranker" / "configs" / "gpu.pbtxt"
    own = made.models_dir / "ranker" / "configs" / "shop.pbtxt"
    own.parent.mkdir()
    tuned.write_text("# as exported")
    own.write_text("# of the shop")
    push(store, trainer(made), "one")
    store.promote("one")
    assert in_step(store, pod) == "one"
    tuned.write_text("# tuned")
    push(store, trainer(made), "two")
    assert not push(store, trainer(made), "one")  # by itself it changes nothing
    assert otherwise_run(store, trainer(made), "one") == ["ranker/configs/gpu.pbtxt"]
    there = pod.models / "ranker" / "configs" / "gpu.pbtxt"
    # The live release's are here, whichever others came after it.
    store.try_out(Canary(release_id="two", percent=5, started_at=AT))
    assert in_step(store, pod) == "one"
    assert (there.read_text(), (pod.releases / "two").is_dir()) == ("# as exported", True)
    store.promote("two")
    assert in_step(store, pod) == "two"
    assert there.read_text() == "# tuned"
    store.roll_back("slower", AT)
    assert in_step(store, pod) == "one"
    assert there.read_text() == "# as exported"
    assert reconfigure(store, trainer(made), "one") == ["ranker/configs/gpu.pbtxt"]
    assert otherwise_run(store, trainer(made), "one") == []
    assert not push(store, trainer(made), "one")
    assert in_step(store, pod) == "one"
    assert there.read_text() == "# tuned"
    assert (pod.models / "ranker" / "configs" / "shop.pbtxt").read_text() == "# of the shop"
    assert problems(pod, "one") == []


def test_a_pod_in_step_reads_no_release_again(
    folder_store: ReleaseStore, made: Factory, pod: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(folder_store, trainer(made), "one")
    folder_store.promote("one")
    puller = Puller(folder_store, pod, SystemClock())
    puller.once()
    read = list[Path]()

    def noted(path: Path) -> str | None:
        read.append(path)
        return digest_of_file(path)

    monkeypatch.setattr(release_transfer, "digest_of_file", noted)
    puller.once()
    assert [path for path in read if path.suffix != ".pbtxt"] == []
    with (pod.releases / "one" / "items.faiss").open("ab") as file:
        file.write(b"x")
    assert puller.once() == "one"
    assert pod.releases / "one" / "items.faiss" in read
    assert problems(pod, "one") == []


def test_a_pull_that_is_killed_anywhere_leaves_nothing_half(
    folder_store: ReleaseStore, made: Factory, tmp_path: Path
) -> None:
    for release_id in ("one", "two"):
        push(folder_store, trainer(made), release_id)
    begun = folders(tmp_path / "begun")
    folder_store.promote("one")
    in_step(folder_store, begun)
    folder_store.promote("two")
    real, steps, died = os.replace, 0, True
    while died:
        pod = folders(tmp_path / f"pod-{steps}")
        shutil.copytree(begun.releases.parent, pod.releases.parent)
        left = steps

        def killed(source: str, target: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise _Dead
            real(source, target)

        with (
            mock.patch.object(os, "replace", killed),
            # A killed process tidies nothing up.
            mock.patch.object(release_transfer, "_clear"),
        ):
            try:
                pull(folder_store, pod, "two")
                died = False
            except _Dead:
                pass
        assert problems(pod, "one") == []
        if (pod.releases / "two").exists():
            assert problems(pod, "two") == []
        assert live_release_id(pod.releases) == "one"
        assert in_step(folder_store, pod) == "two"
        assert problems(pod, "two") == []
        if died:  # then the second try tidied up, after itself and after the first
            assert list(pod.models.rglob(".partial-*")) == []
        steps += 1
    # The manifest, a version and a configuration per model, the release; then a pull to its end.
    assert steps == 1 + 3 * 2 + 1 + 1


def test_a_release_that_is_not_sealed_does_not_exist(
    folder_store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    with (
        mock.patch.object(ReleaseStore, "seal", side_effect=_Dead),
        pytest.raises(_Dead),
    ):
        push(folder_store, trainer(made), "one")
    assert folder_store.release_ids() == []
    with pytest.raises(UserError, match="not in"):
        folder_store.promote("one")
    with pytest.raises(UserError, match="not in"):
        pull(folder_store, pod, "one")
    assert push(folder_store, trainer(made), "one")
    assert folder_store.release_ids() == ["one"]


def test_what_can_not_be_served_is_not_pushed(
    folder_store: ReleaseStore, made: Factory, tmp_path: Path
) -> None:
    (made.models_dir / "ranker" / "1" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"release one is refused: ranker/1/model\.onnx"):
        push(folder_store, trainer(made), "one")
    assert folder_store.release_ids() == []


def test_two_trainers_that_chose_one_version_are_told_apart(
    store: ReleaseStore, made: Factory, tmp_path: Path
) -> None:
    push(store, trainer(made), "one")
    other = Factory(tmp_path / "other", seed=99)
    other.write("one")
    with pytest.raises(UserError, match="another one of this name"):
        push(store, trainer(other), "one")
    third = Factory(tmp_path / "third", seed=99)
    third.write("three")
    with pytest.raises(UserError, match="version 1 of model query_tower belongs to release one"):
        push(store, trainer(third), "three")
    assert store.release_ids() == ["one"]


def test_two_promotions_at_once_do_not_both_win(
    s3: dict[str, str], made: Factory, tmp_path: Path
) -> None:
    with mock.patch.dict(os.environ, s3):
        store = ReleaseStore(f"s3://{BUCKET}/{tmp_path.name}")
        for release_id in ("one", "two"):
            push(store, trainer(made), release_id)
        store.promote("one")
        real = ReleaseStore._switch

        def late(self: ReleaseStore, content: bytes, e_tag: str | None) -> None:
            with mock.patch.object(ReleaseStore, "_switch", real):
                ReleaseStore(self.url).promote("two")
            real(self, content, e_tag)

        with (
            mock.patch.object(ReleaseStore, "_switch", late),
            pytest.raises(UserError, match="in this moment"),
        ):
            store.promote("one")
        live = store.live()
    assert live is not None
    assert live.history == ("two", "one")


def test_promotions_in_a_folder_take_turns(folder_store: ReleaseStore, made: Factory) -> None:
    for release_id in ("one", "two"):
        push(folder_store, trainer(made), release_id)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(folder_store.promote, ["one", "two"] * 20))
    live = folder_store.live()
    assert live is not None
    assert live.generation == 40


def test_only_what_nobody_needs_is_removed(
    folder_store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    replace(made, seed=9).write("three", version=3, current=False)
    for release_id in ("one", "two", "three"):
        push(folder_store, trainer(made), release_id)
        folder_store.promote(release_id)
        in_step(folder_store, pod)
    kept = {path.name for path in pod.releases.iterdir() if path.is_dir()}
    assert kept == {"two", "three"}
    assert {path.name for path in (pod.models / "ranker").iterdir()} == {"2", "3", "config.pbtxt"}
    assert prune(pod, {"nobody-knows"}) == Pruned([], [])
    assert problems(pod, "two") == []


def test_a_broken_release_in_use_is_kept_with_all_that_it_may_need(
    folder_store: ReleaseStore, made: Factory, pod: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    replace(made, seed=9).write("three", version=3, current=False)
    for release_id in ("one", "two"):
        push(folder_store, trainer(made), release_id)
        folder_store.promote(release_id)
        in_step(folder_store, pod)
    (pod.releases / "one" / MANIFEST).write_bytes(b"{")  # next to go back to
    (pod.releases / "aside").mkdir()
    shutil.copy(pod.releases / "two" / MANIFEST, pod.releases / "aside" / MANIFEST)
    left = prune(pod, {"two"})
    assert left.removed == ["aside"]  # what nobody uses goes all the same
    (line,) = left.left
    assert "release one: its manifest.json can not be read" in line
    (pod.releases / "one" / MANIFEST).unlink()  # and without a manifest at all
    assert prune(pod, {"two"}).removed == []
    assert {"1", "2"} <= {path.name for path in (pod.models / "ranker").iterdir()}
    (pod.releases / "rollout.json").write_bytes(b"{")
    assert len(prune(pod, {"two"}).left) == 1
    (pod.releases / "rollout.json").unlink()
    push(folder_store, trainer(made), "three")
    with caplog.at_level(logging.WARNING):
        folder_store.promote("three")
        assert in_step(folder_store, pod) == "three"


def test_a_full_disk_leaves_the_release_that_is_here(
    folder_store: ReleaseStore, made: Factory, pod: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    for release_id in ("one", "two"):
        push(folder_store, trainer(made), release_id)
    folder_store.promote("one")
    assert in_step(folder_store, pod) == "one"
    folder_store.promote("two")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, usual[1]))  # no file may be larger
    try:
        with pytest.raises(OSError, match="too large"):
            in_step(folder_store, pod)
        with caplog.at_level(logging.WARNING):
            assert in_step(folder_store, pod, or_keep=True) == "one"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "keeping release one" in caplog.text
    assert "too large" in caplog.text
    assert problems(pod, "one") == []
    assert in_step(folder_store, pod) == "two"


def s3_at(port: int) -> AbstractContextManager[object]:
    """An object store's address and keys in the environment, whatever answers there."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    return mock.patch.dict(os.environ, keys | {"AWS_ENDPOINT": f"http://127.0.0.1:{port}"})


def test_a_store_that_is_away_stops_nobody_who_has_a_release(made: Factory, pod: Folders) -> None:
    with s3_at(free_port()):
        store = ReleaseStore(f"s3://{BUCKET}/x")
        with pytest.raises(StoreUnreachable):
            in_step(store, pod)
        with pytest.raises(StoreUnreachable):
            in_step(store, pod, or_keep=True)  # nothing here to keep
        assert in_step(store, trainer(made), or_keep=True) == "one"


def test_a_store_that_says_nothing_is_asked_once_where_a_release_is_at_hand(made: Factory) -> None:
    """A gateway that starts waits for it, and checkouts wait for the gateway."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        silent.setblocking(False)
        with s3_at(silent.getsockname()[1]):
            store = ReleaseStore(f"s3://{BUCKET}/x")
            assert in_step(store, trainer(made), or_keep=True) == "one"
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize("url", ["releases", "ftp://host/x", "file://relative", "s3:/bucket"])
def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(UserError, match="release store"):
        ReleaseStore(url)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "ranker/../../x", ".hidden", "a//b", ""])
def test_a_manifest_can_not_write_outside_its_folders(
    folder_store: ReleaseStore, made: Factory, pod: Folders, name: str, tmp_path: Path
) -> None:
    push(folder_store, trainer(made), "one")
    factory = Factory(tmp_path / "evil")
    factory.write("evil", files={name: "0" * 64})
    content = (factory.releases_dir / "evil" / "manifest.json").read_bytes()
    folder_store.seal("evil", content)
    with pytest.raises(UserError, match="names the file"):
        pull(folder_store, pod, "evil")


def test_the_sidecar_follows_as_a_process_and_ends_on_sigterm(
    s3: dict[str, str], made: Factory, pod: Folders, tmp_path: Path
) -> None:
    place = Place(made, tmp_path / "state")
    store = s3 | {"TILLWISE_RELEASE_STORE": f"s3://{BUCKET}/{tmp_path.name}"}
    mark = tmp_path / "in-step"
    sidecar = subprocess.Popen(
        [
            *(sys.executable, "-m", "serving", "release", "pull", "--every", "0.2", "--prune"),
            *("--mark", str(mark), "--releases", str(pod.releases), "--models", str(pod.models)),
        ],
        env=place.environment | store,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for release_id in ("one", "two"):
            pushed = place.call("release", "push", release_id, "--promote", **store)
            assert pushed.returncode == 0, pushed.stderr
            assert f"release {release_id} is live in s3://" in pushed.stdout
            _until(lambda wanted=release_id: named(pod.releases) == wanted)  # type: ignore[misc]
            _until(mark.exists)
        back = place.call("release", "push", "--rollback", "--reason", "wrong prices", **store)
        assert "release one is live" in back.stdout
        _until(lambda: named(pod.releases) == "one")
        sidecar.terminate()
        log = sidecar.communicate(timeout=60)[1]
        assert sidecar.returncode == 0, log
        assert "release two is live here" in log
    finally:
        sidecar.kill()
        sidecar.wait()


def test_the_commands_say_what_is_wrong(made: Factory, tmp_path: Path) -> None:
    place = Place(made, tmp_path / "state")
    assert "TILLWISE_RELEASE_STORE" in place.call("release", "pull").stderr
    store = {"TILLWISE_RELEASE_STORE": f"file://{tmp_path / 'store'}"}
    assert "no release is live" in place.call("release", "pull", **store).stderr
    wrong = [
        ("push", "one", "--canary", "0"),
        ("push", "one", "--rollback"),
        ("push", "--rollback", "--configurations"),
        ("push", "absent"),
        ("push", "one", "--promote", "--shadow"),
        ("pull", "one", "--every", "5"),
        ("pull", "--every", "0"),
        ("pull", "--every", "nan"),
        ("pull", "one", "--all"),
        ("push", "../one"),
        ("pull", "../one"),
        ("push", "--rollback"),
        ("pull", "--load-triton", "triton"),
        ("pull", "--load-triton", "http://"),
        ("pull", "--await-triton", "grpc://127.0.0.1:8001"),
        ("pull", "--await-triton", "http://127.0.0.1:port"),
    ]
    for arguments in wrong:
        told = place.call("release", *arguments, **store)
        assert told.returncode == 2, arguments
        assert len(told.stderr.splitlines()) == 1, told.stderr
    first = place.call("release", "push", "--promote", **store)
    assert (first.returncode, "None" in first.stdout) == (0, False)
    assert place.call("release", "push", "two", "--canary", "5", **store).returncode == 0
    assert "two on trial" in place.call("release", "push", "two", "--shadow", **store).stdout
    assert place.call("release", "push", "--stop-canary", **store).returncode == 0
    tuned = made.models_dir / "ranker" / "configs" / "gpu.pbtxt"
    tuned.parent.mkdir()
    tuned.write_text("# tuned")
    said = place.call("release", "push", "two", **store).stdout
    assert "not pushed: ranker/configs/gpu.pbtxt" in said
    said = place.call("release", "push", "two", "--configurations", **store).stdout
    assert "ranker/configs/gpu.pbtxt written" in said
    assert "gpu.pbtxt" not in place.call("release", "push", "two", **store).stdout
    shutil.rmtree(made.releases_dir / "two")  # another machine pushed it
    refused = place.call("release", "push", "two", "--configurations", **store)
    assert (refused.returncode, "there is no release two" in refused.stderr) == (2, True)
    assert "two is live" in place.call("release", "push", "two", "--promote", **store).stdout
    assert place.call("release", "pull", "--all", **store).returncode == 0
    assert problems(trainer(made), "two") == []


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    waited = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        waited.wait(0.05)
    raise AssertionError("it did not happen")


def test_follow_moves_nothing_twice(
    folder_store: ReleaseStore, made: Factory, pod: Folders
) -> None:
    push(folder_store, trainer(made), "one")
    live = folder_store.promote("one")
    pull(folder_store, pod, "one")
    assert follow(pod, live, AT)
    assert not follow(pod, live, AT)


def test_a_release_that_can_not_be_read_keeps_no_other_away(
    folder_store: ReleaseStore, tmp_path: Path, made: Factory, pod: Folders
) -> None:
    push(folder_store, trainer(made), "one")
    pull(folder_store, pod, "one")
    # Of a later version of Tillwise, or damaged.
    for root in (tmp_path / "store" / "releases", pod.releases):
        (root / "one" / "manifest.json").write_text('{"format": 99}')
    assert push(folder_store, trainer(made), "two")
    assert pull(folder_store, pod, "two")
    assert problems(pod, "two") == [] or "current" in problems(pod, "two")[0]
