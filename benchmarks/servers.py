"""Servers that a benchmark starts for itself, each in a process of its own, and surely ends."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from contract.errors import UserError

# Every checkout a new one: the few bodies of a benchmark would soon be looked up.
UNREMEMBERED = {"TILLWISE_QUERY_VECTORS": "0"}
UNREMEMBERED_NOTE = "no query vectors are remembered (TILLWISE_QUERY_VECTORS=0)"
_READY_SECONDS = 120.0
_STOP_SECONDS = 15.0
_ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def server(
    module: str, arguments: Sequence[str], url: str, settings: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module arguments` once it answers 200 at `url`, with further `settings` in its
    environment; ended on the way out, by its process id, whatever happened. Raises UserError when
    it does not start."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=said,
            stderr=said,
            cwd=_ROOT,
            env=_environment() | dict(settings or {}),
        )
        try:
            _wait(process, url)
            yield process
        except _NotReadyError:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"{module} did not start: {lines[-1] if lines else ''}") from None
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End `process`: asked first, then forced."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def command(module: str, *arguments: str) -> str:
    """What `python -m module arguments` prints. Raises UserError with its last line on failure."""
    outcome = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env=_environment(),
        check=False,
    )
    if outcome.returncode != 0:
        lines = outcome.stderr.strip().splitlines()
        raise UserError(lines[-1] if lines else f"{module} failed ({outcome.returncode})")
    return outcome.stdout.strip()


def created_key(state: Path, role: str) -> str:
    """A new key of the gateway whose state is there. Raises UserError."""
    created = command("serving", "keys", "create", f"--role={role}", f"--state={state}")
    return created.splitlines()[-1]


def _environment() -> dict[str, str]:
    """Ours without the settings of some other gateway."""
    return {name: held for name, held in os.environ.items() if not name.startswith("TILLWISE_")}


class _NotReadyError(Exception):
    pass


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + _READY_SECONDS
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.1)
    raise _NotReadyError
