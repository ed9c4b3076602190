"""The sidecar of a Triton server's pod notices that the server calls itself ready and does not
answer, takes the pod out of service, and mends what can be mended."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from contract.clock import SystemClock
from contract.manifest import MODELS, RANKER
from serving.inference.release_follow import Puller
from serving.inference.release_place import Folders, local_manifest
from serving.inference.release_store import ReleaseStore
from serving.inference.release_transfer import push
from serving.inference.triton_repository import failing, missing
from tests.serving.inference.triton_server import triton_server
from tests.serving.release_factory import Factory
from training.export import model_config


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def kill_process_behind(model: str) -> None:
    """Of the one Triton that these tests have started."""
    killed = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.name() == "triton_python_backend_stub" and any(
                f"/{model}/" in part for part in child.cmdline()
            ):
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
    assert killed == 1


def test_a_server_that_is_ready_and_does_not_answer_is_out_of_service_until_it_does(
    tmp_path: Path,
) -> None:
    code = model_config.PYTHON_BACKEND.read_bytes()
    beside = {f"{name}/1/model.py": code for name in MODELS}
    beside |= {
        f"{name}/config.pbtxt": model_config.render(name, "python").encode() for name in MODELS
    }
    factory = Factory(tmp_path / "trainer", beside=beside)
    factory.write("one")
    store = ReleaseStore(f"file://{tmp_path / 'store'}")
    push(store, Folders(factory.releases_dir, factory.models_dir), "one")
    store.promote("one")
    pod = Folders(tmp_path / "pod" / "releases", tmp_path / "pod" / "models")
    Puller(store, pod, SystemClock()).once()
    mark, ended = tmp_path / "in-step", threading.Event()
    with triton_server(pod.models, tmp_path / "triton.log") as server:
        manifest = local_manifest(pod, "one")
        assert failing(server.url, manifest) == []
        sidecar = Puller(store, pod, SystemClock(), load_triton=server.url, mark=mark)
        following = threading.Thread(target=sidecar.follow, args=(0.1, ended))
        following.start()
        try:
            until(mark.exists)
            kill_process_behind(RANKER)
            assert missing(server.url, manifest) == []  # it calls itself ready
            until(lambda: not mark.exists())
            until(mark.exists)  # loaded anew
            assert failing(server.url, manifest) == []
        finally:
            ended.set()
            following.join()
