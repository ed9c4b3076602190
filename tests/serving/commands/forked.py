"""`tillwise-serve` by the dozen: each command is a process of its own, forked from one that has
imported everything, because importing takes far longer than most of them live here."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.__main__ import main

_ROOT = Path(__file__).resolve().parents[3]
_PROCESSES = multiprocessing.get_context("forkserver")
# All that a gateway imports, also what it imports late.
_PROCESSES.set_forkserver_preload(
    [
        *("serving.app", "serving.stores", "serving.commands.process"),
        *("serving.commands.run", "serving.commands.demo_run", __name__),
    ]
)


class Forked:
    """A command that runs; to be waited for as a `subprocess.Popen` is."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdout: Path, stderr: Path
    ) -> None:
        """What it prints and logs is appended to the two files, which may be the same."""
        told = (list(arguments), dict(environment), stdout, stderr)
        self._process = _PROCESSES.Process(target=_command, args=told)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """How it ended: below 0 by a signal; None as long as it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("tillwise-serve", timeout or 0)
        return self.returncode


def _command(arguments: list[str], environment: dict[str, str], stdout: Path, stderr: Path) -> None:
    os.chdir(_ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main(arguments))
