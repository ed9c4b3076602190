"""A Triton server of our own on this machine, from the wheel that `make triton` installs: to try it
out, for tests and for benchmarks. In production Triton runs in an image of its own."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.errors import UserError
from contract.manifest import MODELS

FOLDER = Path(__file__).resolve().parents[2] / ".triton"
STAMP = ".installed"
INSTALL = "install it with `make .triton` in a checkout of Tillwise"
_READY_SECONDS = 60.0
_EXIT_SECONDS = 5
_TRIES = 3


@dataclass(frozen=True)
class Ports:
    """Where a server listens, all on 127.0.0.1."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002

    @classmethod
    def free(cls) -> "Ports":
        """Three that nobody listens on at the moment."""
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            for probe in (one, two, three):
                probe.bind(("127.0.0.1", 0))
            return cls(*(probe.getsockname()[1] for probe in (one, two, three)))


def installed(folder: Path = FOLDER) -> Path:
    """The server's folder inside `folder`. Raises UserError with the line that installs it."""
    server = folder.resolve() / "pytriton" / "tritonserver"
    if not (folder / STAMP).is_file() or not (server / "bin" / "tritonserver").is_file():
        raise UserError(f"there is no Triton server in {folder}: {INSTALL}")
    return server


class TritonProcess:
    """A server over the repository `models`, reading each model's configuration `variant`."""

    def __init__(
        self,
        models: Path,
        ports: Ports,
        *,
        variant: str = "python",
        load: Sequence[str] = MODELS,
        log: Path | None = None,
    ) -> None:
        self.ports = ports
        self.log = log  # None: where our own output goes
        self._models = models.resolve()
        self._variant = variant
        self._load = load
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it speaks gRPC."""
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads."""
        return f"http://127.0.0.1:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int:
        """Of the server; the processes behind its models are its children."""
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time that the server and the processes behind its models have taken so far."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid:  # the session that we started it in
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Start it and wait until it and its models are ready. Raises UserError."""
        server = installed()
        libraries = (sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH"))
        environment = os.environ | {
            # The process behind a model finds the packages of the environment through its python.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "LD_LIBRARY_PATH": os.pathsep.join(path for path in libraries if path),
        }
        said = None if self.log is None else self.log.open("ab")
        try:
            self._process = subprocess.Popen(
                [str(server / "bin" / "tritonserver"), *self._arguments(server)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # so that it can be ended with its children
            )
        finally:
            if said is not None:
                said.close()
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def wait(self) -> int:
        """Its exit status, once it ends."""
        assert self._process is not None
        # Not `wait()`: a signal may reach one of gRPC's threads; its handler then runs only when
        # this thread comes back to Python.
        while (status := self._process.poll()) is None:
            time.sleep(0.1)
        return status

    def signal(self, number: int) -> None:
        """Send a signal to the server alone."""
        os.kill(self.pid, number)

    def end(self) -> None:
        """Ask it to end, then make sure of it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2 * _EXIT_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and what it started at once; safe to call again."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for left in Path("/dev/shm").glob(f"{self._region}*"):
            left.unlink(missing_ok=True)
        self._process = None

    @property
    def _region(self) -> str:
        return f"tillwise_triton_{self.ports.grpc}_"

    def _arguments(self, server: Path) -> list[str]:
        ports = self.ports
        return [
            f"--model-repository={self._models}",
            f"--model-config-name={self._variant}",
            f"--backend-directory={server / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._region}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self._load),
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            "--grpc-http2-min-recv-ping-interval-without-data=1000",  # as k8s/base/triton.yaml
            f"--exit-timeout-secs={_EXIT_SECONDS}",
        ]

    def _wait_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + _READY_SECONDS
        with grpc.insecure_channel(self.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while self._process.poll() is None and time.monotonic() < until:
                with suppress(grpc.RpcError):
                    if stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1.0).ready:
                        return
                time.sleep(0.05)
        raise UserError(f"Triton did not start: {self._last_words()}")

    def _last_words(self) -> str:
        """What it complained of."""
        if self.log is None or not self.log.is_file():
            return "see what it printed"
        lines = self.log.read_text(errors="replace").splitlines()
        wrong = [line for line in lines if line.startswith(("E", "error", "failed"))]
        return (wrong or lines or ["it said nothing"])[-1].strip()


@contextmanager
def running(models: Path, *, variant: str = "python") -> Iterator[TritonProcess]:
    """A server on free ports for the block. Somebody may take a port between its choice and its
    use: then others are tried. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="tillwise-triton-") as folder:
        process = TritonProcess(models, Ports.free(), variant=variant, log=Path(folder) / "log")
        for attempt in range(_TRIES):
            try:
                process.start()
                break
            except UserError as error:
                if attempt == _TRIES - 1 or "already in use" not in str(error).lower():
                    raise
                process.ports = Ports.free()
        try:
            yield process
        finally:
            process.end()
