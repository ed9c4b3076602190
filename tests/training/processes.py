"""Trainings as processes of their own: one, or many under torchrun with gloo over loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 240.0
Ended = tuple[int, str, str]
"""Exit status, standard output and standard error."""


def _options(restarts: int) -> list[str]:
    local = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", f"--max-restarts={restarts}"]
    return ["--nproc-per-node=2", *local]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str) -> Ended:
    """Run `arguments` (a script or `-m module`, and its own) in two processes to the end."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *_options(0), *arguments],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    return done.returncode, done.stdout, done.stderr


@dataclass
class Launched:
    """A process that a `Launcher` started."""

    pid: int
    _said: Path
    _complained: Path
    _answers: IO[str]

    def runs(self) -> bool:
        """Whether it has not ended."""
        found: bool = psutil.pid_exists(self.pid)
        return found

    def has_begun(self) -> bool:
        """Whether it is past being started."""
        return self._said.exists() and self._complained.exists()

    def end(self) -> Ended:
        """Wait for its end."""
        status = int(self._answers.readline())
        return status, self._said.read_text(), self._complained.read_text()


@dataclass
class Launcher:
    """Starts trainings, one at a time, as forks of a process that has imported everything, which
    takes longer than most of them do."""

    _requests: IO[str]
    _answers: IO[str]
    _folder: Path

    def train(self, *arguments: str) -> Launched:
        """Start `tillwise-train`."""
        return self._start("tillwise-train", list(arguments))

    def torchrun(self, script: str, *arguments: str, restarts: int = 0) -> Launched:
        """Start a script in two processes."""
        forked = ["--start-method=fork", "--run-path"]
        return self._start("torchrun", [*_options(restarts), *forked, script, *arguments])

    def _start(self, program: str, arguments: list[str]) -> Launched:
        name = f"{time.monotonic_ns()}"
        said, complained = self._folder / f"{name}.out", self._folder / f"{name}.err"
        told = [program, arguments, str(said), str(complained)]
        print(json.dumps(told), file=self._requests, flush=True)
        return Launched(int(self._answers.readline()), said, complained, self._answers)


@contextmanager
def launcher(folder: Path) -> Iterator[Launcher]:
    """A launcher that keeps what the processes say in `folder`; none of them outlives it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.training.forking"],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Launcher(process.stdin, process.stdout, folder)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
