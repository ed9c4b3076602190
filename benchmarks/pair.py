"""A gateway that knows the history of an import and, beside it, its control: the bare endpoint. The
gateway remembers no query vectors, as if every checkout were a new one."""

import argparse
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.capacity import bind
from benchmarks.checkouts import DECIDE, probe
from benchmarks.decide import seeded
from benchmarks.http_client import Target
from benchmarks.servers import UNREMEMBERED, free_port, server
from contract.errors import UserError
from contract.manifest import ReleaseManifest


@dataclass(frozen=True)
class Pair:
    """Both of them running."""

    url: str
    key: str
    gateway: Target
    bare: Target
    gateway_process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(
    args: argparse.Namespace, manifest: ReleaseManifest, first: bytes, *, apart: bool
) -> Iterator[Pair]:
    """Both, from their being ready on; the gateway has answered the body `first`. `apart`: they
    share one core and this process has another, as a load from elsewhere would leave them.
    `args` names the folders `data`, `releases` and `models`. Raises UserError."""
    cores = sorted(os.sched_getaffinity(0))
    if apart and len(cores) < 2:
        raise UserError("the generator needs a core of its own; this machine lends one in all")
    with contextlib.ExitStack() as started:
        state = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
        key = seeded(args, state, manifest)
        port, bare_port = free_port(), free_port()
        url, bare = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{bare_port}"
        folders = [f"--{name}={getattr(args, name).resolve()}" for name in ("releases", "models")]
        until = f"--as-of={manifest.trained_until.isoformat()}"
        told = ["run", f"--port={port}", f"--state={state}", *folders, until]
        gateway = started.enter_context(server("serving", told, f"{url}/readyz", UNREMEMBERED))
        control = started.enter_context(
            server("benchmarks.bare", [f"--port={bare_port}"], f"{bare}/")
        )
        probe(url, key, first)
        if apart:
            started.callback(os.sched_setaffinity, 0, cores)
            for process in (gateway, control):
                bind(process.pid, cores[0])
            os.sched_setaffinity(0, {cores[1]})
        yield Pair(url, key, Target.of(url, DECIDE, key), Target.of(bare, DECIDE, key), gateway)
