"""The Triton server that `make .triton` installs, over a repository of models in Python that answer
nothing: for tests of which versions it holds."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODEL = b"""
class TritonPythonModel:
    def execute(self, requests):
        return []
"""
BROKEN_MODEL = b"""
class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("made for another server")
"""


def config(name: str) -> bytes:
    """A configuration that keeps only the newest version, so that others must be asked for."""
    return f"""name: "{name}" backend: "python" max_batch_size: 8
input [ {{ name: "i" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "o" data_type: TYPE_FP32 dims: [ 1 ] }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
""".encode()


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    url: str
    metrics: str


def server_folder() -> Path:
    """Where the server is installed."""
    home = ROOT / ".triton" / "pytriton" / "tritonserver"
    if not (home / "bin" / "tritonserver").exists():
        raise AssertionError("no Triton server: `make .triton` installs it")
    return home


def server_environment() -> dict[str, str]:
    """With which it finds Python and its libraries."""
    libraries = (sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH"))
    return os.environ | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "LD_LIBRARY_PATH": os.pathsep.join(path for path in libraries if path),
    }


@contextmanager
def triton_server(models: Path, log: Path) -> Iterator[Server]:
    """A server over `models`, started as the manifests start theirs."""
    home = server_folder()
    ports = []
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    region = f"tillwise_test_{ports[0]}_"
    with log.open("w") as told:
        process = subprocess.Popen(
            [
                *(home / "bin" / "tritonserver", f"--model-repository={models}"),
                *(f"--backend-directory={home / 'backends'}", "--model-control-mode=explicit"),
                *("--load-model=*", "--disable-auto-complete-config", "--strict-readiness=false"),
                *("--exit-on-error=false", "--allow-gpu-metrics=false"),
                *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")),
                *(f"--http-port={ports[0]}", f"--grpc-port={ports[1]}"),
                f"--metrics-port={ports[2]}",
                f"--backend-config=python,shm-region-prefix-name={region}",
            ],
            env=server_environment(),
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{ports[0]}"
        _wait(process, f"{url}/v2/health/ready", log)
        yield Server(url, f"http://127.0.0.1:{ports[2]}/metrics")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for left in Path("/dev/shm").glob(f"{region}*"):
            left.unlink(missing_ok=True)


def ready_versions(url: str, model: str) -> set[int]:
    """The versions 1 to 9 of `model` that the server can run."""
    found = set()
    for version in range(1, 10):
        try:
            with urllib.request.urlopen(f"{url}/v2/models/{model}/versions/{version}/ready"):
                found.add(version)
        except urllib.error.HTTPError:
            continue
    return found


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"Triton did not become ready: {log.read_text()[-2000:]}")
