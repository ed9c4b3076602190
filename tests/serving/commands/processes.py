"""Gateways as processes, and what the command line says."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx

from serving.__main__ import main
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
        done = subprocess.run(
            [sys.executable, "-m", "serving", *arguments],
            cwd=ROOT,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def gateway(self, *arguments: str, **more: str) -> Iterator["Served"]:
        """A running gateway, ended by SIGTERM if it still runs."""
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "run", "--port", str(port), *arguments],
            cwd=ROOT,
            env=self.environment | more,
            stderr=subprocess.PIPE,
            text=True,
        )
        served = Served(process, f"http://127.0.0.1:{port}")
        try:
            served.wait_ready()
            yield served
        finally:
            served.end()


@dataclass
class Served:
    """A gateway process."""

    process: subprocess.Popen[str]
    url: str
    log: str = ""
    ended: bool = False

    def wait_ready(self) -> None:
        if not answers(f"{self.url}/readyz", lambda: self.process.poll() is None):
            raise AssertionError(f"the gateway did not become ready: {self.end()}")

    def end(self, number: int = signal.SIGTERM) -> str:
        """Signal it and wait; its log."""
        if not self.ended:
            if self.process.poll() is None:
                self.process.send_signal(number)
            _, self.log = self.process.communicate(timeout=30)
            self.ended = True
        return self.log

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
