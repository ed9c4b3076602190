"""Gateways as processes, and what the command line says."""

import io
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx

from serving.__main__ import main
from tests.serving.commands.forked import Forked
from tests.serving.release_factory import Factory

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Place:
    """Folders of one gateway and the environment that names them."""

    factory: Factory
    state: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if "TILLWISE" not in name}
        return kept | {
            "TILLWISE_RELEASES": str(self.factory.releases_dir),
            "TILLWISE_MODELS": str(self.factory.models_dir),
            "TILLWISE_STATE": str(self.state),
        }

    def call(self, *arguments: str, **more: str | None) -> Ended:
        """Run one command to its end in this process, which is quicker than in its own; `more`
        variables are set, or taken away where they are None."""
        printed, told = io.StringIO(), io.StringIO()
        merged: dict[str, str | None] = {**self.environment, **more}
        environment = {name: text for name, text in merged.items() if text is not None}
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            redirect_stdout(printed),
            redirect_stderr(told),
        ):
            try:
                status = main(arguments)
            except SystemExit as end:  # how argparse ends on --help and on wrong arguments
                status = int(end.code or 0)
        return Ended(status, printed.getvalue(), told.getvalue())

    def run(self, *arguments: str, **more: str) -> Ended:
        """Run one command to its end as a process."""
        with _files("stdout", "stderr") as (stdout, stderr):
            process = Forked(arguments, self.environment | more, stdout, stderr)
            try:
                status = process.wait(60)
            finally:
                process.kill()
            return Ended(status, stdout.read_text(), stderr.read_text())

    @contextmanager
    def gateway(self, *arguments: str, **more: str) -> Iterator["Served"]:
        """A running gateway, ended by SIGTERM if it still runs."""
        port = free_port()
        told = ["run", "--port", str(port), *arguments]
        with _files("stdout", "stderr") as (stdout, stderr):
            process = Forked(told, self.environment | more, stdout, stderr)
            served = Served(process, f"http://127.0.0.1:{port}", stderr)
            try:
                served.wait_ready()
                yield served
            finally:
                served.end()


@contextmanager
def _files(*names: str) -> Iterator[tuple[Path, ...]]:
    """Empty files, for what a process says."""
    with tempfile.TemporaryDirectory() as folder:
        files = tuple(Path(folder) / name for name in names)
        for file in files:
            file.touch()
        yield files


@dataclass
class Served:
    """A gateway process that logs to `file`."""

    process: Forked
    url: str
    file: Path

    def wait_ready(self) -> None:
        if not answers(f"{self.url}/readyz", lambda: self.process.poll() is None):
            raise AssertionError(f"the gateway did not become ready: {self.end()}")

    def end(self, number: int = signal.SIGTERM) -> str:
        """Signal it, if it still runs, and wait; its log."""
        self.process.send_signal(number)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
        return self.file.read_text()

    def post(self, path: str, body: object, key: str) -> httpx.Response:
        headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"}
        return httpx.post(self.url + path, json=body, headers=headers, timeout=10)


def answers(url: str, runs: Callable[[], bool], seconds: float = 120) -> bool:
    """Wait until `url` answers 200; False when it no longer `runs`, or not within `seconds`.

    One client asks all along: each new one reads the certificates of the whole machine, and takes
    half a core from what is starting.
    """
    began = time.monotonic()
    with httpx.Client(trust_env=False, verify=False, timeout=5) as client:
        while runs() and time.monotonic() - began < seconds:
            with suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return True
            time.sleep(0.05)
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
