"""Runs a command under torchrun: real processes, gloo over loopback."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 240.0


def torchrun(*arguments: str, processes: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """Start `arguments` (a script or `-m module`, and its own) in so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    local = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", f"--max-restarts={restarts}"]
    return subprocess.Popen(
        [*command, *local, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error, at the end."""
    try:
        said, complained = started.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        started.kill()
    return started.returncode, said, complained
