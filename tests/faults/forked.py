"""Gateways for tests that kill them by the dozen: each is a process of its own, forked from one
that has imported everything, because importing takes far longer than a gateway lives here."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

# All that a gateway imports, also what it imports late.
import serving.app
import serving.commands.process
import serving.commands.run
import serving.stores
from serving.__main__ import main
from tests.serving.commands.processes import answers, free_port

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
_READY_S = 120.0


@contextmanager
def gateway(environment: Mapping[str, str], log: Path) -> Iterator["Forked"]:
    """A running gateway with these settings that logs to `log`; ended if it still runs."""
    port = free_port()
    process = _PROCESSES.Process(target=_serve, args=(dict(environment), port, log))
    process.start()
    forked = Forked(process, f"http://127.0.0.1:{port}", log)
    try:
        forked.wait_ready()
        yield forked
    finally:
        forked.end(signal.SIGTERM)


def _serve(environment: dict[str, str], port: int, log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("a", encoding="utf-8") as told, redirect_stderr(told):
        sys.exit(main(["run", "--port", str(port)]))


class Forked:
    """A gateway process."""

    def __init__(
        self, process: multiprocessing.context.ForkServerProcess, url: str, log: Path
    ) -> None:
        self._process, self.url, self._log = process, url, log

    def wait_ready(self) -> None:
        """Until it serves. Raises AssertionError with its log."""
        if answers(f"{self.url}/readyz", self._process.is_alive, _READY_S):
            return
        self.end(signal.SIGKILL)
        told = self._log.read_text(encoding="utf-8")
        raise AssertionError(f"the gateway did not become ready: {told[-2_000:]}")

    def end(self, number: int) -> int | None:
        """Send it the signal, if it still runs, and wait; how it ended."""
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, number)
        self._process.join(60)
        return self._process.exitcode


__all__ = ["Forked", "gateway", "serving"]
